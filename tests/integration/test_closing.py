"""An evaluation is closed also where another model becomes the best while its results are merged."""

from __future__ import annotations

import pytest

from flavor.errors import FlavorError, IllegalMove
from flavor.records.evaluation import AUTOMATIC, CENTRAL, Best, EvaluationSummary, EvaluationView
from flavor.records.objects import ObjectRef
from flavor.records.states import EvaluationState
from tests.driven import TOKEN, Driven
from workers.closing import close_on_best

NAME = "central/accuracy"
REF = ObjectRef("p", "d")


@pytest.fixture
def driven(server: str) -> Driven:
    """A run whose newest model is judged by a site, and on the operator's own data."""
    found = Driven(server, select=f"{NAME}:max")
    found.open(["a"])
    found.accept("a")
    found.close()
    found.open_evaluation(["a"])
    found.runs.begin_merge(TOKEN, 1, AUTOMATIC, attempt=1)
    found.open_evaluation([], number=CENTRAL)
    return found


def merging(driven: Driven) -> EvaluationView:
    found = driven.runs.read_evaluation(1, AUTOMATIC)
    assert found is not None
    return found


def commit(driven: Driven, best: Best | None) -> str:
    summary = EvaluationSummary(1, AUTOMATIC, 1, sites=1, expected=1, examples=1)
    driven.runs.commit_evaluation(
        1,
        AUTOMATIC,
        attempt=1,
        verdicts={},
        info=REF,
        manifest=REF,
        summary=summary,
        reason="merged",
        before=best,
        best=best,
    )
    return "merged"


def test_it_is_closed_beside_the_model_that_has_become_the_best(driven):
    told = []

    def close(best: Best | None) -> str:
        told.append(best and best.round)
        if len(told) == 1:
            driven.judge_centrally(100, {NAME: 0.9}, 1)
        return commit(driven, best)

    assert close_on_best(driven.runs, merging(driven), None, close) == "merged"
    assert told == [None, 1]
    assert merging(driven).state is EvaluationState.CLOSED
    assert driven.runs.read().best.round == 1


def test_it_says_so_where_the_best_changes_each_time(driven):
    def close(best: Best | None) -> str:
        now = (best.round if best else 0) + 1
        fields = {"best_round": now, "best_value": "0.5", "best_sites": 1}
        driven.runs.redis.hset(driven.runs.keys.state, mapping=fields)
        return commit(driven, best)

    with pytest.raises(FlavorError, match="another model became the best in each of 5 attempts"):
        close_on_best(driven.runs, merging(driven), None, close)
    assert merging(driven).state is EvaluationState.MERGING


def test_another_worker_that_was_faster_is_left_alone(driven):
    evaluation = merging(driven)
    commit(driven, None)
    with pytest.raises(IllegalMove):
        close_on_best(driven.runs, evaluation, None, lambda best: commit(driven, best))
