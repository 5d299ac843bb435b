"""A line for people, on stderr, which ends nothing: its disk may be full, and who read it may be gone."""

from __future__ import annotations

import contextlib
import sys


def say(line: str, *, end: str = "\n") -> None:
    """Print a line on stderr if it can be, in one piece: a signal does not come in between."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
        sys.stderr.write(f"{line}{end}")
        sys.stderr.flush()
