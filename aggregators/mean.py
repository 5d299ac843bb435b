"""The weighted mean: FedAvg's reduction (McMahan et al. 2017, arXiv 1602.05629, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from aggregators.dtypes import Array
from aggregators.protocols import Block, Plan, Scan, Weights
from flavor.errors import AggregationError

_FEW = 16
"""Where fewer than one element in this many is equal, each is looked up by its place."""

MAX_SPREAD = 2.0**20
"""Shares further apart than this are multiplied one by one, because their ratios could overflow."""


@dataclass(frozen=True)
class Mean:
    """Mean weighted by num_examples.

    Σ wᵢ θᵢ with wᵢ = weightᵢ / Σ weights; needs n ≥ 1. Weights count.
    """

    source = "McMahan et al. 2017, arXiv 1602.05629"
    condition = "n >= 1"
    needs_global = False

    def check(self, n: int) -> None:
        """Raise `AggregationError` unless there is a client to average."""
        if n < 1:
            raise AggregationError(f"mean needs n >= 1 clients, got n = {n}")

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Average the clients whose weight is not 0; nothing of the other clients enters, not even a NaN."""
        normalised = weights.normalised
        clients = tuple(int(i) for i in np.flatnonzero(weights.raw))
        return plan_of(clients, [float(normalised[i]) for i in clients], weights.raw)


def plan_of(clients: tuple[int, ...], shares: Sequence[float], weights: Array) -> Plan:
    """Return the plan that averages `clients` by `shares` (sum 1); integer tensors by `weights` `[n]`."""
    return Plan(Average(shares), clients, weights, live_rows=1, streams=True)


class Average:
    """Σ shareᵢ rowᵢ of a block, client by client, so that every element sums in the same order.

    `shares` `[n]` are > 0 and sum to 1. Computed in the block's own dtype: the error in float32 is at most about 2 (n +
    1) 2⁻²⁴ Σ shareᵢ |rowᵢ|, and no partial sum overflows. A single share of 1 gives its row bit for bit. An element
    that is the same in all rows keeps its value bit for bit: a value that no site trained does not move.
    """

    def __init__(self, shares: Sequence[float]) -> None:
        self.shares = tuple(shares)
        self._is_wide = max(self.shares) > MAX_SPREAD * min(self.shares)

    def __call__(self, block: Block, out: Array) -> None:
        """Write the mean of the rows of `block` to `out` `[B]`."""
        rows = block.rows
        if len(rows) == 1:
            np.multiply(rows[0], self.shares[0], out=out)
            return
        equal = None if self.shares == (0.5, 0.5) else EqualPlaces(rows[0])  # that doubles and halves
        self._write(rows, block.temporary("total")[0], out, equal)
        if equal is not None:
            equal.put(out)

    def _write(self, rows: Sequence[Array], total: Array, out: Array, equal: EqualPlaces | None) -> None:
        if self._is_wide:
            write = partial(_sum_of_products, self.shares, rows, total, out, equal)
        else:
            write = partial(_nested_sum, _ratios(self.shares, total.dtype.char), rows, total, out, equal)
        try:
            with np.errstate(over="raise"):
                write()
        except FloatingPointError:  # a sum on the way was too large for the type; the mean itself never is
            write()
            _repair(self.shares, rows, out)


class EqualPlaces:
    """The places at which all rows so far equal the first row.

    The mean is that value there, but rounding may give another one. One unit in the last place is little in a mean, but
    a server step takes it for a direction, the same in each round. All places are compared while many are equal, then
    only those that were.
    """

    def __init__(self, first: Array) -> None:
        self._first = first
        self._mask: Array | None = None
        self._places: Array | None = None

    def see(self, row: Array) -> None:
        """Compare one more row; the same row again changes nothing."""
        if self._places is not None:
            if self._places.size:
                self._places = self._places[self._first[self._places] == row[self._places]]
            return
        if self._mask is None:
            self._mask = self._first == row
        else:
            np.logical_and(self._mask, self._first == row, out=self._mask)
        if np.count_nonzero(self._mask) * _FEW < self._mask.size:
            self._places = np.flatnonzero(self._mask)

    def put(self, out: Array) -> None:
        """Write the first row's values to `out` at those places."""
        if self._places is not None:
            out[self._places] = self._first[self._places]
        elif self._mask is None or self._mask.all():
            np.copyto(out, self._first)
        else:
            np.copyto(out, self._first, where=self._mask)


Ratios = tuple[np.floating[Any] | None, ...]


def _nested_sum(ratios: Ratios, rows: Sequence[Array], total: Array, out: Array, equal: EqualPlaces | None) -> None:
    """Write (((row₀ r₀ + row₁) r₁ + row₂) r₂ …) to `out`; None stands for a ratio of 1. `equal` sees all rows.

    The addition itself reads each row, so only `total` stays in cache, which is faster than adding products. Where
    shares are equal only the sum is multiplied. The last multiplication alone writes to `out`.
    """
    so_far = rows[0]
    for index, ratio in zip(range(1, len(rows)), ratios, strict=False):
        row = rows[index]
        if equal is not None:
            equal.see(row)
        if ratio is not None:
            so_far = np.multiply(so_far, ratio, out=total)
        so_far = np.add(so_far, row, out=total)
    last = ratios[-1]
    np.multiply(so_far, 1 if last is None else last, out=out)


def _sum_of_products(
    shares: Sequence[float], rows: Sequence[Array], product: Array, out: Array, equal: EqualPlaces | None
) -> None:
    np.multiply(rows[0], shares[0], out=out)
    for index in range(1, len(rows)):
        row = rows[index]
        if equal is not None:
            equal.see(row)
        np.multiply(row, shares[index], out=product)
        np.add(out, product, out=out)


def average(rows: Sequence[Array], out: Array) -> None:
    """Write the mean of `rows` to `out` `[B]`, where their sum is too large for the type."""
    np.divide(rows[0], len(rows), out=out)
    product = np.empty_like(out)
    for row in rows[1:]:
        np.divide(row, len(rows), out=product)
        np.add(out, product, out=out)
    _repair([1 / len(rows)] * len(rows), rows, out)


def _repair(shares: Sequence[float], rows: Sequence[Array], out: Array) -> None:
    """Compute the elements of `out` that are not finite anew, halved and in float64; inf and NaN of a row stay."""
    broken = np.flatnonzero(~np.isfinite(out))
    halves = np.zeros(broken.size)
    for row, share in zip(rows, shares, strict=True):
        halves += row[broken].astype(np.float64) * (share / 2)
    most = float(np.finfo(out.dtype).max)
    within = np.clip(halves, -most / 2, most / 2) * 2  # rounding may not carry it over the edge
    out[broken] = np.where(np.isfinite(halves), within, halves)


@lru_cache(maxsize=16)
def _ratios(shares: tuple[float, ...], dtype: str) -> Ratios:
    """Return r with shareᵢ = rᵢ rᵢ₊₁ … rₙ₋₁, each chosen after the rounding of those behind it.

    The errors then do not add up: every client's effective share is right to one rounding.
    """
    number = np.dtype(dtype).type
    ratios: list[np.floating[Any] | None] = [number(shares[-1])]
    behind = float(number(shares[-1]))
    for share, successor in zip(shares[-2::-1], shares[:0:-1], strict=True):
        ratio = None if share == successor else number(share / behind)
        ratios.append(ratio)
        behind *= 1.0 if ratio is None else float(ratio)
    return tuple(reversed(ratios))
