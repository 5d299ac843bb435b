"""Make text of other parties safe for a terminal or a table."""

from __future__ import annotations

import re
import unicodedata

BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""Characters that count as printable and show nothing, as a space does."""
_LIKE_LATIN = frozenset("асеорхуіјѕһԁԛԝАВЕЅІЈКМНОРСТХУҮορνιΑΒΕΖΗΙΚΜΝΟΡΤΥΧօ")
"""Letters of Cyrillic, Greek and Armenian that look like letters of Latin."""
_GAP = re.compile(" {3,}")


def printable(line: str) -> str:
    """Return text of another party as one line without control characters and without long runs of spaces.

    Text that fills a terminal's line with spaces could put a line of its own below it. Of three or more spaces in a row
    one is left; flavor's own lines have at most two.
    """
    if not line.isprintable() or any(blank in line for blank in BLANKS):
        line = "".join(c if c.isprintable() and c not in BLANKS else ascii(c)[1:-1] for c in line)
    return _GAP.sub(" ", line)


def shown_name(name: str) -> str:
    """Return a name that another party has chosen; in quotation marks and ASCII where it looks like another name.

    Such a name has spaces at an end or in a row, or letters of another script that look like Latin ones and no others.
    """
    letters = [c for c in name if c.isalpha() and not c.isascii()]
    like_latin = [c for c in letters if c in _LIKE_LATIN or unicodedata.normalize("NFKC", c).isascii()]
    is_like = like_latin and all(c in like_latin or unicodedata.name(c, "").startswith("LATIN") for c in letters)
    return ascii(name) if is_like or name != " ".join(name.split()) else printable(name)


def quoted(words: str, *, most: int | None = None) -> str:
    """Return what another party says, in quotation marks, so that no reader takes it for what flavor says.

    Cuts the words to `most` characters, and leaves one space of each run of white space. Returns '' for no words.
    """
    text = printable(" ".join(words.split()))[:most].replace('"', "'")
    return f'"{text}"' if text else ""
