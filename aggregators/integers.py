"""Integer and bool tensors: step counters, masks, index tables. Each rule reduces them by a mean or by an order.

Each function takes the rows `[B]` of the clients that count, their weights (all > 0), the output, and scratch. Nothing
overflows, up to the ends of int64 and uint64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from aggregators.blocks import Scratch
from aggregators.dtypes import Array
from aggregators.sorting_network import network

WholeRule: TypeAlias = Callable[[Sequence[Array], Sequence[float], Array, Scratch], None]
"""Reduces the integers of several clients: rows `[B]`, weights, output `[B]`, scratch."""

LIVE_ROWS = 8
"""Rows of eight bytes that a mean touches again and again."""

_SORTED_ELEMS = 256 * 1024
"""Elements that are sorted in one call."""

_FLOAT64, _UINT64 = np.dtype(np.float64), np.dtype(np.uint64)


def integer_mean(rows: Sequence[Array], weights: Sequence[float], out: Array, scratch: Scratch) -> None:
    """Write the weighted mean of integer `rows` `[B]` to `out`, rounded half to even, in their dtype.

    `weights` (all > 0) are taken as given, as num_examples for example. While a weight times the range of the clients'
    values stays below 2⁵³ the mean is exact, however large the values are, and so independent of the clients' order.
    Beyond that the result still lies between the clients' least and greatest value.
    """
    size = out.size
    total, product = scratch.rows("integer sums", 2, size, _FLOAT64)
    least, most = scratch.rows("integer bounds", 2, size, out.dtype)
    above = scratch.row("integer differences", size, _UINT64)
    np.copyto(least, rows[0])
    np.copyto(most, rows[0])
    for row in rows[1:]:
        np.minimum(least, row, out=least)
        np.maximum(most, row, out=most)
    total.fill(0)
    for row, weight in zip(rows, weights, strict=True):
        np.subtract(row, least, out=above, dtype=np.uint64, casting="unsafe")  # modulo 2⁶⁴, and so the difference
        np.multiply(above, weight, out=product, dtype=np.float64)
        np.add(total, product, out=total)
    np.divide(total, math.fsum(weights), out=total)
    np.subtract(most, least, out=above, dtype=np.uint64, casting="unsafe")
    beyond = total >= above
    total[beyond] = 0  # such may not fit into an integer
    np.floor(total, out=product)
    np.subtract(total, product, out=total)
    np.add(least, product.astype(np.uint64), out=above, dtype=np.uint64, casting="unsafe")
    up = (total > 0.5) | ((total == 0.5) & (above & _UINT64.type(1) == 1))
    np.add(above, up, out=above, casting="unsafe")
    np.copyto(out, above, casting="unsafe")
    np.copyto(out, most, where=beyond)


def integer_median(rows: Sequence[Array], weights: Sequence[float], out: Array, scratch: Scratch) -> None:
    """Write the median of integer `rows` to `out`; for an even number the mean of the middle two, rounded half to even.

    The weights do not count.
    """
    n = len(rows)
    net = network(n, (n - 1) // 2, n // 2 + 1)
    middle = net.sort(rows, scratch.rows("integer order", net.slots, out.size, out.dtype))
    if len(middle) == 1:
        np.copyto(out, middle[0])
    else:
        _midpoint(middle[0], middle[1], out)


def integer_trimmed_mean(f: int, rows: Sequence[Array], weights: Sequence[float], out: Array, scratch: Scratch) -> None:
    """Write the mean of the ranks f to n − f − 1 of integer `rows` to `out`, rounded half to even; exact.

    The weights do not count.
    """
    n = len(rows)
    net = network(n, f, n - f)
    middle = net.sort(rows, scratch.rows("integer order", net.slots, out.size, out.dtype))
    count = len(middle)
    if count == 1:
        np.copyto(out, middle[0])
        return
    # Each value is quotient · count + rest with 0 ≤ rest < count, so that no sum leaves the type.
    wide = np.dtype(np.uint64 if out.dtype.kind == "u" else np.int64)
    total, quotient, rest = scratch.rows("integer means", 3, out.size, wide)
    rests = scratch.row("integer rests", out.size, np.dtype(np.int64))
    total.fill(0)
    rests.fill(0)
    for row in middle:
        np.divmod(row.astype(wide), wide.type(count), out=(quotient, rest))
        np.add(total, quotient, out=total)
        np.add(rests, rest, out=rests, casting="unsafe")
    np.add(total, (rests // count).astype(wide), out=total)
    twice = rests % count * 2
    up = (twice > count) | ((twice == count) & ((total & wide.type(1)) == 1))
    np.add(total, up, out=total, casting="unsafe")
    np.copyto(out, total, casting="unsafe")


def integer_weighted_median(rows: Sequence[Array], weights: Sequence[float], out: Array, scratch: Scratch) -> None:
    """Write the value at which half of the weight is reached, sorted upwards, to `out`.

    Where a value ends at exactly the half, the mean of it and the next, rounded half to even.
    """
    n, step = len(rows), max(1, _SORTED_ELEMS // len(rows))
    share = np.asarray(weights, np.float64) / math.fsum(weights)
    for start in range(0, out.size, step):
        values = np.stack([row[start : start + step] for row in rows])
        order = np.argsort(values, axis=0, kind="stable")
        values = np.take_along_axis(values, order, axis=0)
        reached = np.cumsum(share[order], axis=0)
        close = 4 * n * np.finfo(np.float64).eps  # sums of shares are not exact, and 0.5 is to be met
        low = np.minimum((reached < 0.5 - close).sum(axis=0), n - 1)
        high = np.minimum((reached <= 0.5 + close).sum(axis=0), n - 1)
        columns = np.arange(values.shape[1])
        _midpoint(values[low, columns], values[high, columns], out[start : start + step])


def _midpoint(low: Array, high: Array, out: Array) -> None:
    """Write (low + high) / 2 to `out`, rounded half to even."""
    differ = np.bitwise_xor(low, high)
    floor = np.bitwise_and(low, high) + (differ >> 1)
    odd = (differ & 1 == 1) & (floor & 1 == 1)
    np.add(floor, odd, out=out, casting="unsafe")


def majority(rows: Sequence[Array], weights: Sequence[float], out: Array, scratch: Scratch) -> None:
    """Write to `out` `[B]` whether the clients with True outweigh the others; a tie is False."""
    total, product = scratch.rows("votes", 2, out.size, _FLOAT64)
    total.fill(0)
    for row, weight in zip(rows, weights, strict=True):
        np.multiply(row, weight, out=product, dtype=np.float64)
        np.add(total, product, out=total)
    np.greater(total, math.fsum(weights) / 2, out=out)
