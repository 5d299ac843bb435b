"""The kinds of events about evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from flavor.records.evaluation import EvaluationKind
from flavor.view.round_events import RoundEvent


@dataclass(frozen=True)
class EvaluationEvent(RoundEvent):
    """An event about the evaluation of one round's global model."""

    number: int | None = None
    """Which evaluation of that model it is; None in entries that do not say so."""

    @property
    def kind(self) -> EvaluationKind | None:
        """The kind of the evaluation; None where that is not known."""
        return None if self.number is None else EvaluationKind.of(self.number)


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
    """The evaluation was given up, because something went wrong."""

    name = "evaluation.failed"


@dataclass(frozen=True)
class EvaluationSkipped(EvaluationEvent):
    """The evaluation was given up, because its result is not needed: nothing went wrong."""

    name = "evaluation.skipped"
