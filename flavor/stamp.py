"""The local date and time before each line of a program that runs for long, so that what it prints is a log."""

from __future__ import annotations

import os
import re
import sys
import time

_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
_timed = False


def with_times() -> None:
    """For entry points of programs that run for long: from now on each line on stderr begins with the time.

    But for what goes to systemd's journal, which has the time of each line.
    """
    global _timed  # noqa: PLW0603 - one way to print a process, chosen before anything else
    _timed = not _is_journal()


def stamp() -> str:
    """What a line begins with; '' in a program that ends soon."""
    return time.strftime("%Y-%m-%d %H:%M:%S ") if _timed else ""


def without_stamp(line: str) -> str:
    """A line of another process without the time that it begins with."""
    return _STAMP.sub("", line, count=1) if _STAMP.match(line) else line


def _is_journal() -> bool:
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
