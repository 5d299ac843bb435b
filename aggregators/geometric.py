"""The geometric median by the smoothed Weiszfeld algorithm: RFA (Pillutla et al. 2019, arXiv 1912.13445)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aggregators.distance import pairwise, squared_distances
from aggregators.dtypes import Array
from aggregators.mean import Average, plan_of
from aggregators.protocols import Block, Plan, Scan, Weights
from flavor.errors import AggregationError

MOST_PAIRED = 16
"""Up to this many clients, one pass over all pairs costs less than the rounds it stands for."""

LEAST_LEFT = 0.01
"""How much of the terms must be left of their difference for a distance to be taken from those between clients."""


@dataclass(frozen=True)
class GeometricMedian:
    """The z that makes Σ wᵢ ‖z − θᵢ‖ least, as RFA's Algorithm 2: from the weighted mean, `rounds` times

        βᵢ ← wᵢ / max(ν, ‖z − θᵢ‖),  z ← Σ βᵢ θᵢ / Σ βᵢ

    Norms are over all float tensors. `rounds` is T ≥ 1; `nu` is ν > 0 in units of that norm; it ends early once a
    round lowers RFA's smoothed objective (‖·‖ below ν counts as ‖·‖²/2ν + ν/2) by less than `tol` of
    itself; with `tol` 0 it never does. Weights count. Integer and bool tensors are averaged with the last βᵢ.

    With few clients the norms of all rounds come from one pass over the distances between clients, else each round
    is a pass of its own.
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
        pairs = pairwise(scan) if scan.n <= min(MOST_PAIRED, 2 * self.rounds) else None
        beta = w
        before = math.inf
        for _ in range(self.rounds):
            squared = None if pairs is None else _distances_from_pairs(pairs, beta)
            distances = np.sqrt(_distances_from_mean(scan, beta) if squared is None else squared)
            distances[~np.isfinite(distances)] = np.inf
            pulls = w / np.maximum(self.nu, distances)
            if not pulls.any():
                raise AggregationError(f"geometric_median: the distances of all {scan.n} clients overflow")
            beta = pulls / math.fsum(pulls)
            objective = self._objective(w, distances)
            if self.tol and before - objective < self.tol * before < math.inf:
                break
            before = objective
        clients, shares = _positive(beta)
        return plan_of(clients, shares, beta)

    def _objective(self, w: Array, distances: Array) -> float:
        """What every round lowers; Σ wᵢ ‖z − θᵢ‖ itself may rise while some of it is below ν."""
        counted = distances[w > 0]
        smoothed = np.where(counted > self.nu, counted, (counted / self.nu * counted + self.nu) / 2)
        return float(np.dot(w[w > 0], smoothed))


def _distances_from_pairs(pairs: Array, beta: Array) -> Array | None:
    """Return ‖z − θᵢ‖² for z = Σ βᵢ θᵢ, Σ βᵢ = 1: `[n]`, from `pairs` ‖θᵢ − θⱼ‖² `[n, n]`.

    As Σⱼ βⱼ ‖θᵢ − θⱼ‖² − ½ Σⱼₖ βⱼ βₖ ‖θⱼ − θₖ‖², of which too little may be left where z comes close to a client, or
    one client is very far: then None, and whoever asked must look at the models. A client that does not count is
    infinitely far if it is not finite.
    """
    counted = np.flatnonzero(beta)
    towards = pairs[:, counted] @ beta[counted]
    spread = float(np.dot(towards[counted], beta[counted])) / 2
    if not math.isfinite(spread):
        return None
    squared = towards - spread
    finite = np.isfinite(squared)
    if (squared[finite] < LEAST_LEFT * (towards[finite] + spread)).any():
        return None
    return squared


def _distances_from_mean(scan: Scan, beta: Array) -> Array:
    """Return ‖z − θᵢ‖² for z = Σ βᵢ θᵢ: `[n]`, float64."""
    clients, shares = _positive(beta)
    average = Average(shares)

    def part(block: Block) -> Array:
        centre = block.temporary("centre")[0]
        average(Block([block.rows[i] for i in clients], block.base, block.scratch), centre)
        return squared_distances(block, centre)

    return scan.sum(part, (scan.n,))


def _positive(beta: Array) -> tuple[tuple[int, ...], tuple[float, ...]]:
    clients = tuple(int(i) for i in np.flatnonzero(beta))
    return clients, tuple(float(beta[i]) for i in clients)
