"""Averages the vectors of the nodes, with the engine in `aggregators`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aggregators import run
from aumai_fedtrain.models import LocalUpdate
from aumai_fedtrain.vectors import Array, as_array, is_finite, like
from flavor.counted import counted
from flavor.errors import AggregationError

_EXACT = 2**53
"""Up to this number, every integer is exact as a float."""


class GradientAverager:
    """Averages the updates of the nodes, parameter by parameter."""

    @staticmethod
    def average(updates: Sequence[LocalUpdate], *, weighted: bool = False) -> dict[str, Any]:
        """The mean of each parameter over all updates, sorted by name.

        A parameter that a node lacks, or has an empty vector for, counts as zeros there; one that all lack gives `[]`.
        With `weighted` each node counts by its `samples_used` (all alike if those are all 0), else all count alike.
        Lists give lists, computed in float64; as soon as one node has an array the result is an array, of the common
        dtype if all have the same, else float64.

        Raises `AggregationError`, a `ValueError`: there are no updates; vectors of one parameter differ in shape (the
        message names node and parameter); a mean overflows.
        """
        if not updates:
            raise AggregationError("Cannot average an empty list of updates.")
        names = sorted({name for update in updates for name in update.gradients})
        models = _models(updates, names)
        if not models[0]:
            return {name: [] for name in names}
        means = run(models, _weights(updates) if weighted else None).model
        averages: dict[str, Any] = {}
        for name in names:
            if name not in means:
                averages[name] = []
                continue
            if not is_finite(means[name]):
                raise AggregationError(f"the average of {name!r} is not finite: its numbers are too large")
            averages[name] = like(means[name], [update.gradients.get(name) for update in updates])
        return averages


def _weights(updates: Sequence[LocalUpdate]) -> list[float] | None:
    """Return the weight of each node; None for equal weights, also where no node has used a sample."""
    largest = max(update.samples_used for update in updates)
    if largest > _EXACT:  # as shares of the largest: no integer is too large for that
        return [update.samples_used / largest for update in updates]
    return [float(update.samples_used) for update in updates] if largest else None


def _models(updates: Sequence[LocalUpdate], names: Sequence[str]) -> list[dict[str, Array]]:
    """Return each update's arrays, with zeros for missing parameters; parameters that all lack are left out."""
    models: list[dict[str, Array]] = [{} for _ in updates]
    for name in names:
        arrays = [as_array(update.gradients.get(name, ())) for update in updates]
        first = next((i for i, array in enumerate(arrays) if array.size), None)
        if first is None:
            continue
        shape, dtypes = arrays[first].shape, {array.dtype for array in arrays if array.size}
        dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float64)
        for update, model, array in zip(updates, models, arrays, strict=True):
            if array.size and array.shape != shape:
                raise AggregationError(
                    f"node {update.node_id!r}: {name!r} has {shaped(array.shape)}, "
                    f"that of node {updates[first].node_id!r} has {shaped(shape)}"
                )
            model[name] = array.astype(dtype, copy=False) if array.size else np.zeros(shape, dtype)
    return models


def shaped(shape: tuple[int, ...]) -> str:
    """Describe a shape in words."""
    if len(shape) == 1:
        return counted(shape[0], "value")
    return f"shape {shape}" if shape else "a single number"
