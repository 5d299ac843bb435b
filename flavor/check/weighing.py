"""How much each local model counts in a global model, determined from the models alone where it is their weighted mean.

The shares are those of a least-squares fit of the models themselves, and not of what a change of one model does: a
server step moves its result by another factor than the mean's, so only the models show whether the result has their
scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np

from aggregators.dtypes import Array, Kind, kind_of
from flavor.check.model import moves_by_itself

Tensors = Mapping[str, Array]

_ENOUGH = 8
"""Numbers other than 0 that a tensor needs for shares of its own."""
_RESIDUAL, _CLOSE = 5e-3, 0.02
_REST = 0.1
"""The largest share of a model's numbers in tensors without a sum."""
_ABOUT_ONE = 0.1
"""How far from 1 a sum of shares may lie: a server may let the weights decay a little."""
_MOST_OF_A_STEP = 2.5
_SURELY, _HARDLY, _TELLING = 0.999, 0.5, 16


class Weighing(IntEnum):
    """How the shares of the local models relate to the examples of their clients; the largest value is the worst."""

    BY_SIZE = 0
    UNKNOWN = 1
    """The global model is no weighted mean of the local models."""
    ALIKE = 2
    OTHERWISE = 3
    EXCHANGED = 4
    """The shares are those of other clients."""


def weighing(models: Sequence[Tensors], made: Tensors, sizes: Sequence[int]) -> tuple[Weighing, str, list[float]]:
    """Return how `made` weighs the local `models`, the tensor that shows it ('' for all), and the shares.

    Looks at each tensor with enough numbers alone, else at all of them together.
    """
    floats = [name for name, array in made.items() if kind_of(array.dtype) is Kind.FLOAT]
    large = [[name] for name in floats if np.count_nonzero(models[0][name]) >= _ENOUGH]
    expected = np.array(sizes, np.float64) / sum(sizes)
    worst: tuple[Weighing, str, list[float]] = (Weighing.BY_SIZE if large or floats else Weighing.UNKNOWN, "", [])
    for names in large or ([floats] if floats else []):
        found = _shares([_flat(model, names) for model in models], _flat(made, names))
        how = Weighing.UNKNOWN if found is None else _judged(found, expected)
        if how > worst[0] or not worst[2]:
            worst = (max(how, worst[0]), names[0] if large else "", [] if found is None else found.tolist())
    return worst


def total(models: Sequence[Tensors], made: Tensors) -> float | None:
    """Return the sum of the shares of the local `models` in `made`; None unless nearly all of it gives one sum.

    The sum is 1 for a mean, for a median of three, and for every step from a model that is close to the local models.
    Statistics take no part in a server step, and are left out.
    """
    floats = [name for name, array in made.items() if not moves_by_itself(name, array)]
    large = [[name] for name in floats if np.count_nonzero(models[0][name]) >= _ENOUGH]
    told: list[float] = []
    numbers = untold = 0
    for names in large or ([floats] if floats else []):
        found = _shares([_flat(model, names) for model in models], _flat(made, names))
        size = sum(made[name].size for name in names)
        numbers += size
        if found is None:
            untold += size
        else:
            told.append(float(found.sum()))
    if not told or untold > _REST * numbers or not _is_close(max(told), min(told)):
        return None
    return float(np.mean(told))


def is_about_one(sum_: float) -> bool:
    """Return whether shares of this sum give a model of the local models' scale."""
    return abs(sum_ - 1) <= _ABOUT_ONE


def is_out_of_scale(sums: Sequence[float | None]) -> bool:
    """Return whether these sums of shares, one for each round, show that the global model is out of scale.

    A server step with some rate, from a model of zeros that the command knows, has another sum than 1 in round one (1.9
    with Nesterov's momentum of 0.9). The next round has another sum, because it begins from other weights.
    """
    first = sums[0]
    if first is None or is_about_one(first):
        return False
    if first > _MOST_OF_A_STEP:
        return True
    return len(sums) > 1 and all(each is not None and _is_close(each, first) for each in sums)


def has_fixed_factors(sums: Sequence[float | None], counts: Sequence[int]) -> bool:
    """Return whether the sums of shares, one for each round, show factors made for the first round's number of models.

    Then the shares sum to 1 with that number of models, and with another one to the quotient of both numbers.
    """
    before, last = sums[:-1], sums[-1]
    if last is None or counts[-1] == counts[0] or not all(each is not None and is_about_one(each) for each in before):
        return False
    return _is_close(last, counts[-1] / counts[0])


def explained(sum_: float, sizes: Sequence[int]) -> str:
    """Return a question that explains a sum of shares other than 1; empty if no explanation is known."""
    n = len(sizes)
    if any(math.isclose(sum_, each, rel_tol=_CLOSE) for each in (n, sum(sizes))):
        return ": a sum in place of a mean?"
    if any(math.isclose(sum_, 1 / each, rel_tol=_CLOSE) for each in (n, sum(sizes))):
        return ": divided twice?"
    return ""


def _is_close(sum_: float, other: float) -> bool:
    return abs(sum_ - other) <= _CLOSE * max(abs(sum_), abs(other))


def exchanged(models: Sequence[Tensors], made: Tensors) -> tuple[str, str] | None:
    """Return a tensor of `made` that was made from another tensor of the local models, and the other; else None.

    Means, medians and choices lie between the local models' numbers. Such a tensor lies between the numbers of the
    other tensor everywhere, and mostly not between those of its own.
    """
    for name, array in made.items():
        if kind_of(array.dtype) is not Kind.FLOAT or array.size < _TELLING:
            continue
        if _between(models, name, array) >= _HARDLY:
            continue
        for other, its in made.items():
            alike = other != name and (its.shape, its.dtype) == (array.shape, array.dtype)
            if alike and _between(models, other, array) >= _SURELY:
                return name, other
    return None


def _between(models: Sequence[Tensors], name: str, array: Array) -> float:
    """Return the share of numbers that lie between those of the local models' tensor `name`."""
    rows = np.stack([model[name].astype(np.float64) for model in models])
    low, high = rows.min(axis=0), rows.max(axis=0)
    slack = _RESIDUAL * np.abs(rows).max(axis=0)
    values = array.astype(np.float64)
    return float(np.mean((low - slack <= values) & (values <= high + slack)))


def _flat(model: Tensors, names: Sequence[str]) -> Array:
    return np.concatenate([model[name].astype(np.float64).reshape(-1) for name in names])


def _shares(rows: Sequence[Array], target: Array) -> Array | None:
    """Return the least-squares shares of `rows` in `target`; None unless they give `target`, and no other shares do."""
    matrix = np.stack(rows, axis=1)
    found: Array
    found, _, rank, _ = np.linalg.lstsq(matrix, target, rcond=1e-6)
    norm = float(np.linalg.norm(target))
    if rank < len(rows) or float(np.linalg.norm(matrix @ found - target)) > _RESIDUAL * norm:
        return None
    return found


def _judged(found: Array, expected: Array) -> Weighing:
    if np.allclose(found, expected, rtol=0, atol=_CLOSE):
        return Weighing.BY_SIZE
    if np.allclose(found, 1 / len(found), rtol=0, atol=_CLOSE):
        return Weighing.ALIKE
    if np.allclose(np.sort(found), np.sort(expected), rtol=0, atol=_CLOSE):
        return Weighing.EXCHANGED
    return Weighing.OTHERWISE
