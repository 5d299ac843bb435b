"""How long and how often a program tries a server that is away, and how often it says so. Pure: no clock, no network.

Redis (`flavor.bus.patience`) and the stores (`flavor.store`) are waited for by these rules.
"""

from __future__ import annotations

import random
from collections.abc import Callable

SITE_PATIENCE_S = 86_400.0
"""Least time for which a site waits by default: a VPN that is away for hours is normal, and an operator sleeps."""
LONGEST_PAUSE_S = 10.0
"""Longest pause between two attempts: a site is back this soon after its network."""
_FIRST_PAUSE_S = 0.05
_PART = 8
"""A pause is this part of the outage so far: short outages are noticed at once, long ones cost few attempts."""
_FIRST_TOLD_S, _LONGEST_UNTOLD_S = 5.0, 1_800.0
_OWN = random.SystemRandom()  # leaves the numbers that a training script draws as they are, and has no state to fork


def pause_s(away_s: float, *, longest_s: float = LONGEST_PAUSE_S, chance: Callable[[], float] = _OWN.random) -> float:
    """Return the pause before the next attempt, in seconds, after an outage of `away_s` so far.

    The pause grows with the outage up to `longest_s`. `chance` returns a number from 0 to 1, which makes the pause up
    to a half shorter, so that many sites that have lost a server at once do not come back at once.
    """
    return min(max(away_s / _PART, _FIRST_PAUSE_S), longest_s) * (1 - chance() / 2)


def next_told_s(away_s: float) -> float:
    """Return how long an outage lasts when it is told again, after it was told at `away_s`: at twice the time.

    The first time it is told again after 5 s, and in a long outage every half hour.
    """
    return away_s + min(max(away_s, _FIRST_TOLD_S), _LONGEST_UNTOLD_S)


def site_patience_s(deadline_s: float = 0.0) -> float:
    """Return how long a site waits by default in a run whose rounds have this deadline, in seconds."""
    return max(SITE_PATIENCE_S, deadline_s)
