"""Make text of other parties safe for a terminal or a table."""

from __future__ import annotations


def printable(line: str) -> str:
    """Return text of another party as one line without control characters."""
    return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
