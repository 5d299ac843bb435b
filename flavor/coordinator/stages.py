"""The stages of a round, by its state: what the coordinator's loop does about it.

The loop knows no stage by name: it takes the one that this table has for the state that the round is in. A task of
another kind than training has its own table beside `training` (an evaluation has no aggregation, and closes otherwise),
and `stages_of` chooses between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from flavor.coordinator.aggregation import Aggregation
from flavor.coordinator.between_rounds import BetweenRounds
from flavor.coordinator.context import RunContext
from flavor.coordinator.current_round import CurrentRound
from flavor.coordinator.open_round import OpenRound
from flavor.records.states import RoundState


class Stage(Protocol):
    """One stage of a round."""

    def step(self, round_: CurrentRound | None) -> bool:
        """Do what can be done about this round now; whether it has moved, so that there may be more to do at once."""


Stages = Mapping[RoundState | None, Stage]
"""The stage for each state of a round; None stands for no round yet."""


def training(context: RunContext) -> Stages:
    """The stages of a round in which clients train and their updates become one model."""
    between, aggregation = BetweenRounds(context), Aggregation(context)
    return {
        None: between,
        RoundState.OPEN: OpenRound(context),
        RoundState.AGGREGATING: aggregation,
        RoundState.FAILED: aggregation,  # its run has ended, or is about to
        RoundState.CLOSED: between,
    }


def stages_of(context: RunContext) -> Stages:
    """The stages of this run's rounds, by the kind of their task."""
    return training(context)
