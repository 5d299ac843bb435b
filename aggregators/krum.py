"""Rules that choose clients by their distances: Krum, Multi-Krum and Bulyan.

Krum and Multi-Krum: Blanchard et al. 2017, "Machine learning with adversaries" (NeurIPS 30), section 3 and section 4:
all clients are scored once, and the m best are kept. Bulyan: El Mhamdi et al. 2018, arXiv 1802.07927, section 4. A
client's score is the sum of its squared distances, over all float tensors, to its n − f − 2 nearest others. The
distances to all others decide between equal scores, and after them the order of the clients. The weights do not count.
Integer and bool tensors are the median and majority of the chosen clients, and take no part in the distances: a client
that is near in its floats may still lie in its integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from aggregators.distance import pairwise
from aggregators.dtypes import Array
from aggregators.integers import integer_median
from aggregators.mean import plan_of
from aggregators.order_statistics import mean_upwards, midpoint
from aggregators.protocols import Block, Plan, Scan, Weights
from aggregators.sorting_network import network
from flavor.errors import AggregationError


@dataclass(frozen=True)
class Krum:
    """The one client nearest to its n - f - 2 nearest others.

    The θᵢ whose sum of squared distances to its n − f − 2 nearest others is least. Needs 2f + 2 < n.
    """

    f: int

    source = "Blanchard et al. 2017, NeurIPS 30"
    condition = "2f + 2 < n"
    needs_global = False
    weighs = False

    def check(self, n: int) -> None:
        """Raise `AggregationError` unless f ≥ 0 and 2f + 2 < n."""
        _check_krum("krum", self.f, n)

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Choose one client, whose model comes back bit for bit."""
        return _mean_of(ranking(pairwise(scan), self.f)[:1], scan.n)


@dataclass(frozen=True)
class MultiKrum:
    """Mean of the m clients best by Krum's score (m = n - f).

    The mean is unweighted. Clients are scored once. `m` is n − f by default. Needs 2f + 2 < n and 1 ≤ m ≤ n − f.
    """

    f: int
    m: int | None = None

    source = "Blanchard et al. 2017, NeurIPS 30"
    condition = "2f + 2 < n, 1 <= m <= n - f"
    needs_global = False
    weighs = False

    def check(self, n: int) -> None:
        """Raise `AggregationError` unless f ≥ 0, 2f + 2 < n and 1 ≤ m ≤ n − f."""
        _check_krum("multi_krum", self.f, n)
        if self.m is not None and not 1 <= self.m <= n - self.f:
            raise AggregationError(
                f"multi_krum with f = {self.f}, m = {self.m} needs 1 <= m <= n - f = {n - self.f}, got n = {n}"
            )

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Choose m clients."""
        m = scan.n - self.f if self.m is None else self.m
        return _mean_of(ranking(pairwise(scan), self.f)[:m], scan.n)


@dataclass(frozen=True)
class Bulyan:
    """n - 2f clients by iterated Krum, then the mean of the n - 4f values nearest each coordinate's median.

    Needs n ≥ 4f + 3. Of two values equally far from the median, the lower counts as nearer. Iterated Krum scores the
    remaining clients anew after each choice, with their number as the n in n − f − 2; where that is less than one
    neighbour, the nearest one alone counts.
    """

    f: int

    source = "El Mhamdi et al. 2018, arXiv 1802.07927"
    condition = "n >= 4f + 3"
    needs_global = False
    weighs = False

    def check(self, n: int) -> None:
        """Raise `AggregationError` unless f ≥ 0 and n ≥ 4f + 3."""
        if self.f < 0 or n < 4 * self.f + 3:
            raise AggregationError(
                f"bulyan with f = {self.f} needs f >= 0 and n >= 4f + 3 = {4 * self.f + 3} clients, got n = {n}"
            )

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Choose n − 2f clients."""
        chosen = tuple(sorted(iterated_krum(pairwise(scan), self.f, scan.n - 2 * self.f)))
        rows = network(len(chosen), 0, len(chosen)).slots
        counts = _counts(chosen, scan.n)
        reduce = partial(nearest_mean, 2 * self.f)
        return Plan(reduce, chosen, counts, live_rows=rows + 4, whole=integer_median)


def ranking(squared: Array, f: int) -> list[int]:
    """Return the clients by score, the least first; `squared` is `[n, n]`; at least one neighbour counts."""
    n = len(squared)
    others = np.sort(squared[~np.eye(n, dtype=bool)].reshape(n, n - 1), axis=1)
    nearest = max(1, n - f - 2)
    scores = others[:, :nearest].sum(axis=1)
    return sorted(range(n), key=lambda i: (scores[i], float(others[i].sum()), i))


def iterated_krum(squared: Array, f: int, count: int) -> list[int]:
    """Return `count` clients, each the best by Krum's score of those that remain; `squared` is `[n, n]`."""
    left = list(range(len(squared)))
    chosen: list[int] = []
    while len(chosen) < count:
        best = ranking(squared[np.ix_(left, left)], f)[0] if len(left) > 1 else 0
        chosen.append(left.pop(best))
    return chosen


def nearest_mean(dropped: int, block: Block, out: Array) -> None:
    """Write to `out` `[B]`, per coordinate, the mean of the n − `dropped` values nearest the median.

    These values are neighbours in sorted order. So a window of that many values slides upwards while the value that it
    would lose is farther from the median than the value that it would gain.
    """
    n = len(block.rows)
    kept = n - dropped
    net = network(n, 0, n)
    ranked = net.sort(block.rows, block.temporary("order", net.slots))
    centre, below, above = block.temporary("window", 3)
    if n % 2:
        np.copyto(centre, ranked[n // 2])
    else:
        midpoint(ranked[n // 2 - 1], ranked[n // 2], centre)
    for start in range(dropped):
        lost, gained = ranked[start], ranked[start + kept]
        np.subtract(centre, lost, out=below)
        np.subtract(gained, centre, out=above)
        # The slot of the value that leaves the window takes the one that enters it; once it stops, it stops
        # for good, for what it would lose only comes nearer and what it would gain only goes farther.
        np.copyto(gained, lost, where=~(below > above))
    mean_upwards(ranked[dropped:], out)


def _mean_of(chosen: list[int], n: int) -> Plan:
    clients = tuple(sorted(chosen))
    plan = plan_of(clients, [1 / len(clients)] * len(clients), _counts(clients, n))
    return replace(plan, whole=integer_median)


def _counts(chosen: Sequence[int], n: int) -> Array:
    counts = np.zeros(n)
    counts[list(chosen)] = 1
    return counts


def _check_krum(name: str, f: int, n: int) -> None:
    if f < 0 or not 2 * f + 2 < n:
        raise AggregationError(
            f"{name} with f = {f} needs f >= 0 and 2f + 2 < n: at least {2 * max(f, 0) + 3} clients, got n = {n}"
        )
