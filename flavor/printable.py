"""What others wrote, for a terminal or a table."""

from __future__ import annotations


def printable(line: str) -> str:
    """What others wrote, as one line that moves no cursor and rings no bell."""
    return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
