"""How two merged values compare in the rules of a run: values that rounding alone keeps apart are equal.

The mean of 0.7, 0.9 and 0.8 is 0.7999999999999999 in floating point, and the goal 0.8 is reached by it.
"""

from __future__ import annotations

import math

TOLERANCE = 1e-9
"""Two values are equal if they differ by at most this part of the larger one."""
NEAR_ZERO = 1e-12
"""A value of at most this size is equal to 0, of which no part can be taken."""


def order(value: float, other: float) -> int:
    """Return 1 where `value` is the larger one, -1 where it is the smaller one, and 0 where both are equal."""
    near = NEAR_ZERO if 0 in (value, other) else 0.0
    if math.isclose(value, other, rel_tol=TOLERANCE, abs_tol=near):
        return 0
    return 1 if value > other else -1


def gain(value: float, before: float, *, is_larger: bool) -> float:
    """Return by how much `value` is better than the one before; 0 where it is equal, or worse."""
    better = 1 if is_larger else -1
    return abs(value - before) if order(value, before) == better else 0.0


def exceeds(gained: float, least: float, *, of: float) -> bool:
    """Return whether a gain is more than the least one. Both are differences of values as large as `of`.

    Differences are rounded as their values are: 0.801 - 0.8 is more than 0.001 in floating point.
    """
    return gained - least > TOLERANCE * abs(of)
