"""How far each client's change of the global model agrees with the mean change of all clients, block by block."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aggregators.computed import Tensor
from aggregators.dtypes import Array, Kind
from aggregators.models import Models
from aggregators.parts import Stored
from aggregators.protocols import Block, Weights
from aggregators.quantities import matching
from flavor.errors import AggregationError
from flavor.patterns import STATISTICS, no_parameters

_CHUNK = 16 * 1024
"""Elements that are taken in float64 at a time."""


@dataclass(frozen=True)
class Agreement:
    """The clients' changes Δᵢ = θᵢ − θ, against their weighted mean Δ̄ = Σ wᵢ Δᵢ with Σ wᵢ = 1.

    - `cosines` `[n]`: ⟨Δᵢ, Δ̄⟩ / (‖Δᵢ‖ ‖Δ̄‖), from −1 to 1; None where Δᵢ or Δ̄ is 0;
    - `norms` `[n]`: ‖Δᵢ‖;
    - `mean_norm`: ‖Δ̄‖.
    """

    cosines: tuple[float | None, ...]
    norms: tuple[float, ...]
    mean_norm: float

    @property
    def ratios(self) -> tuple[float | None, ...]:
        """‖Δᵢ‖ / ‖Δ̄‖ of each client; None where Δ̄ is 0."""
        return tuple(norm / self.mean_norm if self.mean_norm else None for norm in self.norms)


def agreement(
    models: Sequence[Mapping[str, Tensor]],
    global_model: Mapping[str, Stored],
    weights: Sequence[float] | Array | None = None,
    *,
    held: Collection[str] = (),
    statistics: Iterable[str] = STATISTICS,
    threads: int | None = None,
) -> Agreement:
    """Compare the changes of n `models` from `global_model`, without a copy of any.

    Counts the float tensors that a server step would take: none that are `held`, none that match the patterns
    `statistics`, and none without dimensions. `weights` `[n]` are in any unit; None weighs all alike. The result is the
    same for any number of threads. Raises `AggregationError` for models that do not fit together or have no such
    tensors, and for weights that cannot be used.
    """
    names = list(models[0]) if models else []
    left_out = {
        *held,
        *matching(names, no_parameters(statistics)),
        *(name for name in names if not models[0][name].shape),
    }
    source = Models(models, global_model, threads, held=left_out)
    if not source.sizes(Kind.FLOAT):
        raise AggregationError("the models have no float tensors that are parameters: no changes can be compared")
    n, shares = source.n, Weights.of(weights, source.n).normalised

    def part(block: Block) -> Array:
        found = np.zeros(2 * n + 1)
        assert block.base is not None
        for start in range(0, block.size, _CHUNK):
            stop = min(start + _CHUNK, block.size)
            changes = block.scratch.rows("changes", n, stop - start, np.dtype(np.float64))
            for row, change in zip(block.rows, changes, strict=True):
                np.subtract(row[start:stop], block.base[start:stop], out=change, dtype=np.float64)
            mean = np.einsum("i,ij->j", shares, changes)  # no BLAS, whose threads would show in the sums
            found[:n] += np.einsum("ij,j->i", changes, mean)
            found[n:-1] += np.einsum("ij,ij->i", changes, changes)
            found[-1] += np.einsum("i,i", mean, mean)
        return found

    sums = source.sum(part, (2 * n + 1,))
    mean_norm = math.sqrt(sums[-1])
    norms = tuple(math.sqrt(squared) for squared in sums[n:-1])
    cosines = tuple(_cosine(float(dot), norm, mean_norm) for dot, norm in zip(sums[:n], norms, strict=True))
    return Agreement(cosines, norms, mean_norm)


def _cosine(dot: float, norm: float, other: float) -> float | None:
    """Return the cosine, which rounding does not lead beyond 1; None where a norm is 0."""
    return max(-1.0, min(1.0, dot / norm / other)) if norm and other else None
