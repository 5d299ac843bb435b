"""Counts: metrics that are summed over the sites, and not averaged. Their names begin with `count/`.

A count is a number or a flat list of numbers. The end of its name may choose another way to merge it:

| name | what a site reports | merged |
|---|---|---|
| `count/NAME` | a number, or a list of them | the sum, element by element |
| `count/NAME.moments` | [n, mean, M2] of n values | the same of the values of all sites |
| `count/NAME.same` | a number or a list, such as a threshold | the same; if sites differ, `count/NAME` is missing |

M2 is the sum of the squared distances of the values from their mean. A sum of squares would cancel where the mean is
large beside the deviation. Moments do not: they are merged by the formula of
Chan, Golub and LeVeque (The American Statistician 37(3), 1983).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

PREFIX = "count/"
MOMENTS, SAME = ".moments", ".same"
POOLED = "pooled/"
"""What the names of the metrics begin with that are computed of all sites together."""
CENTRAL_PREFIX = "central/"
"""What the names of the metrics begin with that an aggregator has measured on the operator's own data."""
WORST = "worst/"
"""What stands before a metric's name in a rule that goes by the site whose value is worst."""
MERGE_PREFIX = "merge/"
"""What the names of figures begin with that say how the sites' models became one."""
LORA_RESIDUAL = f"{MERGE_PREFIX}lora_residual"
"""How far LoRA adapters are from the mean of the sites' products (`aggregators.lora_residual`)."""
COMPUTED = {
    CENTRAL_PREFIX: "metrics of the operator's own data",
    POOLED: "metrics of all sites together",
    WORST: "the values of the site that is worst",
    MERGE_PREFIX: "figures of how models became one",
}
"""What names mean that begin so: no site can report a metric of such a name."""
BOUND = "_bound"
"""The end of the name of the largest error that a pooled metric can have."""
MOST_NUMBERS = 10_000
"""Numbers in one list."""

LARGEST = 1e300
"""A number beyond this could not be added to others."""

Count = int | float | list[int | float]


class NotMerged(Exception):
    """Counts of several sites that do not go together; the message says why, and names no site."""


def is_count(name: str) -> bool:
    """Return whether a metric of this name is summed over the sites."""
    return name.startswith(PREFIX)


def bound_of(name: str) -> str:
    """Return the name of the largest error of a pooled metric; '' for a metric that is not pooled, and has none."""
    return name + BOUND if name.removeprefix(CENTRAL_PREFIX).startswith(POOLED) else ""


def is_beside(name: str) -> bool:
    """Return whether a metric says nothing by itself: a count, or the bound of another metric's error."""
    return is_count(name) or (name.removeprefix(CENTRAL_PREFIX).startswith(POOLED) and name.endswith(BOUND))


def beside_last(names: Sequence[str]) -> list[str]:
    """Return these names in their order, with those last that say nothing by themselves."""
    return sorted(names, key=is_beside)


def checked_list(name: str, value: Any) -> list[int | float] | None:
    """Return the list that a site reports as this count, of plain numbers; None where `value` is no list.

    A list is a list or tuple of numbers, or an array or tensor of one dimension. Raises `ValueError`, which says what
    is wrong with it.
    """
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        if name.endswith(MOMENTS):
            raise ValueError("must be a list of three numbers: n, mean and M2")
        return None
    if len(value) > MOST_NUMBERS:
        raise ValueError(f"has {len(value)} numbers, and {MOST_NUMBERS} at most are taken: use fewer bins or classes")
    found = [_number(each, at) for at, each in enumerate(value)]
    if name.endswith(MOMENTS) and (len(found) != 3 or found[0] < 0 or found[2] < 0):
        raise ValueError("must be three numbers: n and M2, which are not negative, and the mean between them")
    return found


def _number(value: Any, at: int) -> int | float:
    shown = f"{str(value)[:40]!r}" if isinstance(value, str) else str(value)[:40]
    if isinstance(value, list | tuple):
        raise ValueError(f"must be a flat list of numbers, and has a list at position {at}")
    if not isinstance(value, bool | str | bytes | None) and type(value).__name__ not in ("bool_", "bool"):
        try:
            number: int | float = operator.index(value)
        except TypeError:
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError, RuntimeError):
                raise ValueError(f"has {shown} ({type(value).__name__}) at position {at}, and no number") from None
        if abs(number) <= LARGEST:  # NaN is not
            return number
        raise ValueError(f"has {shown} at position {at}: finite numbers are needed, of {LARGEST:g} at most")
    raise ValueError(f"has {shown} ({type(value).__name__}) at position {at}, and no number")


def merged_count(name: str, values: Sequence[Count], settings: Sequence[Count | None] = ()) -> Count:
    """Return a count over the sites that report it, at least one. Sums of integers are exact, others correctly rounded.

    `settings` has what each of these sites reports as `NAME.same`. Raises `NotMerged` where the counts do not go
    together: numbers and lists, lists of different lengths, or different settings.
    """
    given = [setting for setting in settings if setting is not None]
    if given and (len(given) < len(settings) or any(setting != given[0] for setting in given)):
        raise NotMerged(f"{_different(name + SAME, settings)}: let all sites use the same")
    if name.endswith(SAME):
        if any(value != values[0] for value in values):
            raise NotMerged(f"{_different(name, values)}: let all sites use the same")
        return values[0]
    lists = [value for value in values if isinstance(value, list)]
    if not lists:
        return _sum([value for value in values if not isinstance(value, list)])
    if len(lists) < len(values):
        raise NotMerged("some sites report a number, and others a list")
    if len(lengths := sorted({len(each) for each in lists})) > 1:
        shown = ", ".join(map(str, lengths[:3])) + (", …" if len(lengths) > 3 else "")
        raise NotMerged(f"the sites report lists of different lengths ({shown}): let all use the same bins or classes")
    return merged_moments(lists) if name.endswith(MOMENTS) else [_sum(each) for each in zip(*lists, strict=True)]


def _different(name: str, values: Sequence[Count | None]) -> str:
    shown = list(dict.fromkeys("nothing" if value is None else str(value)[:40] for value in values))
    more = ", …" if len(shown) > 3 else ""
    return f"the sites report different values of {name!r} ({', '.join(shown[:3])}{more})"


def merged_moments(parts: Sequence[Sequence[int | float]]) -> list[int | float]:
    """Return [n, mean, M2] of all values from those of several parts (Chan, Golub and LeVeque 1983).

    For parts i of n_i values: M2 = Σ M2_i + Σ n_i (mean_i − mean)². An error e of the mean changes that by n e² alone.
    """
    some = [part for part in parts if part[0]]
    if not some:
        return [0, 0.0, 0.0]
    n = _sum([part[0] for part in some])
    shift = some[0][1]
    mean = shift + _sum([part[0] / n * (part[1] - shift) for part in some])
    apart = [part[0] * (part[1] - mean) * (part[1] - mean) for part in some]
    return [n, mean, _sum([*(part[2] for part in some), *apart])]


def _sum(values: Sequence[int | float]) -> int | float:
    try:
        total = sum(values) if all(isinstance(value, int) for value in values) else math.fsum(values)
    except (OverflowError, ValueError):  # of infinities, too
        total = math.inf
    if not abs(total) <= LARGEST:
        raise NotMerged("the sum is too large")
    return total


def of_sites(name: str, sites: Sequence[Mapping[str, Any]]) -> tuple[Count, int]:
    """Return this count over the sites that report it, at least one, and their number. Raises `NotMerged`.

    `NAME.same` has no setting of its own: what one site calls `NAME.same.same` changes nothing of it.
    """
    those = [metrics for metrics in sites if metrics.get(name) is not None]
    settings = [] if name.endswith(SAME) else [metrics.get(name + SAME) for metrics in those]
    return merged_count(name, [metrics[name] for metrics in those], settings), len(those)
