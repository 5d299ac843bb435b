"""Norm clipping, before any other rule: no client moves the global model farther than C.

Sun et al. 2019, "Can you really backdoor federated learning?" (arXiv 1911.07963), section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from aggregators.distance import squared_distances
from aggregators.dtypes import Array
from aggregators.encoded import Tensor
from aggregators.mean import Mean
from aggregators.models import Models
from aggregators.protocols import SCAN_BLOCK, Block, Plan, Reducer, Scan, Weights, scan_block
from flavor.errors import AggregationError


@dataclass(frozen=True)
class NormClip:
    """Replace each θᵢ by θ − Δᵢ min(1, C / ‖Δᵢ‖), then apply `then`.

    Δᵢ = θ − θᵢ over all float tensors. `c` is C > 0, or "median": the median of the clients' norms (weights
    do not count in it). Clients within C are taken bit for bit. Needs the old global model θ.
    """

    c: float | Literal["median"] = "median"
    then: Reducer = field(default_factory=Mean)

    needs_global = True

    def __post_init__(self) -> None:
        if self.c != "median" and not (math.isfinite(self.c) and self.c > 0):
            raise AggregationError(f"norm_clip needs c > 0 or c = median, got {self.c}")

    def check(self, n: int) -> None:
        """Raise `AggregationError` unless the condition of the rule behind holds."""
        if n < 1:
            raise AggregationError(f"norm_clip needs n >= 1 clients, got n = {n}")
        self.then.check(n)

    def without_global(self) -> Reducer:
        """Return the rule behind, to which every client goes where there is nothing to measure a change against."""
        return self.then

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Measure ‖Δᵢ‖, then let the rule behind plan with clipped clients."""
        norms = np.sqrt(scan.sum(_squared_norms, (scan.n,)))
        bound = float(np.median(norms)) if self.c == "median" else float(self.c)
        scales = np.ones(scan.n)
        beyond = norms > bound
        scales[beyond] = bound / norms[beyond]
        plan = self.then.plan(_ClippedScan(scan, scales), weights)
        kept = scales[list(plan.clients)]

        def reduce(block: Block, out: Array) -> None:
            plan.reduce(clipped(block, kept), out)

        return replace(plan, reduce=reduce, live_rows=plan.live_rows + len(plan.clients))


def clipped(block: Block, scales: Array) -> Block:
    """Return `block` with each row θᵢ replaced by θ + scaleᵢ (θᵢ − θ); a scale of 1 leaves the row."""
    base = _base(block)
    rows = list(block.rows)
    beyond = np.flatnonzero(scales != 1)
    for client, row in zip(beyond, block.temporary("clipped", len(beyond)), strict=True):
        np.subtract(rows[client], base, out=row)
        np.multiply(row, float(scales[client]), out=row)
        np.add(row, base, out=row)
        rows[client] = row
    return replace(block, rows=rows)


def change_norm(model: Mapping[str, Tensor], global_model: Mapping[str, Array]) -> float:
    """Return ‖θ − θᵢ‖ over all float tensors of two compatible models, without a copy of either."""
    squared = Models([model], global_model, threads=1).sum(_squared_norms, (1,))
    return math.sqrt(float(squared[0]))


@dataclass(frozen=True)
class _ClippedScan:
    """A scan that sees the clipped clients."""

    inner: Scan
    scales: Array

    @property
    def n(self) -> int:
        return self.inner.n

    def sum(self, part: Callable[[Block], Array], shape: tuple[int, ...], block_elems: int = SCAN_BLOCK) -> Array:
        shorter = min(block_elems, scan_block(int(np.count_nonzero(self.scales != 1))))
        return self.inner.sum(lambda block: part(clipped(block, self.scales)), shape, shorter)


def _squared_norms(block: Block) -> Array:
    return squared_distances(block, _base(block))


def _base(block: Block) -> Array:
    if block.base is None:
        raise AggregationError("norm_clip needs the old global model, and there is none")
    return block.base
