"""The weighted mean: FedAvg's reduction (McMahan et al. 2017, arXiv 1602.05629, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from aggregators.dtypes import Array
from aggregators.protocols import Block, Plan, Scan, Weights
from flavor.errors import AggregationError


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
    return Plan(partial(weighted_mean, shares), clients, weights, live_rows=3)


def weighted_mean(shares: Sequence[float], block: Block, out: Array) -> None:
    """Write Σ shareᵢ rowᵢ to `out` `[B]`, client by client, so every element sums in the same order.

    In the block's own dtype: the error is at most about (n + 1) 2⁻²⁴ Σ shareᵢ |rowᵢ| in float32. A share of
    exactly 1 gives that row bit for bit.
    """
    product = block.temporary("product")[0]
    np.multiply(block.rows[0], shares[0], out=out)
    for row, share in zip(block.rows[1:], shares[1:], strict=True):
        np.multiply(row, share, out=product)
        np.add(out, product, out=out)
