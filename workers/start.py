"""Tell whether the sites of a first round began from the same weights, as far as their updates show it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from aggregators.blocks import Scratch
from aggregators.computed import ComputedTensor, Tensor
from aggregators.dtypes import Array, Kind, kind_of
from aggregators.parts import flat, part
from aggregators.quantities import matching
from aggregators.updates import ClientModel
from flavor.patterns import no_parameters

UNRELATED = 0.1
FEWEST = 100
"""Fewer numbers correlate by chance as models from the same weights do."""
_CHANCE = 2.0
"""Standard deviations of the correlation of unrelated numbers, 1 / sqrt(count), that `UNRELATED` leaves to chance."""
_MOST_TENSORS = 8
_MOST_ELEMENTS = 16 * 1024
"""Numbers of each tensor, from its beginning, that are compared: a small cost beside the aggregation."""


def of_start(updates: Mapping[str, ClientModel], held: Collection[str], statistics: Sequence[str]) -> Iterator[str]:
    """Warn of sites whose models have nothing in common with the first site's, after a round that began from no model.

    Models that are trained from the same weights stay alike; models from different weights have nothing in common. Two
    models that were trained for very long on very different data have nothing in common either, so the warning says
    what was seen and what to check.
    """
    (name, first), *others = updates.items()
    names = _matrices(first, held, statistics)
    found = {other: _likeness(first.tensors, update.tensors, names) for other, update in others}
    unrelated = {other: pair[0] for other, pair in found.items() if pair is not None and _is_unrelated(*pair)}
    if unrelated:
        told = ", ".join([*unrelated][:5]) + (f" and {len(unrelated) - 5} more" if len(unrelated) > 5 else "")
        most = max(unrelated.values(), key=abs)
        yield (
            f"warning: the first models of {name} and {told} have nothing in common (correlation {most:.2f}): where "
            "scripts begin with random weights, set the same seed at every site before the model is built, or begin "
            "from a model (--init-model); check-fl tells whether a script begins with the same weights each time, and "
            "where it does, train fewer steps in a round"
        )


def _matrices(update: ClientModel, held: Collection[str], statistics: Sequence[str]) -> list[str]:
    """Return the largest tensors of two dimensions or more: biases begin at 0 and a normalisation at 1 for any seed."""
    specs = [s for s in update.specs if len(s.shape) > 1 and s.name not in held and kind_of(s.dtype) is Kind.FLOAT]
    named = set(matching([spec.name for spec in specs], no_parameters(statistics)))
    specs = [spec for spec in specs if spec.name not in named]
    return [s.name for s in sorted(specs, key=lambda s: (-int(np.prod(s.shape)), s.name))[:_MOST_TENSORS]]


def _likeness(one: Mapping[str, Tensor], other: Mapping[str, Tensor], names: Sequence[str]) -> tuple[float, int] | None:
    """Return the correlation over these tensors, each at mean 0 and deviation 1, and the count of numbers compared.

    None where the tensors are too small.
    """
    total, size = 0.0, 0
    for name in names:
        mine, theirs = _standard(one[name]), _standard(other[name])
        if mine is not None and theirs is not None:
            total += float(mine @ theirs)
            size += mine.size
    return (total / size, size) if size >= FEWEST else None


def _is_unrelated(alike: float, count: int) -> bool:
    return abs(alike) < max(UNRELATED, _CHANCE / math.sqrt(count))


def _standard(tensor: Tensor) -> Array | None:
    if isinstance(tensor, ComputedTensor):  # in a first round without a model there is none
        return None
    stop = min(tensor.size, _MOST_ELEMENTS)
    wide = part(flat(tensor), 0, stop, Scratch(), "start").astype(np.float64)
    deviation = float(wide.std())
    if not (np.isfinite(deviation) and deviation > 0):
        return None
    centred: Array = (wide - wide.mean()) / deviation
    return centred
