"""What is done about results that a worker is to merge: a job that waits, or that a worker has, has not failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flavor.config import RunConfig
from flavor.policy.decision import Action, Decision
from flavor.policy.evaluating import evaluation_step
from flavor.policy.evaluation_job import LOST_S, Whereabouts
from flavor.records.evaluation import EvaluationView
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.states import EvaluationState

CONFIG = RunConfig(rounds=5, store="file:///s", queue="agg", aggregation_attempts=3)
MODEL = GlobalModel(ObjectRef("m", "d"), None, None, "torch")
MERGING = EvaluationView(1, 0, EvaluationState.MERGING, MODEL, ("a",), (), 1_000, 9_000, attempt=1, merging_ms=2_000)
LATE_MS = 10_000_000


def step(job: Whereabouts, **changes: object) -> Decision:
    known = replace(MERGING, **changes)
    found = evaluation_step(known, {"a": True}, {}, CONFIG, closed=1, now_ms=LATE_MS, job=job)
    assert found is not None
    return found


@pytest.mark.parametrize("attempt", [1, 3])
@pytest.mark.parametrize(
    ("job", "action", "is_usual", "reason"),
    [
        (Whereabouts(), Action.WAIT, True, "an aggregator merges the results"),
        (Whereabouts(is_taken=True), Action.WAIT, True, "an aggregator merges the results"),
        (Whereabouts(workers=2), Action.WAIT, False, "no aggregator on queue 'agg' has taken its results yet"),
        (Whereabouts(workers=0), Action.HOLD, False, "no aggregator listens on queue 'agg'"),
        (Whereabouts(workers=0, absence="all rest"), Action.HOLD, False, "all rest"),
        (Whereabouts(lost_s=LOST_S - 0.1, workers=1), Action.WAIT, False, "has taken its results yet"),
        (Whereabouts(lost_s=LOST_S, workers=0), Action.HOLD, False, "no aggregator listens"),
    ],
    ids=str,
)
def test_no_attempt_counts_while_the_job_waits_or_is_in_hand(attempt, job, action, is_usual, reason):
    found = step(job, attempt=attempt)
    assert (found.action, found.is_usual) == (action, is_usual)
    assert reason in found.reason


def test_a_job_that_is_lost_is_put_into_the_queue_again_until_the_attempts_are_used_up():
    job = Whereabouts(lost_s=LOST_S, workers=1)
    assert (step(job).action, step(job, attempt=2).action) == (Action.MERGE, Action.MERGE)
    last = step(job, attempt=3)
    assert last.action is Action.GIVE_UP
    assert last.reason.endswith("3 attempts failed: the aggregator that merged its results stopped without a word")


def test_an_attempt_that_reports_an_error_has_failed_at_once():
    assert step(Whereabouts(is_taken=True), error="disk").action is Action.MERGE
    assert step(Whereabouts(workers=0), error="disk", attempt=3).action is Action.GIVE_UP
    assert step(Whereabouts(), error="no result counts", is_hopeless=True).action is Action.GIVE_UP
