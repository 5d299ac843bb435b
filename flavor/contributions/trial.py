"""Leaving one site after another out of a round: who judges the models, and whether they can be made at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flavor.config import DEFAULT_AGGREGATOR
from flavor.contributions.kept import KeptRound
from flavor.contributions.reading import RoundUpdates
from flavor.contributions.result import OfRound
from flavor.errors import AggregationError, AggregatorFailed
from flavor.policy.selection import Select

ONE_SITE = "it has the update of one site alone"


class Trial(Protocol):
    """Has the model of a round judged, and the models without one site after another."""

    @property
    def select(self) -> Select:
        """The metric, and which of its values are better."""

    @property
    def by_sites(self) -> bool:
        """Whether the sites of the run judge."""

    def models(self, kept: KeptRound) -> int:
        """Return how many models of a round are judged."""

    def left_out(self, updates: RoundUpdates, found: OfRound, step: Callable[[], None]) -> OfRound:
        """Return what is `found` of the round with what the judges say; `step` is called after each model.

        Raises `StoreError` for updates that cannot be read.
        """


def why_not_again(updates: RoundUpdates, target: Path) -> str:
    """Aggregate all updates again into `target`; return why that is not the recorded model, and '' where it is."""
    kept = updates.kept
    if kept.not_ours:
        return kept.not_ours
    try:
        digest = updates.make(target)
    except (AggregationError, AggregatorFailed) as error:
        return f"all updates cannot be aggregated again: {error}"
    recorded = kept.manifest.global_model.digest
    if digest != recorded:
        rule = kept.config.aggregator or DEFAULT_AGGREGATOR
        return (
            f"all updates, aggregated again by {rule}, give a model with the SHA-256 {digest[:12]}…, and the recorded "
            f"one has {recorded[:12]}…: either an aggregator of your own has made it, or this machine computes "
            "otherwise (another release of flavor or numpy, another processor)"
        )
    return ONE_SITE if len(kept.updates) == 1 else ""
