"""The setting of a run about how long a round waits, which is a field of `flavor.config.RunConfig`."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator

from flavor.errors import InvalidSetting
from flavor.option_groups import Group
from flavor.policy.learned import USAGE, Learned
from flavor.setting import LONGEST_S, setting


def _checked(value: Any) -> float | str:
    """Return seconds as a number, and `auto` with all of its options."""
    try:
        if isinstance(value, str) and (learned := Learned.parse(value, longest_s=LONGEST_S)) is not None:
            return str(learned)
        seconds = float("nan" if isinstance(value, bool) else value)
    except InvalidSetting as error:
        raise ValueError(str(error)) from None
    except (TypeError, ValueError):
        raise ValueError(f"it has to be {USAGE}") from None
    if not 0 < seconds <= LONGEST_S:
        raise ValueError(f"it has to be above 0 s, and {LONGEST_S:g} s at most, or {USAGE}")
    return seconds


RoundTimeout: TypeAlias = Annotated[float | str, BeforeValidator(_checked)]

ROUND_TIMEOUT_S: Any = setting(
    "Deadline of a round, in seconds after its opening; or auto, which learns it from the times that sites took in the "
    "last rounds: median + k times the median absolute deviation, at least four medians where late updates are lost, "
    "from floor to ceiling seconds.",
    Group.CLOSING,
    default=86_400.0,
    may_change=True,
    metavar="SECONDS|auto[:k=3,...]",
)
"""On the server's clock."""


def learned_of(value: float | str) -> Learned | None:
    """Return how deadlines are learned; None for one deadline for all rounds."""
    return Learned.parse(value, longest_s=LONGEST_S) if isinstance(value, str) else None


def longest_s_of(value: float | str) -> float:
    """Return the longest time that a round may wait."""
    learned = learned_of(value)
    return float(value) if learned is None else learned.ceiling_s
