"""Properties of a checkpoint's tensors, and the trace that a global model leaves in the model trained from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aggregators import engine
from aggregators.dtypes import Array, Kind, kind_of
from aggregators.quantities import matching, suspicious_integers, training_state
from flavor.checkpoints import Format, TensorSpec, is_finite, read
from flavor.checkpoints.detection import detect_mapped
from flavor.checkpoints.mapped import Mapped
from flavor.checkpoints.state_dict.nesting import state_dict_of
from flavor.checkpoints.torch.reader import load_pickle, load_torch
from flavor.errors import CheckpointError
from flavor.patterns import STATISTICS, no_parameters

Tensors = Mapping[str, Array]
_KNOWN = no_parameters(STATISTICS)


def opened(path: Path) -> Format:
    """Return the format of a checkpoint that has a `state_dict` of any content; raises `CheckpointError`."""
    source = Mapped(path)
    format_ = detect_mapped(source)
    if format_ in (Format.TORCH, Format.PICKLE):
        root = load_torch(source) if format_ is Format.TORCH else load_pickle(source)
        if not state_dict_of(root, source.name):
            raise CheckpointError(f"{path}: state_dict is empty")
    elif not read(path, format_).tensors:
        raise CheckpointError(f"{path}: it holds no tensors")
    return format_


def nonfinite(tensors: Tensors) -> str:
    """Name the tensors with NaN or infinity; empty when there are none."""
    return some([name for name, array in tensors.items() if not is_finite(array)])


def unchanged(given: Tensors, handed_in: Tensors) -> str | None:
    """Say that no weight differs between two models of the same structure; None if one does.

    Tensors that move without training (a batch norm's statistics, counters) are no weights, unless there are no others.
    """
    changed = [name for name, array in handed_in.items() if not np.array_equal(array, given[name])]
    if not changed:
        return "unchanged"
    floats = any(kind_of(array.dtype) is Kind.FLOAT for array in handed_in.values())
    if floats and all(moves_by_itself(name, handed_in[name]) for name in changed):
        return f"unchanged but for {some(changed)}"
    return None


def moves_by_itself(name: str, array: Array) -> bool:
    """Return whether the tensor moves without training: a batch norm's statistics, and every non-float tensor."""
    return kind_of(array.dtype) is not Kind.FLOAT or bool(matching([name], _KNOWN))


def statistics(tensors: Tensors) -> str:
    """Name the float tensors that are known as statistics and no parameters; empty when there are none."""
    return some(matching(_floats(tensors), _KNOWN))


def scalars(tensors: Tensors) -> str:
    """Name the float tensors of no dimensions, with which no server step is taken; empty when there are none."""
    return some([name for name in _floats(tensors) if not tensors[name].ndim and not matching([name], _KNOWN)])


def of_training(tensors: Tensors) -> str:
    """Name the tensors that look like the state of an optimizer or a schedule; empty when there are none."""
    return some(training_state(_specs(tensors)))


def _floats(tensors: Tensors) -> list[str]:
    return [name for name, array in tensors.items() if kind_of(array.dtype) is Kind.FLOAT]


def _specs(tensors: Tensors) -> list[TensorSpec]:
    return [TensorSpec(name, array.dtype, array.shape) for name, array in tensors.items()]


def suspicious(tensors: Tensors) -> str:
    """Name the integer tensors that look like no quantities, with the reason; empty when there are none."""
    return some([f"{name}: {why}" for name, why in suspicious_integers(_specs(tensors)).items()], "; ")


def some(items: Sequence[str], joint: str = ", ", most: int = 4) -> str:
    """Join the first `most` items, and say how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return joint.join([*items[:most], *more])


def other(local: Tensors, seed: int, spread: float = 1.0) -> dict[str, Array]:
    """Return another client's model: this one's floats times 1 - `spread` or 1 + `spread`, by a coin for each weight.

    With a spread of 1 the mean of the two models is this one's times 0.5 or 1.5: far from it everywhere, but of the
    same scale and sign, so that variances stay positive and a network still works.
    """
    coins = np.random.default_rng(seed)
    made = {}
    for name, array in local.items():
        if kind_of(array.dtype) is not Kind.FLOAT:
            made[name] = array
            continue
        factor = 1 + spread * (coins.integers(0, 2, array.shape).astype(np.float32) * 2 - 1)
        with np.errstate(over="ignore"):
            moved = (array * factor).astype(array.dtype)
        fits = np.isfinite(moved.astype(np.float64))  # twice a large float16 is none
        made[name] = np.where(fits, moved, array)
    return made


def doubled(local: Tensors) -> dict[str, Array]:
    """Return a model with every float doubled, and 1 in place of 0; a value is halved where its double has no room."""
    made = {}
    for name, array in local.items():
        made[name] = array
        if kind_of(array.dtype) is Kind.FLOAT:
            with np.errstate(over="ignore"):
                twice = np.where(array == 0, array.dtype.type(1), array + array)
            made[name] = np.where(np.isfinite(twice.astype(np.float64)), twice, array / 2).astype(array.dtype)
    return made


def distance(first: Tensors, second: Tensors) -> float:
    """Return the root of the sum of squared differences of two models' floats; names and shapes must be the same."""
    return math.hypot(*distances(first, second).values())


def distances(first: Tensors, second: Tensors) -> dict[str, float]:
    """Return the same distance for each float tensor."""
    return {
        name: float(np.linalg.norm(array.astype(np.float64).reshape(-1) - second[name].astype(np.float64).reshape(-1)))
        for name, array in first.items()
        if kind_of(array.dtype) is Kind.FLOAT
    }


def mean(models: Sequence[Tensors]) -> dict[str, Array]:
    """Return the mean of these models, as `aggregators` computes it."""
    return engine.run([{name: np.array(array, order="C") for name, array in each.items()} for each in models]).model


@dataclass(frozen=True)
class Trace:
    """The trace of the global model in the model that a round made from it.

    `other` tosses a coin for each weight, and the script does not know the results. If the script ignores the global
    model, then the product of a weight's move and the global model's move is positive or negative with probability one
    half each, for any training, and independently of the others. The sum of such products, divided by the
    root of their squares, is then beyond z standard deviations with a probability of at most 2·exp(-z²/2) (Hoeffding).
    `sigmas` is the larger of two sums: the plain one, and one in which the weights count most that moved about as far
    as the global model did, at any scale (a batch norm's variances would hide all others in the plain sum). A
    clearly negative sum shows just as well that the script has read the coins.

    `weights` counts the weights that the global model moved; zeros do not move. `share` is the least-squares share of
    that move which is left after the round: near 1 for a model that was loaded and trained a little, near 0 for one
    that was not loaded. `share_error` is the standard deviation that chance alone gives the share where nothing is
    left.
    """

    weights: int
    sigmas: float
    share: float
    share_error: float = 0.0


def trace(before: Tensors, global_model: Tensors, after: Tensors) -> Trace:
    """Compare the model sent in `before`, the `global_model` made of it, and the one sent in `after`."""
    weights = 0
    plain = plain_squares = alike = alike_squares = norm = 0.0
    for name, start in before.items():
        if kind_of(start.dtype) is not Kind.FLOAT:
            continue
        base = start.astype(np.float64)
        moved = global_model[name].astype(np.float64) - base
        went = after[name].astype(np.float64) - base
        product, squares = moved * went, moved * moved + went * went
        likeness = np.divide(product, squares, out=np.zeros_like(product), where=squares > 0)
        weights += int(np.count_nonzero(moved))
        plain += float(np.sum(product))
        plain_squares += float(np.sum(product * product))
        alike += float(np.sum(likeness))
        alike_squares += float(np.sum(likeness * likeness))
        norm += float(np.sum(moved * moved))
    sigmas = max(_in_sigmas(plain, plain_squares), _in_sigmas(alike, alike_squares))
    if not norm:
        return Trace(weights, sigmas, 0.0)
    return Trace(weights, sigmas, plain / norm, math.sqrt(plain_squares) / norm)


def _in_sigmas(total: float, squares: float) -> float:
    return abs(total) / math.sqrt(squares) if squares else 0.0
