"""The stages of a round: the table that tells the coordinator's loop what to do in each state of a round.

The loop knows no stage by name. A task of another kind than training gets its own table beside `training`.
`stages_of` chooses the table of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from flavor.coordinator.context import RunContext
from flavor.coordinator.round_as_read import CurrentRound
from flavor.coordinator.stage_aggregation import Aggregation
from flavor.coordinator.stage_between_rounds import BetweenRounds
from flavor.coordinator.stage_open import OpenRound
from flavor.records.states import RoundState


class Stage(Protocol):
    """What to do about a round in one of its states."""

    def step(self, round_: CurrentRound | None) -> bool:
        """Do what can be done about this round now; return whether it moved, so that the loop steps once more."""


Stages = Mapping[RoundState | None, Stage]
"""The stage for each state of a round; None stands for no round yet."""


def training(context: RunContext) -> Stages:
    """Return the stages of rounds in which clients train, and their updates become one model."""
    between, aggregation = BetweenRounds(context), Aggregation(context)
    return {
        None: between,
        RoundState.OPEN: OpenRound(context),
        RoundState.AGGREGATING: aggregation,
        RoundState.FAILED: aggregation,  # the run has ended, or is about to end
        RoundState.CLOSED: between,
    }


def stages_of(context: RunContext) -> Stages:
    """Return the stages of this run's rounds."""
    return training(context)
