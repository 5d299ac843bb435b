"""What the coordinator does about a model that is judged on the operator's own data."""

from __future__ import annotations

import pytest

from flavor.config import RunConfig
from flavor.policy.central import LACKING_S, central_step
from flavor.policy.decision import Action
from flavor.policy.evaluation_job import LOST_S, Whereabouts
from flavor.records.evaluation import CENTRAL, EvaluationView
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.states import EvaluationState

CONFIG = RunConfig(rounds=5, store="file:///s", queue="agg")
OPENED_MS = 1_000
DEADLINE_MS = OPENED_MS + 3_600_000


def step(*, lacking_s: float | None = None, lost_s: float = 0.0, ends: bool = True, after_s: float = 1.0):
    known = EvaluationView(
        round=5,
        number=CENTRAL,
        state=EvaluationState.MERGING,
        model=GlobalModel(ObjectRef("r/5/global.pt", "a" * 64)),
        expected=(),
        skipped=(),
        opened_ms=OPENED_MS,
        deadline_ms=DEADLINE_MS,
        attempt=1,
        merging_ms=OPENED_MS,
    )
    now_ms = OPENED_MS + int(after_s * 1000)
    return central_step(known, Whereabouts(lost_s), CONFIG, ends=ends, now_ms=now_ms, lacking_s=lacking_s)


def test_the_rounds_never_wait():
    assert step(ends=False) is None
    assert step(ends=False, lacking_s=LACKING_S) is None


def test_the_end_waits_for_the_worker_that_has_it():
    found = step()
    assert (found.action, found.is_usual) == (Action.WAIT, True)


@pytest.mark.parametrize("lacking_s", [0.0, 1.0, LACKING_S - 0.1])
def test_the_end_waits_for_a_worker_that_restarts_and_says_so(lacking_s):
    found = step(lacking_s=lacking_s)
    assert (found.action, found.is_usual) == (Action.WAIT, False)
    assert found.reason == (
        "the model of round 5 on the operator's own data: no worker on queue 'agg' judges models: start one with "
        "`flavor-agg -e`. The run ends without its result after 60 s"
    )


def test_the_end_does_without_a_worker_that_does_not_come_back():
    found = step(lacking_s=LACKING_S)
    assert found.action is Action.GIVE_UP
    assert "for 60 s there was no worker that judges models" in found.reason


def test_the_deadline_ends_every_wait():
    for lacking_s in (None, 1.0):
        found = step(lacking_s=lacking_s, after_s=3600)
        assert (found.action, "--evaluation-timeout-s" in found.reason) == (Action.GIVE_UP, True)


def test_a_job_that_is_nowhere_is_put_into_the_queue_again():
    assert step(lost_s=LOST_S - 0.1).action is Action.WAIT
    assert step(lost_s=LOST_S).action is Action.MERGE
    assert step(lost_s=LOST_S, lacking_s=LACKING_S).action is Action.MERGE
