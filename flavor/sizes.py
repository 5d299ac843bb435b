"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

from flavor.errors import InvalidSetting

_UNITS = {"": 1, **{f"{letter}{suffix}": step**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, step in (("iB", 1024), ("i", 1024), ("", 1024), ("B", 1000))
}}  # fmt: skip


def parse_size(text: str, option: str) -> int:
    """Read a number of bytes, which may have a unit (KiB, MiB, GiB, TiB or K, M, G, T: 1024; KB, MB, GB, TB: 1000).

    Raises `InvalidSetting` naming `option` unless it is at least one byte.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,3})", text.strip())
    size = int(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if size < 1:
        raise InvalidSetting(f"{option} {text!r} is not a size: write e.g. 512MiB or 20GiB")
    return size


def amount(done: int, total: int) -> str:
    """Write how much has moved: `61 of 126 MB`."""
    for unit, size in (("B", 1), ("kB", 10**3), ("MB", 10**6), ("GB", 10**9)):
        if total < 1000 * size or unit == "GB":
            break
    return f"{done / size:.3g} of {total / size:.3g} {unit}"


def shown_progress(done: int, total: int, bytes_s: int | None) -> str:
    """Write how much has moved and how fast: `61 of 126 MB (48 %, 2.1 MB/s)`; the speed is None where it is unknown."""
    parts = [f"{min(100, 100 * done // total)} %"] if total else []
    parts += [] if bytes_s is None else [f"{shown_bytes(bytes_s)}/s"]
    return amount(done, total) + (f" ({', '.join(parts)})" if parts else "")


def shown_bytes(count: float) -> str:
    """Write a size for people, in units of 1000, as in every table and line: `126 MB`, `9.8 kB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def shown_size(size_bytes: int) -> str:
    """Write a limit that was set, in the units of 1024 that `parse_size` reads: `512 MiB`.

    `shown_bytes` and `amount` write measured sizes, in units of 1000.
    """
    value = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"
