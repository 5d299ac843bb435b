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

MAX_SPREAD = 2.0**20
"""Shares further apart than this are multiplied out one by one, for their ratios could overflow."""


@dataclass(frozen=True)
class Mean:
    """Σ wᵢ θᵢ with wᵢ = weightᵢ / Σ weights; needs n ≥ 1. Weights count."""

    needs_global = False

    def check(self, n: int) -> None:
        """Raise `AggregationError` if there is nobody to average."""
        if n < 1:
            raise AggregationError(f"mean needs n >= 1 clients, got n = {n}")

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Average the clients whose weight is not 0: nothing of the others can leak in, not even a NaN."""
        normalised = weights.normalised
        clients = tuple(int(i) for i in np.flatnonzero(weights.raw))
        return plan_of(clients, [float(normalised[i]) for i in clients], weights.raw)


def plan_of(clients: tuple[int, ...], shares: Sequence[float], weights: Array) -> Plan:
    """Return the plan that averages `clients` by `shares` (sum 1); integer tensors by `weights` `[n]`."""
    return Plan(partial(weighted_mean, tuple(shares)), clients, weights, live_rows=1)


def weighted_mean(shares: tuple[float, ...], block: Block, out: Array) -> None:
    """Write Σ shareᵢ rowᵢ to `out` `[B]`, client by client, so every element sums in the same order.

    `shares` `[n]` are > 0. In the block's own dtype: the error in float32 is at most about
    2 (n + 1) 2⁻²⁴ Σ shareᵢ |rowᵢ|. A single share of 1 gives that row bit for bit.
    """
    rows = block.rows
    if max(shares) > MAX_SPREAD * min(shares):
        product = block.temporary("product")[0]
        np.multiply(rows[0], shares[0], out=out)
        for row, share in zip(rows[1:], shares[1:], strict=True):
            np.multiply(row, share, out=product)
            np.add(out, product, out=out)
        return
    # As (((row₀ r₀ + row₁) r₁ + row₂) r₂ …): each row is read by the addition itself, which leaves only `out`
    # to keep in cache and is faster than adding products; where shares are equal, r = 1 is left out.
    ratios = _ratios(shares, block.dtype.name)
    np.multiply(rows[0], ratios[0], out=out)
    for row, ratio in zip(rows[1:], ratios[1:], strict=True):
        np.add(out, row, out=out)
        if ratio != 1:
            np.multiply(out, ratio, out=out)


@lru_cache(maxsize=16)
def _ratios(shares: tuple[float, ...], dtype: str) -> tuple[np.floating[Any], ...]:
    """Return r with shareᵢ = rᵢ rᵢ₊₁ … rₙ₋₁, each chosen after the rounding of those behind it.

    So the errors do not add up: every client's effective share is right to one rounding.
    """
    number = np.dtype(dtype).type
    ratios = [number(shares[-1])]
    behind = float(ratios[0])
    for share, successor in zip(shares[-2::-1], shares[:0:-1], strict=True):
        ratios.append(number(1) if share == successor else number(share / behind))
        behind *= float(ratios[-1])
    return tuple(reversed(ratios))
