"""An evaluation that the end of a run has cut off is opened anew after `flavor resume`, where no round was open."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.coordinator.resume import resume
from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.records.states import EvaluationState, RunState
from flavor.store.local import LocalStore
from tests.driven import TOKEN, Driven


def ended(server: str, tmp_path: Path, number: int, *, is_skipped: bool, is_open: bool) -> Driven:
    """A run that was stopped after its first round, whose evaluation has no result."""
    run = Driven(server, LocalStore(tmp_path / "store", create=True), evaluate="every")
    run.open(["c1"])
    run.accept("c1", 10, {})
    run.close()
    run.open_evaluation(["c1"] if number == AUTOMATIC else [], number=number)
    if is_open:
        run.open(["c1"])
    view = run.runs.read_evaluation(1, number)
    assert view is not None
    run.runs.give_up_evaluation(TOKEN, view, "why", is_skipped=is_skipped)
    run.runs.end(RunState.STOPPED, "enough")
    run.runs.redis.delete(run.runs.keys.coordinator)
    return run


@pytest.mark.parametrize("number", [AUTOMATIC, CENTRAL], ids=["sites", "central"])
def test_it_is_opened_anew(server: str, tmp_path: Path, number: int) -> None:
    run = ended(server, tmp_path, number, is_skipped=True, is_open=False)
    done = resume(run.runs, given={}, tell=lambda _: None)
    assert done.cut_off == "the model of round 1 is judged anew: the run ended before the result"
    assert run.runs.read_evaluation(1, number) is None
    run.runs.redis.set(run.runs.keys.coordinator, TOKEN)
    run.open_evaluation(["c1"] if number == AUTOMATIC else [], number=number)
    view = run.runs.read_evaluation(1, number)
    assert view is not None
    assert not view.is_over
    assert not view.is_unneeded


@pytest.mark.parametrize(
    ("is_skipped", "is_open", "given", "told"),
    [
        pytest.param(False, False, {}, "", id="it has failed"),
        pytest.param(True, True, {}, "stays without the evaluation", id="the next round was open"),
        pytest.param(True, False, {"evaluate": "off"}, "", id="no model is judged any more"),
    ],
)
def test_another_stays_as_it_is(
    server: str, tmp_path: Path, is_skipped: bool, is_open: bool, given: dict[str, str], told: str
) -> None:
    run = ended(server, tmp_path, AUTOMATIC, is_skipped=is_skipped, is_open=is_open)
    done = resume(run.runs, given=given, tell=lambda _: None)
    assert (told in done.cut_off, bool(done.cut_off)) == (True, bool(told))
    view = run.runs.read_evaluation(1, AUTOMATIC)
    assert (view is None) == bool(given)
    assert view is None or view.state is EvaluationState.FAILED
