"""Sorting networks: fixed lists of min and max that sort n rows, all columns at once.

A network has no branch, so numpy runs each step over a whole block with vector instructions, which sorting column by
column cannot do. Only the steps on which the wanted ranks depend are kept. Each intermediate row has a slot of scratch,
which is used again as soon as the row is no longer needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from aggregators.dtypes import Array


@dataclass(frozen=True, slots=True)
class Step:
    """`slot = min(a, b)`, or max: a and b below n are input rows, from n on they are slots plus n."""

    largest: bool
    a: int
    b: int
    slot: int


@dataclass(frozen=True)
class Network:
    """The steps that bring the wanted ranks of `n` rows into slots.

    - `slots`: rows of scratch needed;
    - `ranks`: for each wanted rank, ascending from 0 for the least, the register (as in `Step`) with it.
    """

    n: int
    slots: int
    steps: tuple[Step, ...]
    ranks: tuple[int, ...]

    def sort(self, rows: Sequence[Array], scratch: Array) -> list[Array]:
        """Return the wanted ranks of `n` rows `[B]`, least first; `scratch` is `[slots, B]` of their dtype.

        The results lie in `scratch` (for n = 1, in `rows`). A NaN in a column spreads to its results.
        """
        registers = [*rows, *scratch]
        for rule, a, b, slot in self._calls:
            rule(registers[a], registers[b], out=registers[slot])
        return [registers[rank] for rank in self.ranks]

    @cached_property
    def _calls(self) -> list[tuple[np.ufunc, int, int, int]]:
        # The interpreter's lock is held between two calls, so nothing is looked up there that can be beforehand.
        return [(np.maximum if s.largest else np.minimum, s.a, s.b, self.n + s.slot) for s in self.steps]


def comparators(n: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs (i, j), i < j, of Batcher's odd-even merge sort for any n (Knuth, TAOCP 3, 5.2.2 M)."""
    if n < 2:
        return
    top = 1 << ((n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            for i in range(n - d):
                if i & p == r:
                    yield i, i + d
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1


@lru_cache(maxsize=64)
def network(n: int, first: int, last: int) -> Network:
    """Return the network for the ranks `first` to `last` (exclusive) of n rows; 0 ≤ first < last ≤ n."""
    # In single-assignment form: value v < n is input row v, value n + k is what operation k gives.
    wires = list(range(n))
    operations: list[tuple[bool, int, int]] = []
    for low, high in comparators(n):
        a, b = wires[low], wires[high]
        for largest, wire in ((False, low), (True, high)):
            wires[wire] = n + len(operations)
            operations.append((largest, a, b))
    wanted = wires[first:last]
    needed = set(wanted)
    for k in reversed(range(len(operations))):
        if n + k in needed:
            needed.update(operations[k][1:])
    last_use = {value: len(operations) for value in wanted}
    for k in reversed(range(len(operations))):
        if n + k in needed:
            for value in operations[k][1:]:
                last_use.setdefault(value, k)
    registers = {v: v for v in range(n)}
    free: list[int] = []
    slots = 0
    steps = []
    for k, (largest, a, b) in enumerate(operations):
        if n + k not in needed:
            continue
        # An operand that is read here for the last time gives up its slot at once: min and max work in place.
        free.extend(registers[v] - n for v in (a, b) if v >= n and last_use[v] == k)
        if free:
            slot = free.pop()
        else:
            slot = slots
            slots += 1
        steps.append(Step(largest, registers[a], registers[b], slot))
        registers[n + k] = n + slot
    return Network(n, slots, tuple(steps), tuple(registers[v] for v in wanted))
