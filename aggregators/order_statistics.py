"""Rules by order, coordinate by coordinate: median and trimmed mean (Yin et al. 2018, arXiv 1803.01498).

Both sum sorted values, so the order of the clients changes no bit of the result. Neither uses the weights: a client
that claims a million examples would outvote the others. Integers follow the same order, rounded half to even, and bool
tensors the majority.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from aggregators.dtypes import Array
from aggregators.integers import integer_median, integer_trimmed_mean
from aggregators.mean import EqualPlaces, average
from aggregators.protocols import Block, Plan, Scan, Weights
from aggregators.sorting_network import network
from flavor.errors import AggregationError


@dataclass(frozen=True)
class Median:
    """Median of each coordinate.

    For an even n, the mean of the middle two values. Sound while fewer than n/2 clients are bad. Weights do not count.
    """

    source = "Yin et al. 2018, arXiv 1803.01498"
    condition = "fewer than n/2 bad clients"
    needs_global = False
    weighs = False

    def check(self, n: int) -> None:
        """Raise `AggregationError` unless there is a client."""
        if n < 1:
            raise AggregationError(f"median needs n >= 1 clients, got n = {n}")

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Take all clients, of any weight."""
        rows = network(scan.n, (scan.n - 1) // 2, scan.n // 2 + 1).slots
        return Plan(median, tuple(range(scan.n)), np.ones(scan.n), live_rows=rows + 2, whole=integer_median)


@dataclass(frozen=True)
class TrimmedMean:
    """Mean of each coordinate without its f largest and f smallest values.

    Needs 2f < n. Sound against f bad clients. Weights do not count. f = 0 is the unweighted mean.
    """

    f: int

    source = "Yin et al. 2018, arXiv 1803.01498"
    condition = "2f < n"
    needs_global = False
    weighs = False

    def check(self, n: int) -> None:
        """Raise `AggregationError` unless 0 ≤ 2f < n."""
        if not 0 <= 2 * self.f < n:
            raise AggregationError(
                f"trimmed_mean with f = {self.f} needs 2f < n: at least {max(1, 2 * self.f + 1)} clients, got n = {n}"
            )

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Take all clients, of any weight."""
        rows = network(scan.n, self.f, scan.n - self.f).slots
        whole = partial(integer_trimmed_mean, self.f)
        return Plan(self.reduce, tuple(range(scan.n)), np.ones(scan.n), live_rows=rows + 2, whole=whole)

    def reduce(self, block: Block, out: Array) -> None:
        """Write the trimmed mean of the rows to `out` `[B]`."""
        trimmed_mean(block, self.f, out)


def median(block: Block, out: Array) -> None:
    """Write the median of the rows of `block` to `out` `[B]`; NaN where a row has one."""
    n = len(block.rows)
    net = network(n, (n - 1) // 2, n // 2 + 1)
    middle = net.sort(block.rows, block.temporary("order", net.slots))
    if len(middle) == 1:
        np.copyto(out, middle[0])
    else:
        midpoint(middle[0], middle[1], out)


def midpoint(low: Array, high: Array, out: Array) -> None:
    """Write (low + high) / 2 to `out`, which is neither of the two; equal values give their value.

    Halves first only where the sum has no room in the type, because half of the smallest number is 0.
    """
    try:
        with np.errstate(over="raise"):
            np.add(low, high, out=out)
    except FloatingPointError:
        with np.errstate(over="ignore"):
            np.add(low, high, out=out)
        large = np.isinf(out)
        out[large] = low[large] * 0.5 + high[large] * 0.5
        np.multiply(out, 0.5, out=out, where=~large)
    else:
        np.multiply(out, 0.5, out=out)


def trimmed_mean(block: Block, f: int, out: Array) -> None:
    """Write the mean of the ranks f to n − f − 1 of the rows of `block` to `out` `[B]`, summed upwards."""
    n = len(block.rows)
    net = network(n, f, n - f)
    middle = net.sort(block.rows, block.temporary("order", net.slots))
    mean_upwards(middle, out)


def mean_upwards(rows: Sequence[Array], out: Array) -> None:
    """Write the mean of `rows` to `out` `[B]`, summed in their order; repairs a sum that overflows."""
    np.copyto(out, rows[0])
    if len(rows) == 1:
        return
    try:
        with np.errstate(over="raise"):
            for row in rows[1:]:
                np.add(out, row, out=out)
    except FloatingPointError:
        average(rows, out)
    else:
        np.divide(out, len(rows), out=out)
    equal = EqualPlaces(rows[0])
    for row in rows[1:]:
        equal.see(row)
    equal.put(out)
