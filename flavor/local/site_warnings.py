"""What the edges of a local run have warned of, each in its site's log, for the end of `flavor run`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from flavor.programs.process import shortened
from flavor.stamp import without_stamp

_FIRST_BYTES = 8 * 1024 * 1024
"""Bytes at the beginning of a log that are read: an edge warns in the first rounds."""
_LONGEST_WORDS = 600
_MOST_LINES = 5
_WARNED = re.compile(r"\[[^]]*\] flavor: warning: (?P<words>.+)")


def site_warnings(logs: Path, sites: Iterable[str]) -> list[str]:
    """Return the first warnings of these sites, each once, with the name of the first site and how many others."""
    found: dict[str, list[str]] = {}
    for site in sites:
        for words in dict.fromkeys(_words_in(logs / f"{site}.log")):
            found.setdefault(words, []).append(site)
    return [
        f"{named[0]}{f' and {len(named) - 1} more' if len(named) > 1 else ''}: {shortened(words, _LONGEST_WORDS)}"
        for words, named in list(found.items())[:_MOST_LINES]
    ]


def _words_in(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            text = file.read(_FIRST_BYTES).decode(errors="replace")
    except OSError:
        return []
    return [found["words"] for line in text.splitlines() if (found := _WARNED.fullmatch(without_stamp(line)))]
