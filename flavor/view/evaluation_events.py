"""The kinds of events about evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from flavor.view.round_events import RoundEvent


@dataclass(frozen=True)
class EvaluationEvent(RoundEvent):
    """An event about the evaluation of one round's global model."""


@dataclass(frozen=True)
class EvaluationOpened(EvaluationEvent):
    """Sites have the task to judge the model."""

    name = "evaluation.opened"


@dataclass(frozen=True)
class EvaluationClosed(EvaluationEvent):
    """The evaluation has its result."""

    name = "evaluation.closed"


@dataclass(frozen=True)
class EvaluationFailed(EvaluationEvent):
    """The evaluation was given up."""

    name = "evaluation.failed"
