"""Numbers of JSON that another party has written."""

from __future__ import annotations

from typing import Any

_LARGEST = 1e300


def finite(value: Any) -> float | None:
    """Return a number of JSON that is finite and no truth value; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _LARGEST else None  # NaN is not, and an integer of any length can be compared


def whole(value: Any) -> int:
    """Return a whole number of JSON that is not negative; sums of examples may be long. Raises `ValueError`."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    return value
