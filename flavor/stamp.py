"""Begin each line of a long-running program with the local date and time, so that its output is a log."""

from __future__ import annotations

import os
import re
import sys
import time

_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
_timed = False


def with_times() -> None:
    """Begin each line on stderr with the time from now on. Entry points of long-running programs call this.

    Lines for systemd's journal get no time, because the journal has it.
    """
    global _timed  # noqa: PLW0603 - one way to print a process, chosen before anything else
    _timed = not _is_journal()


def without_times() -> None:
    """Print lines as they are from now on, as a program does that ends soon."""
    global _timed  # noqa: PLW0603 - see above
    _timed = False


def stamp() -> str:
    """Return the beginning of a line; '' in a program that ends soon."""
    return time.strftime("%Y-%m-%d %H:%M:%S ") if _timed else ""


def without_stamp(line: str) -> str:
    """Return a line of another process without the time at its beginning."""
    return _STAMP.sub("", line, count=1) if _STAMP.match(line) else line


def _is_journal() -> bool:
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
