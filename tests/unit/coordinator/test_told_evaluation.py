"""What a terminal shows of an evaluation with a result, which is less than the log has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flavor.coordinator.told_evaluation import told_as_closed
from flavor.local.judging import judged_model
from flavor.records.comparison import Beside, Comparison
from flavor.records.evaluation import AUTOMATIC, CENTRAL, BestModel, EvaluationSummary, EvaluationView
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.run import RunView
from flavor.records.states import EvaluationState, RunState
from flavor.view.evaluation_events import EvaluationClosed

CONFIG = {"rounds": 5, "store": "file:///s", "select": "pooled/auc:max"}
RUN = RunView("r", RunState.RUNNING, 2, 5, CONFIG, "", None, created_ms=1, ended_ms=None, best=BestModel(2, 0.62, 3))
NOTES = ("--stop-when 'auc>=0.5' does not count: c is gone", "--stop-when 'f1>=0.5' does not count: c is gone")
MEASURED = "3 results: auc 0.6 (plain mean), pooled/auc 0.62; without c: it has failed"
MODEL = GlobalModel(ObjectRef("m", "0" * 64), ObjectRef("i", "0" * 64), None, "npz")
VIEW = EvaluationView(2, 0, EvaluationState.CLOSED, MODEL, ("a", "b", "c"), (), 1, 9)


BEST = "; the best so far (--select pooled/auc:max)"


def judged(round_: int, auc: float | None, number: int = AUTOMATIC, before: int = 0, *beside: float) -> str:
    """The summary of an evaluation as Redis has it."""
    found = EvaluationSummary(
        round_,
        number,
        1,
        sites=3,
        expected=3,
        metrics={} if auc is None else {"pooled/auc": auc},
        best_before=before,
        comparison=Comparison(Beside(*beside, 3) if beside else None),  # type: ignore[misc]
    )
    return found.closed_at(2)


class Read:
    """What is read of a run whose best model is that of round 2 by now, though round 1 was the best before."""

    def __init__(self, *evaluated: str) -> None:
        self._evaluated = evaluated or (judged(1, 0.6), judged(2, 0.62, AUTOMATIC, 1, 0.62, 0.6))

    def read(self) -> RunView:
        return RUN

    def evaluated(self, first: int = 0) -> list[str]:
        return list(self._evaluated[first:])


@pytest.mark.parametrize(
    ("evaluated", "is_best"),
    [
        ([judged(1, 0.5)], True),
        ([judged(5, 0.5, 1), judged(1, 0.4)], True),
        ([judged(5, 0.5, CENTRAL), judged(1, 0.4)], True),
        ([judged(1, None)], False),
        ([judged(1, 0.5), judged(3, 0.7, AUTOMATIC, 1, 0.4, 0.5)], False),
        ([judged(1, 0.5), judged(3, 0.4, AUTOMATIC, 1, 0.7, 0.5)], True),
        ([judged(1, 0.5), judged(3, 0.4)], False),
        ([judged(1, 0.5), judged(3, 0.6)], True),
        ([judged(1, 0.5), judged(1, 0.9, 1)], False),
        ([judged(1, 0.5), judged(1, 0.9, CENTRAL)], False),
    ],
)
def test_a_model_is_told_to_be_the_best_that_was_it_when_it_was_judged(evaluated: list[str], is_best: bool) -> None:
    """Rounds may be short, and what tells of them behind: later results are there, and another model is the best."""
    told = EvaluationSummary.from_json(evaluated[-1])
    later = [judged(round_, 0.9, AUTOMATIC, 3, 0.95, 0.5) for round_ in range(4, 30)]
    runs = Read(*evaluated, *later)
    view = replace(VIEW, round=told.round, number=told.number, reason=MEASURED)
    assert told_as_closed(runs, view).reason == MEASURED + (BEST if is_best else "")  # type: ignore[arg-type]
    event = EvaluationClosed(MEASURED, told.round, told.number)
    shown = judged_model(runs, event)  # type: ignore[arg-type]
    assert shown is None if told.number == 1 else shown is not None and bool(shown.best_by) == is_best


@pytest.mark.parametrize(("round_", "best"), [(1, BEST), (2, BEST), (3, "")])
@pytest.mark.parametrize("apart", [NOTES, NOTES[1:], ()])
def test_notes_that_are_told_by_themselves_are_left_out(round_: int, best: str, apart: tuple[str, ...]) -> None:
    view = replace(VIEW, round=round_, reason="; ".join((MEASURED, *NOTES)))
    told = told_as_closed(Read(), view, apart=(*apart, "of rules that were other ones then"))  # type: ignore[arg-type]
    assert told.reason == "; ".join((MEASURED, *(note for note in NOTES if note not in apart))) + best
    assert (told.round, told.number, told.is_routine) == (round_, 0, False)
