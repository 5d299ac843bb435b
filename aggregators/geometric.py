"""The geometric median by the smoothed Weiszfeld algorithm: RFA (Pillutla et al. 2019, arXiv 1912.13445)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aggregators.distance import squared_distances
from aggregators.dtypes import Array
from aggregators.mean import plan_of, weighted_mean
from aggregators.protocols import Block, Plan, Scan, Weights
from flavor.errors import AggregationError


@dataclass(frozen=True)
class GeometricMedian:
    """The z that makes Σ wᵢ ‖z − θᵢ‖ least, as RFA's Algorithm 2: from the weighted mean, `rounds` times

        βᵢ ← wᵢ / max(ν, ‖z − θᵢ‖),  z ← Σ βᵢ θᵢ / Σ βᵢ

    Norms are over all float tensors. `rounds` is T ≥ 1, each one pass over all models; `nu` is ν > 0 in units
    of that norm; it ends early once Σ wᵢ ‖z − θᵢ‖ falls by less than `tol` of itself in a round.
    Weights count. Integer and bool tensors are averaged with the last βᵢ.
    """

    rounds: int = 32
    nu: float = 1e-6
    tol: float = 1e-6

    needs_global = False

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.nu > 0 or not self.tol >= 0:
            raise AggregationError(
                "geometric_median needs rounds >= 1, nu > 0 and tol >= 0, "
                f"got rounds = {self.rounds}, nu = {self.nu}, tol = {self.tol}"
            )

    def check(self, n: int) -> None:
        """Raise `AggregationError` if there is nobody."""
        if n < 1:
            raise AggregationError(f"geometric_median needs n >= 1 clients, got n = {n}")

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Find the βᵢ; z is then a weighted mean like any other."""
        w = weights.normalised
        beta = w
        before = math.inf
        for _ in range(self.rounds):
            distances = np.sqrt(_distances_from_mean(scan, beta))
            distances[~np.isfinite(distances)] = np.inf
            pulls = w / np.maximum(self.nu, distances)
            if not pulls.any():
                raise AggregationError(f"geometric_median: the distances of all {scan.n} clients overflow")
            counted = w > 0
            objective = float(np.dot(w[counted], distances[counted]))
            beta = pulls / math.fsum(pulls)
            if before - objective < self.tol * before < math.inf:
                break
            before = objective
        clients, shares = _positive(beta)
        return plan_of(clients, shares, beta)


def _distances_from_mean(scan: Scan, beta: Array) -> Array:
    """Return ‖z − θᵢ‖² for z = Σ βᵢ θᵢ: `[n]`, float64."""
    clients, shares = _positive(beta)

    def part(block: Block) -> Array:
        centre = block.temporary("centre")[0]
        weighted_mean(shares, Block([block.rows[i] for i in clients], block.base, block.scratch), centre)
        return squared_distances(block, centre)

    return scan.sum(part, (scan.n,))


def _positive(beta: Array) -> tuple[tuple[int, ...], tuple[float, ...]]:
    clients = tuple(int(i) for i in np.flatnonzero(beta))
    return clients, tuple(float(beta[i]) for i in clients)
