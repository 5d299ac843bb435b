"""The geometric median by the smoothed Weiszfeld algorithm: RFA (Pillutla et al. 2019, arXiv 1912.13445)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from aggregators.distance import pairwise, squared_distances
from aggregators.dtypes import Array, is_finite
from aggregators.integers import integer_weighted_median
from aggregators.mean import Average, plan_of
from aggregators.order_statistics import median
from aggregators.protocols import Block, Plan, Scan, Weights, scan_block
from aggregators.sorting_network import network
from flavor.errors import AggregationError

MOST_PAIRED = 16
"""Up to this many clients, one pass over all pairs costs less than the rounds that it replaces."""

FIRST_PASSES = 2
"""Rounds after the one from the median, each a pass, before the pairs are computed: mostly no more are needed."""

FAR = 1e3

LEAST_LEFT = 0.01
"""The least share of the terms that must remain in their difference, for pairs to give a distance.
"""


@dataclass(frozen=True)
class GeometricMedian:
    """Weighted geometric median by the smoothed Weiszfeld algorithm.

    The z for which Σ wᵢ ‖z − θᵢ‖ is least, by RFA's Algorithm 2: from the median of each coordinate, `rounds` times

        βᵢ ← wᵢ / max(ν, ‖z − θᵢ‖),  z ← Σ βᵢ θᵢ / Σ βᵢ

    Norms are over all float tensors. `rounds` is T ≥ 1; `nu` is ν > 0 in units of that norm; it ends early once a
    round changes RFA's smoothed objective (‖·‖ below ν counts as ‖·‖²/2ν + ν/2) by less than `tol` of
    itself; with `tol` 0 it never does. Weights count. Integers are the weighted median, bool tensors the weighted
    majority.

    A client whose distance overflows float64, or is no number, is left out. One that is `FAR` times farther than the
    middle one pulls like any other, but has no say in when it ends: beside its distance the others' would not show.
    Each round is a pass of its own; with few clients the norms of all rounds after the first `FIRST_PASSES` come from
    one pass over the distances between clients.
    """

    rounds: int = 32
    nu: float = 1e-6
    tol: float = 1e-6

    source = "Pillutla et al. 2019 (RFA), arXiv 1912.13445"
    condition = "bad clients hold less than half of the weight"
    needs_global = False

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.nu > 0 or not self.tol >= 0:
            raise AggregationError(
                "geometric_median needs rounds >= 1, nu > 0 and tol >= 0, "
                f"got rounds = {self.rounds}, nu = {self.nu}, tol = {self.tol}"
            )

    def check(self, n: int) -> None:
        """Raise `AggregationError` unless there is a client."""
        if n < 1:
            raise AggregationError(f"geometric_median needs n >= 1 clients, got n = {n}")

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Find the βᵢ, with which z is a weighted mean."""
        w = weights.normalised
        pairs: Array | None = None
        squared: Array | None = _distances_from_median(scan, w)
        beta = w
        before, warning = math.inf, ""
        for round_ in range(self.rounds):
            if round_ == FIRST_PASSES + 1 and scan.n <= min(MOST_PAIRED, 2 * (self.rounds - round_)):
                pairs = pairwise(scan)
            if round_:
                squared = None if pairs is None else _distances_from_pairs(pairs, beta)
            distances = np.sqrt(_distances_from_mean(scan, beta) if squared is None else squared)
            distances[~np.isfinite(distances)] = np.inf
            pulls = w / np.maximum(self.nu, distances)
            if not pulls.any():
                raise AggregationError(
                    f"geometric_median: none of the {scan.n} clients is at a finite distance from their median"
                )
            beta = pulls / math.fsum(pulls)
            objective = self._objective(w, distances)
            if self.tol and abs(before - objective) < self.tol * before < math.inf:
                break
            changed, before = abs(before - objective) / before, objective
        else:
            if self.tol and self.rounds > 1:
                warning = (
                    f"geometric_median has not converged: its round {self.rounds} of {self.rounds} still changed the "
                    f"objective by {changed:.1e} of itself, and tol is {self.tol:g}: raise rounds, or tol"
                )
        clients, shares = _positive(beta)
        plan = plan_of(clients, shares, np.where(beta > 0, w, 0))
        return replace(plan, whole=integer_weighted_median, warning=warning)

    def _objective(self, w: Array, distances: Array) -> float:
        """Return the smoothed objective, which every round lowers; Σ wᵢ ‖z − θᵢ‖ may rise for a distance below ν."""
        near = (w > 0) & (distances <= FAR * max(self.nu, float(np.median(distances[w > 0]))))
        counted = distances[near]
        smoothed = np.where(counted > self.nu, counted, (counted / self.nu * counted + self.nu) / 2)
        return float(np.dot(w[near], smoothed))


def _distances_from_pairs(pairs: Array, beta: Array) -> Array | None:
    """Return ‖z − θᵢ‖² for z = Σ βᵢ θᵢ, Σ βᵢ = 1: `[n]`, from `pairs` ‖θᵢ − θⱼ‖² `[n, n]`; None where inexact.

    Computes Σⱼ βⱼ ‖θᵢ − θⱼ‖² − ½ Σⱼₖ βⱼ βₖ ‖θⱼ − θₖ‖². Too few digits of that difference may be left where z comes
    close to a client, or one client is very far: the caller must then measure the models. A client that does not count
    is infinitely far if it is not finite.
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


def _distances_from_median(scan: Scan, w: Array) -> Array:
    """Return ‖z − θᵢ‖² for z, the median of each coordinate of the clients that count: `[n]`, float64.

    A client that is not finite has no say in the median, and is infinitely far.
    """
    counted = np.flatnonzero(w)
    squared = _distances_from_median_of(scan, counted)
    if not np.isfinite(squared[counted]).any():
        broken = scan.sum(lambda block: np.array([not is_finite(row) for row in block.rows], float), (scan.n,))
        if len(finite := np.flatnonzero((w > 0) & (broken == 0))):
            squared = _distances_from_median_of(scan, finite)
    return squared


def _distances_from_median_of(scan: Scan, counted: Array) -> Array:
    n = len(counted)

    def part(block: Block) -> Array:
        centre = block.temporary("centre")[0]
        median(replace(block, rows=[block.rows[int(i)] for i in counted]), centre)
        return squared_distances(block, centre)

    return scan.sum(part, (scan.n,), scan_block(scan.n + network(n, (n - 1) // 2, n // 2 + 1).slots))


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
