"""Integer and bool tensors: step counters, masks, index tables. They are averaged, whatever the rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aggregators.dtypes import Array
from aggregators.walk import Scratch

LIVE_ROWS = 6
"""Rows of eight bytes that either function touches again and again."""

_FLOAT64 = np.dtype(np.float64)


def integer_mean(rows: Sequence[Array], weights: Sequence[float], out: Array, scratch: Scratch) -> None:
    """Write the weighted mean of integer `rows` `[B]` to `out`, rounded half to even, in their dtype.

    `weights` (all > 0) are taken as given, num_examples say: while weight times value stays below 2⁵³ the
    sums are exact, and so independent of the clients' order. Beyond that the result is still never outside
    the clients' least and greatest value, so equal values come back as they were.
    """
    size = out.size
    total, product = scratch.rows("integer sums", 2, size, _FLOAT64)
    least, most = scratch.rows("integer bounds", 2, size, out.dtype)
    np.copyto(least, rows[0])
    np.copyto(most, rows[0])
    total.fill(0)
    for row, weight in zip(rows, weights, strict=True):
        np.multiply(row, weight, out=product, dtype=np.float64)
        np.add(total, product, out=total)
        np.minimum(least, row, out=least)
        np.maximum(most, row, out=most)
    np.divide(total, math.fsum(weights), out=total)
    np.rint(total, out=total)
    np.copyto(out, total, casting="unsafe")
    np.copyto(out, least, where=total <= least.astype(np.float64))
    np.copyto(out, most, where=total >= most.astype(np.float64))


def majority(rows: Sequence[Array], weights: Sequence[float], out: Array, scratch: Scratch) -> None:
    """Write to `out` `[B]` where the clients that say True outweigh the others; a tie is False."""
    total, product = scratch.rows("votes", 2, out.size, _FLOAT64)
    total.fill(0)
    for row, weight in zip(rows, weights, strict=True):
        np.multiply(row, weight, out=product, dtype=np.float64)
        np.add(total, product, out=total)
    np.greater(total, math.fsum(weights) / 2, out=out)
