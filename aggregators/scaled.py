"""Scale the clients' changes of the global model before another rule sees the clients: θᵢ becomes θ + sᵢ (θᵢ − θ)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from aggregators.dtypes import Array
from aggregators.protocols import SCAN_BLOCK, Block, Plan, Prefix, Reducer, Scan, Weights, scan_block, weighs
from flavor.errors import AggregationError

_LEAST_SCALE = 1e-6
"""A client with a smaller scale is moved in float64."""


@dataclass(frozen=True)
class Scaling:
    """Replaces each θᵢ of a block by θ + sᵢ (θᵢ − θ); a scale of 1 leaves the row bit for bit."""

    scales: Array
    """sᵢ `[n]`, of the clients in the order of the block's rows."""
    depth: int
    """The number of rules behind this one: what two rules in a row write must not share memory."""
    skips_statistics: bool = False
    """Whether tensors that are no parameters stay as they are."""

    def __call__(self, block: Block) -> Block:
        """Return the block with scaled rows."""
        if self.skips_statistics and not block.is_parameter:
            return block
        base, rows = base_of(block), list(block.rows)
        moved = np.flatnonzero(self.scales != 1)
        for client, row in zip(moved, block.temporary(f"scaled {self.depth}", len(moved)), strict=True):
            scale = float(self.scales[client])
            if scale < _LEAST_SCALE:  # so far away that the change, or its share of it, may have no room in the type
                _scaled_far(rows[client], base, scale, row)
            else:
                np.subtract(rows[client], base, out=row)
                np.multiply(row, scale, out=row)
                np.add(row, base, out=row)
            rows[client] = row
        return replace(block, rows=rows)

    def plan(self, rule: Reducer, scan: Scan, weights: Weights) -> Plan:
        """Return the plan of a `rule` that gets the scaled clients."""
        plan = rule.plan(_ScaledScan(scan, self), weights)
        kept = replace(self, scales=self.scales[list(plan.clients)])

        def reduce(block: Block, out: Array) -> None:
            plan.reduce(kept(block), out)

        def moved(block: Block) -> Block:
            return plan.moved(kept(block))

        rows = plan.live_rows + len(plan.clients)
        return replace(plan, reduce=reduce, live_rows=rows, streams=False, moved=moved)


class BeforeAnother:
    """A rule that scales the clients' changes, and then applies the rule behind it; base of such dataclasses."""

    then: Reducer
    called: ClassVar[str]
    """The rule's name in messages."""

    @property
    def weighs(self) -> bool:
        """Whether the rule behind weighs."""
        return weighs(self.then)

    def check(self, n: int) -> None:
        """Raise `AggregationError` unless the condition of the rule behind holds."""
        if n < 1:
            raise AggregationError(f"{self.called} needs n >= 1 clients, got n = {n}")
        self.then.check(n)

    def before(self, rule: Reducer) -> Self:
        """Return the same rule with `rule` behind it."""
        this: Any = self
        made: Self = replace(this, then=rule)
        return made

    def without_global(self) -> Reducer:
        """Return the rule behind, which gets every client where there is no model to measure a change against."""
        return self.then


def depth(rule: Reducer) -> int:
    """Return the number of rules behind a rule: 0 where it goes before no other one."""
    return 1 + depth(rule.then) if isinstance(rule, Prefix) else 0


def base_of(block: Block) -> Array:
    """Return the old global model's block. Raises `AggregationError` where there is none."""
    if block.base is None:
        raise AggregationError("the rule measures changes of the old global model, and there is none")
    return block.base


@dataclass(frozen=True)
class _ScaledScan:
    """A scan that sees the scaled clients."""

    inner: Scan
    scaling: Scaling

    @property
    def n(self) -> int:
        return self.inner.n

    def sum(self, part: Callable[[Block], Array], shape: tuple[int, ...], block_elems: int = SCAN_BLOCK) -> Array:
        shorter = min(block_elems, scan_block(int(np.count_nonzero(self.scaling.scales != 1))))
        return self.inner.sum(lambda block: part(self.scaling(block)), shape, shorter)


def _scaled_far(row: Array, base: Array, scale: float, out: Array) -> None:
    """Write base + scale (row − base) to `out`; the base where the change is infinite, which no scale makes finite."""
    change = row.astype(np.float64) * scale - base.astype(np.float64) * scale
    np.add(base, np.where(np.isfinite(change), change, 0), out=out, casting="unsafe")
