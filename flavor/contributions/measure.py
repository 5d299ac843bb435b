"""Measure what each site contributes to the rounds of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flavor.contributions.judge import Judge
from flavor.contributions.kept import Kept, KeptRound, gone
from flavor.contributions.reading import RoundUpdates
from flavor.contributions.result import Contributions, OfRound, Part
from flavor.errors import AggregationError, AggregatorFailed, EvaluatorFailed, RunError, StoreError
from flavor.policy.selection import Select
from flavor.store.protocol import ObjectStore


@dataclass(frozen=True)
class Trial:
    """How to leave sites out: who judges the models, by which metric, and where they lie for that time."""

    judge: Judge
    select: Select
    folder: Path
    """A folder with room for two models."""


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
    models and comparisons that are done, and of all. Raises `EvaluatorFailed` where a recorded model itself cannot be
    judged, `RunError` where no round is left, and `StoreError`.
    """
    total = sum(1 + (1 + len(each.updates) if trial and not each.not_ours else 0) for each in kept.rounds)
    counter = _Counter(total, progress)
    rounds, lacking = list[OfRound](), dict(kept.lacking)
    for each in kept.rounds:
        updates = RoundUpdates(store, each, threads)
        try:
            found = _compared(updates)
            counter.next()
            if trial is not None:
                found = _left_out(updates, found, trial, counter)
        except StoreError:
            if not (why := gone(store, each)):
                raise
            lacking[each.round] = f"{why}, since this command has begun"
            continue
        rounds.append(found)
    if not rounds:
        raise RunError(f"run {kept.run!r} has gone on, and the updates of all these rounds are pruned: call this again")
    metric = str(trial.select) if trial is not None else ""
    return Contributions(kept.run, kept.run_id, time.time_ns() // 1_000_000, metric, rounds, lacking)


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


def _left_out(updates: RoundUpdates, found: OfRound, trial: Trial, counter: _Counter) -> OfRound:
    """Judge the round's model, and then one without each site."""
    kept, judge = updates.kept, trial.judge
    if kept.not_ours:
        return replace(found, why_not=kept.not_ours)
    model = trial.folder / "model.safetensors"
    try:
        digest = updates.make(model)
    except (AggregationError, AggregatorFailed) as error:
        return replace(found, why_not=f"all updates cannot be aggregated again: {error}")
    if digest != kept.manifest.global_model.digest:
        return replace(found, why_not=_not_the_same(kept, digest))
    if len(kept.updates) == 1:
        return replace(found, why_not="it has the update of one site alone")
    format_ = kept.manifest.global_model.format
    value = judge.value(model, round_=kept.round, format_=format_)
    counter.next()
    sites, sign = dict(found.sites), 1 if trial.select.is_larger else -1
    for client in kept.updates:
        try:
            is_same = updates.make(model, without=client) == digest
            without = value if is_same else judge.value(model, round_=kept.round, format_=format_)
            sites[client] = replace(sites[client], without=without, contribution=sign * (value - without) + 0.0)
        except (AggregationError, AggregatorFailed, EvaluatorFailed) as error:
            sites[client] = replace(sites[client], why_not=" ".join(str(error).split()))
        counter.next()
    model.unlink(missing_ok=True)
    return replace(found, sites=sites, value=value)


def _not_the_same(kept: KeptRound, digest: str) -> str:
    rule = kept.config.aggregator or "fedavg"
    return (
        f"all updates, aggregated again by {rule}, give a model with the SHA-256 {digest[:12]}…, and the recorded one "
        f"has {kept.manifest.global_model.digest[:12]}…: either an aggregator of your own has made it, or this machine "
        "computes otherwise (another release of flavor or numpy, another processor)"
    )
