"""Make text of other parties safe for a terminal or a table."""

from __future__ import annotations

import re

_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""Characters that count as printable and show nothing, as a space does."""
_GAP = re.compile(" {3,}")


def printable(line: str) -> str:
    """Return text of another party as one line without control characters and without long runs of spaces.

    Text that fills a terminal's line with spaces could put a line of its own below it. Of three or more spaces in a row
    one is left; flavor's own lines have at most two.
    """
    if not line.isprintable() or any(blank in line for blank in _BLANKS):
        line = "".join(c if c.isprintable() and c not in _BLANKS else ascii(c)[1:-1] for c in line)
    return _GAP.sub(" ", line)


def quoted(words: str, *, most: int | None = None) -> str:
    """Return what another party says, in quotation marks, so that no reader takes it for what flavor says.

    Cuts the words to `most` characters, and leaves one space of each run of white space. Returns '' for no words.
    """
    text = printable(" ".join(words.split()))[:most].replace('"', "'")
    return f'"{text}"' if text else ""
