"""The rounds of `uneven.py` on a simulated clock: no waiting, no servers, and the same seconds on each machine.

Training is real, and so are the rules: `aggregators` makes the models, and moves each stale update as the workers do.
What is simulated is when each site is done.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from uneven_tasks import SITES, Model, Task

from aggregators import run
from aggregators.rebased import rebased
from aggregators.staleness import Staleness

FAST_S, SLOW_S = 1.0, 6.0
DEADLINE_S = 2.0
"""Of the synchronous rounds with a quorum."""
_JITTER = 0.05
"""A site takes as much longer or shorter each time, at most."""


@dataclass(frozen=True)
class Closed:
    """A round that has closed."""

    time_s: float
    model: Model
    updates: list[int]
    """How many updates of each site have counted, in all rounds until then."""


class _Rounds:
    """The sites and the global models so far, that of round 0 first."""

    def __init__(self, task: Task, seed: int) -> None:
        self.sites = [task.site(number, seed) for number in range(SITES)]
        self.models = [task.initial(seed)]
        self.rng, self.time_s, self.counts = np.random.default_rng([seed, 1]), 0.0, [0] * SITES

    def takes_s(self, number: int) -> float:
        return float((SLOW_S if number == SITES - 1 else FAST_S) * (1 + self.rng.uniform(-_JITTER, _JITTER)))

    def close(self, updates: list[tuple[int, Any]]) -> Closed:
        weights = [self.sites[number].num_examples for number, _ in updates]
        self.models.append(run([update for _, update in updates], weights, threads=1).model)
        for number, _ in updates:
            self.counts[number] += 1
        return Closed(self.time_s, self.models[-1], list(self.counts))


def synchronous(task: Task, seed: int, *, sites: int, round_s: float | None) -> Iterator[Closed]:
    """Rounds of the first so many sites, each as long as its slowest one or, with `round_s`, as the deadline."""
    rounds = _Rounds(task, seed)
    while True:
        slowest_s = max(rounds.takes_s(number) for number in range(sites))
        rounds.time_s += slowest_s if round_s is None else round_s
        yield rounds.close([(number, rounds.sites[number].trained(rounds.models[-1])) for number in range(sites)])


def asynchronous(task: Task, seed: int, *, buffer: int, rule: Staleness) -> Iterator[Closed]:
    """Rounds that close with their first `buffer` updates. A site whose update counts begins again as they close."""
    rounds = _Rounds(task, seed)
    done = [(rounds.takes_s(number), number, 0) for number in range(SITES)]
    """When, who, and from which global model."""
    heapq.heapify(done)
    while True:
        newest, updates = len(rounds.models) - 1, list[tuple[int, Any]]()
        for _ in range(buffer):
            rounds.time_s, number, base = heapq.heappop(done)
            update = rounds.sites[number].trained(rounds.models[base])
            if base != newest:
                scale = rule.factor(newest - base)
                update = rebased(update, rounds.models[base], rounds.models[newest], scale)
            updates.append((number, update))
        yield rounds.close(updates)
        for number, _ in updates:
            heapq.heappush(done, (rounds.time_s + rounds.takes_s(number), number, newest + 1))
