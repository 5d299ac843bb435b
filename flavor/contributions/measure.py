"""Measure what each site contributes to the rounds of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from flavor.contributions.kept import Kept, gone
from flavor.contributions.reading import RoundUpdates
from flavor.contributions.result import Contributions, OfRound, Part
from flavor.contributions.trial import Trial
from flavor.errors import AggregationError, AggregatorFailed, RunError, StoreError
from flavor.store.protocol import ObjectStore


def measure(
    kept: Kept,
    store: ObjectStore,
    *,
    threads: int,
    trial: Trial | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Contributions:
    """Compare the sites' updates, and with a `trial` leave one site after another out of each round.

    A round whose updates are pruned during the reading counts as lacking. `progress` is called with the number of
    models and comparisons that are done, and of all. Raises `RunError` where no round is left, `StoreError`, and what
    the `trial` raises.
    """
    total = sum(1 + (trial.models(each) if trial is not None else 0) for each in kept.rounds)
    counter = _Counter(total, progress)
    rounds, lacking = list[OfRound](), dict(kept.lacking)
    for each in kept.rounds:
        updates = RoundUpdates(store, each, threads)
        try:
            found = _compared(updates)
            counter.next()
            if trial is not None:
                found = trial.left_out(updates, found, counter.next)
        except StoreError:
            if not (why := gone(store, each)):
                raise
            lacking[each.round] = f"{why}, since this command has begun"
            continue
        rounds.append(found)
    if not rounds:
        raise RunError(f"run {kept.run!r} has gone on, and the updates of all these rounds are pruned: call this again")
    metric, by_sites = (str(trial.select), trial.by_sites) if trial is not None else ("", False)
    return Contributions(kept.run, kept.run_id, time.time_ns() // 1_000_000, metric, rounds, lacking, by_sites)


class _Counter:
    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._progress = 0, total, progress
        progress(0, total)

    def next(self) -> None:
        self._done += 1
        self._progress(min(self._done, self._total), self._total)


def _compared(updates: RoundUpdates) -> OfRound:
    kept = updates.kept
    updates.read()
    why, found = "", None
    try:
        found = updates.agreement()
        why = "" if found is not None else "it began from no model, so that there is no change to compare"
    except (AggregationError, AggregatorFailed) as error:
        why = " ".join(str(error).split())
    parts = {}
    for index, (client, update) in enumerate(kept.updates.items()):
        parts[client] = Part(update.num_examples)
        if found is not None:
            parts[client] = replace(
                parts[client],
                cosine=found.cosines[index],
                norm=found.norms[index],
                norm_ratio=found.ratios[index],
            )
    return OfRound(kept.round, kept.manifest.global_model.digest, parts, not_compared=why)
