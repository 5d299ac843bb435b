"""How much of mapped files this process has in memory, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path

import pytest

SMAPS = Path("/proc/self/smaps")
counted = pytest.mark.skipif(not SMAPS.exists(), reason="Linux alone tells what is resident")


def resident_bytes(part: str | Path) -> int:
    """The resident bytes of all mapped files with `part` in their paths."""
    lines = iter(SMAPS.read_text().splitlines())
    return sum(
        1024 * int(next(line for line in lines if line.startswith("Rss:")).split()[1])
        for head in lines
        if str(part) in head
    )
