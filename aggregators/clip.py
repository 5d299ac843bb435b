"""Norm clipping before any other rule: no client moves the global model farther than C.

Sun et al. 2019, "Can you really backdoor federated learning?" (arXiv 1911.07963), section 5.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from aggregators.blocks import Scratch
from aggregators.computed import ComputedTensor, Tensor
from aggregators.distance import squared_distances
from aggregators.dtypes import Array
from aggregators.mean import Mean
from aggregators.models import Models
from aggregators.parts import Stored, flat, part
from aggregators.protocols import SCAN_BLOCK, Block, Plan, Reducer, Scan, Weights
from aggregators.scaled import BeforeAnother, Scaling, base_of, depth
from flavor.errors import AggregationError


@dataclass(frozen=True)
class NormClip(BeforeAnother):
    """No client moves farther than c (a number, or median); goes before another rule: norm_clip:c=1/median.

    Replaces each θᵢ by θ − Δᵢ min(1, C / ‖Δᵢ‖), then applies `then`.

    Δᵢ = θ − θᵢ over all float tensors. `c` is C > 0, or "median": the median of the clients' norms (weights
    do not count in it). Clients within C are taken bit for bit. Needs the old global model θ.
    """

    c: float | Literal["median"] = "median"
    then: Reducer = field(default_factory=Mean)

    called = "norm_clip"
    source = "Sun et al. 2019, arXiv 1911.07963"
    condition = "an old global model, and that of the reducer behind"
    needs_global = True

    def __post_init__(self) -> None:
        if self.c != "median" and not (math.isfinite(self.c) and self.c > 0):
            raise AggregationError(f"norm_clip needs c > 0 or c = median, got {self.c}")

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Measure ‖Δᵢ‖, then let the rule behind plan with clipped clients."""
        norms = np.sqrt(scan.sum(_squared_norms, (scan.n,)))
        norms[np.isnan(norms)] = np.inf
        bound = float(np.median(norms)) if self.c == "median" else float(self.c)
        scales = np.ones(scan.n)
        beyond = norms > bound
        scales[beyond] = bound / norms[beyond]
        return Scaling(scales, depth(self)).plan(self.then, scan, weights)


def change_norm(
    model: Mapping[str, Tensor], global_model: Mapping[str, Stored], held: Collection[str] = frozenset()
) -> float:
    """Return ‖θ − θᵢ‖ over all float tensors but those `held` of two compatible models, without a copy of either."""
    squared = Models([model], global_model, threads=1, held=held).sum(_squared_norms, (1,))
    return math.sqrt(float(squared[0]))


def whole_change_norm(model: Mapping[str, Tensor], global_model: Mapping[str, Stored], names: Iterable[str]) -> float:
    """Return ‖θ − θᵢ‖ over these integer tensors of two compatible models; each difference is exact."""
    squared, scratch = 0.0, Scratch()
    for name in names:
        mine, old = model[name], global_model[name]
        if isinstance(mine, ComputedTensor):
            mine = np.asarray(mine)
        mine, old = flat(mine), flat(old)
        for start in range(0, mine.size, SCAN_BLOCK):
            stop = min(mine.size, start + SCAN_BLOCK)
            new = part(mine, start, stop, scratch, "new")
            before = part(old, start, stop, scratch, "old")
            # modulo 2⁶⁴, which is where the larger one minus the smaller one always has room
            apart = np.maximum(new, before).astype(np.uint64) - np.minimum(new, before).astype(np.uint64)
            squared += float(np.square(apart.astype(np.float64)).sum())
    return math.sqrt(squared)


def _squared_norms(block: Block) -> Array:
    return squared_distances(block, base_of(block))
