"""Print lines for people on stderr. A failure, for a full disk or a closed pipe, ends nothing."""

from __future__ import annotations

import contextlib
import sys


def say(line: str, *, end: str = "\n") -> None:
    """Print a line on stderr, if possible, in one piece that no signal interrupts."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: stderr is closed
        sys.stderr.write(f"{line}{end}")
        sys.stderr.flush()
