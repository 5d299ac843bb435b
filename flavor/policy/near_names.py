"""Which metrics there are, said to who has named one that is not: all of them, or those with the nearest names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

from flavor.printable import shown_name
from flavor.records.counts import WORST, is_beside
from flavor.records.merging import WEIGHTED

_MOST = 5
_ALIKE, _SHARED = 0.6, 0.8
"""From which similarity names are near; that of two of which one has all words of the other (`f1`, `f1_score`)."""
_LONGEST = 200


def there_are(wanted: str, names: Iterable[str]) -> str:
    """Return which of these metrics the reader may have meant: `there are accuracy, loss`, if these are all.

    Of many, the nearest are named, by the whole name or by what stands after `pooled/`, `central/` or a table's title;
    where none is near, the first. Counts, bounds, and a weighted mean beside the plain one are left out.
    """
    there = sorted(set(names))
    wanted = wanted.removeprefix(WORST)
    every = [name for name in there if not is_beside(name) and ("(" in wanted or not name.endswith(WEIGHTED))]
    if len(every) <= _MOST:
        return _listed(every) if every else _listed(there[:_MOST], len(there) - _MOST)
    scored = sorted(((_likeness(wanted, name), name) for name in every), key=lambda each: (-each[0], each[1]))
    near = [name for likeness, name in scored if likeness >= _ALIKE][:_MOST]
    if not near:
        return _listed(every[:_MOST], len(every) - _MOST)
    return f"the nearest of {len(every)} {'is' if len(near) == 1 else 'are'} {', '.join(map(shown_name, near))}"


def _listed(names: list[str], more: int = 0) -> str:
    if not names:
        return "there are none"
    further = f" and {more} more" if more > 0 else ""
    return f"there {'is only' if len(names) == 1 else 'are'} {', '.join(map(shown_name, names))}{further}"


class _Words(NamedTuple):
    text: str
    words: frozenset[str]


def _likeness(wanted: str, name: str) -> float:
    """Return how near two names are, up to 1: the most of the whole names and of their last parts."""
    pairs = [(_words(wanted), _words(name)), (_words(_last_part(wanted)), _words(_last_part(name)))]
    return max(_of_words(*pair) for pair in pairs)


def _of_words(one: _Words, other: _Words) -> float:
    shared = bool(one.words and other.words) and (one.words <= other.words or other.words <= one.words)
    ratio = difflib.SequenceMatcher(None, one.text, other.text).ratio()
    return max(ratio, _SHARED if shared else 0.0)


def _words(text: str) -> _Words:
    text = text[:_LONGEST].lower()
    return _Words(text, frozenset(re.findall(r"[^\W_]+", text)))


def _last_part(name: str) -> str:
    return name.removesuffix(WEIGHTED).rpartition("/")[2]
