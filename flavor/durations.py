"""Write durations for people."""

from __future__ import annotations

_UNITS = (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1))


def shown_duration(seconds: float) -> str:
    """Write a duration in seconds for people: `9 s`, `23 h 59 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    for unit, size, smaller, smaller_size in _UNITS:
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
