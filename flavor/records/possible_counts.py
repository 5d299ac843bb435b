"""Which counts of one site can be those of examples: whole numbers of these, and figures that agree with each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flavor.records.info import MOST_EXAMPLES, UNCOUNTED

CALIBRATION_BINS = 10
"""Bins of the expected calibration error: [0, 0.1), [0.1, 0.2), …, [0.9, 1]."""
MOMENTS_OF_Y = "y.moments"
_ROUNDING = 1e-9
"""So far, relatively, a sum of floats may be beyond its largest possible value."""

_Numbers = Sequence[int | float]

_UNDERFLOW = 1e-150
"""The square of a smaller error may be 0, or far from exact."""


class _Impossible(Exception):
    """Why a figure is not one of any examples."""


def impossible(kind: str, counts: Mapping[str, Any]) -> dict[str, str]:
    """Return which of one site's counts of a label cannot be, each with the reason; without entries where all can be.

    `kind` and the names of `counts` are as in `flavor.records.pooling`: `confusion` of the kind `binary`.
    """
    found, examples = dict[str, str](), dict[str, int]()
    for name, value in counts.items():
        if (figure := _FIGURES.get((kind, name))) is None or value is None:
            continue
        try:
            if not isinstance(value, list):
                raise _Impossible("it is a number: a list is needed")
            if (wrong := _wrong_size(kind, name, len(value))) is not None:
                raise _Impossible(f"it has {len(value)} numbers: {wrong} are needed")
            examples[name] = figure(value)
        except _Impossible as error:
            found[name] = str(error)
    errors, moments = examples.get("errors"), examples.get(MOMENTS_OF_Y)
    if errors is not None and moments is not None and errors != moments:
        found[MOMENTS_OF_Y] = f"it is of {moments} values, and the errors of {errors}"
    both = [counts[name] for name in ("positives", "negatives") if name in examples]
    if len(both) == 2 and len(both[0]) != len(both[1]):
        why = f"there are {len(both[0])} bins of positives, and {len(both[1])} of negatives"
        found |= dict.fromkeys(("positives", "negatives"), why)
    return found | _of_other_numbers({name: n for name, n in examples.items() if name not in found})


def _of_other_numbers(examples: Mapping[str, int]) -> dict[str, str]:
    """Return which counts of one binary label are not of as many examples as the others, by the examples of each.

    Histograms, squared errors and calibration are of all examples with a score. The confusion matrix may be of fewer,
    as that of a model that abstains, and of no more. The number that most of them say is taken for right.
    """
    figures = {name: examples[name] for name in ("squared_error", "calibration", "confusion") if name in examples}
    if "positives" in examples and "negatives" in examples:
        figures["histograms"] = examples["positives"] + examples["negatives"]
    scored = {name: n for name, n in figures.items() if name != "confusion"}
    if not scored:
        return {}
    n, times = Counter(figures.values()).most_common(1)[0]
    if len(set(scored.values())) > 1:
        agreed = n if 2 * times > len(figures) else None
        wrong = [name for name, number in scored.items() if number != agreed]
    else:
        agreed, wrong = next(iter(scored.values())), []
    if agreed is not None and figures.get("confusion", 0) > agreed:
        wrong.append("confusion")
    found = dict[str, str]()
    for name in wrong:
        others = ", ".join(f"{other} of {number}" for other, number in figures.items() if number != figures[name])
        names = ("positives", "negatives") if name == "histograms" else (name,)
        found |= dict.fromkeys(names, f"it is of {figures[name]} examples, and of the same label {others}")
    return found


def _wrong_size(kind: str, name: str, size: int) -> int | None:
    """Return the size that a list of another one should have; None for one that is right."""
    needed = _SIZES.get((kind, name), size)
    if (kind, name) == ("multiclass", "confusion"):
        needed = max(1, math.isqrt(size)) ** 2
    return None if size == needed else needed


def whole_counts(counts: _Numbers) -> list[int]:
    """Return counts of examples as integers, of which other languages write 3.0. Raises `ValueError`."""
    for count in counts:
        if count < 0 or count != int(count):
            raise ValueError(f"it has {count}: numbers of examples are whole, and not negative")
    return [int(count) for count in counts]


def _whole(counts: _Numbers) -> list[int]:
    try:
        found = whole_counts(counts)
    except ValueError as error:
        raise _Impossible(str(error)) from None
    if (most := max(found, default=0)) > MOST_EXAMPLES:
        raise _Impossible(f"it has {most:.3g} examples, and {MOST_EXAMPLES:.0e} at most are taken")
    return found


def impossible_cells(cells: Sequence[Any]) -> str:
    """Return why these cells of a confusion matrix cannot be; '' where they can. -1 and None are not counted."""
    try:
        _whole([cell for cell in cells if cell is not None and cell != UNCOUNTED])
    except _Impossible as error:
        return str(error)
    return ""


def _of_cells(value: _Numbers) -> int:
    return sum(_whole(value))


def _of_sums(value: _Numbers) -> int:
    """Check [n, a sum that is not negative, …]."""
    (n,) = _whole(value[:1]) or (0,)
    if any(each < 0 for each in value[1:]):
        raise _Impossible(f"it has {min(value[1:])}: sums of this kind are not negative")
    if not n and any(value[1:]):
        raise _Impossible("it has sums of no examples")
    return n


def _of_squared_error(value: _Numbers) -> int:
    """Check [n, Σ (score − label)²]: of scores from 0 to 1, no square is more than 1."""
    n = _of_sums(value)
    if value[1] > n * (1 + _ROUNDING):
        raise _Impossible(f"it has {value[1]} as the sum of {n} squares, of which none is more than 1")
    return n


def _of_errors(value: _Numbers) -> int:
    """Check [n, Σ abs(error), Σ error²]: the square of the first sum is n times the second at most (Cauchy-Schwarz)."""
    n = _of_sums(value)
    if len(value) == 3 and value[1] > math.sqrt(n) * math.sqrt(value[2]) * (1 + _ROUNDING) + n * _UNDERFLOW:
        raise _Impossible(f"it has {value[1]} as the sum of {n} errors, and {value[2]} as that of their squares")
    return n


def _of_moments(value: _Numbers) -> int:
    """Check [n, mean, M2], of which only the mean may be negative."""
    return _of_sums([*value[:1], *value[2:]])


def _of_calibration(value: _Numbers) -> int:
    """Check numbers of examples by bin, those of positives and sums of scores from 0 to 1."""
    bins = CALIBRATION_BINS
    examples, positives, scores = _whole(value[:bins]), _whole(value[bins : 2 * bins]), value[2 * bins :]
    for at, (number, positive) in enumerate(zip(examples, positives, strict=False)):
        if positive > number:
            raise _Impossible(f"it has {positive} positive examples of {number} in bin {at}")
    for at, (number, score) in enumerate(zip(examples, scores, strict=False)):
        if not 0 <= score <= number * (1 + _ROUNDING):
            raise _Impossible(f"it has {score} as the sum of {number} scores from 0 to 1 in bin {at}")
    return sum(examples)


_SIZES = {
    ("binary", "confusion"): 4,
    ("binary", "squared_error"): 2,
    ("binary", "calibration"): 3 * CALIBRATION_BINS,
    ("regression", "errors"): 3,
}
_FIGURES: Mapping[tuple[str, str], Callable[[_Numbers], int]] = {
    ("binary", "positives"): _of_cells,
    ("binary", "negatives"): _of_cells,
    ("binary", "confusion"): _of_cells,
    ("binary", "squared_error"): _of_squared_error,
    ("binary", "calibration"): _of_calibration,
    ("multiclass", "confusion"): _of_cells,
    ("regression", "errors"): _of_errors,
    ("regression", MOMENTS_OF_Y): _of_moments,
}
"""Each checks one figure, and returns of how many examples it is. Raises `_Impossible`."""
