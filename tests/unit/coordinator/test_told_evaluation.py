"""What a terminal shows of an evaluation with a result, which is less than the log has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flavor.coordinator.told_evaluation import told_as_closed
from flavor.records.evaluation import BestModel, EvaluationView
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.run import RunView
from flavor.records.states import EvaluationState, RunState

CONFIG = {"rounds": 5, "store": "file:///s", "select": "pooled/auc:max"}
RUN = RunView("r", RunState.RUNNING, 2, 5, CONFIG, "", None, created_ms=1, ended_ms=None, best=BestModel(2, 0.62, 3))
NOTES = ("--stop-when 'auc>=0.5' does not count: c is gone", "--stop-when 'f1>=0.5' does not count: c is gone")
MEASURED = "3 results: auc 0.6 (plain mean), pooled/auc 0.62; without c: it has failed"
MODEL = GlobalModel(ObjectRef("m", "0" * 64), ObjectRef("i", "0" * 64), None, "npz")
VIEW = EvaluationView(2, 0, EvaluationState.CLOSED, MODEL, ("a", "b", "c"), (), 1, 9)


class Read:
    """`RunStore.read`."""

    def read(self) -> RunView:
        return RUN


@pytest.mark.parametrize(("round_", "best"), [(1, ""), (2, "; the best so far (--select pooled/auc:max)")])
@pytest.mark.parametrize("apart", [NOTES, NOTES[1:], ()])
def test_notes_that_are_told_by_themselves_are_left_out(round_: int, best: str, apart: tuple[str, ...]) -> None:
    view = replace(VIEW, round=round_, reason="; ".join((MEASURED, *NOTES)))
    told = told_as_closed(Read(), view, apart=(*apart, "of rules that were other ones then"))  # type: ignore[arg-type]
    assert told.reason == "; ".join((MEASURED, *(note for note in NOTES if note not in apart))) + best
    assert (told.round, told.number, told.is_routine) == (round_, 0, False)
