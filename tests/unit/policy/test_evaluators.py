"""Sites that only judge models count nowhere among those that train."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flavor.config import RunConfig
from flavor.policy.decision import Action, Decision, next_round, reopened
from flavor.policy.evaluating import evaluation_step, is_merged_beside
from flavor.policy.standing import TRAINS_NOT, Client, Standing, standings
from flavor.records.evaluation import EvaluationView
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.states import ClientState, EvaluationState

CONFIG = RunConfig(rounds=5, min_clients=2, quorum=2, store="file:///s")
READY = Client(ClientState.READY, alive=True)
JUDGE = Client(ClientState.READY, alive=True, evaluates=True, trains=False)
JOINED = Client(ClientState.JOINED, alive=True, evaluates=True, trains=False)
LOST = Client(ClientState.FAILED, alive=False, reason="why", evaluates=True, trains=False)
GONE = Client(ClientState.STOPPED, alive=False, evaluates=True, trains=False)
ROUND = RoundView.opened(2, ("a", "b", "v"), opened_ms=1_000, deadline_ms=11_000)


@pytest.mark.parametrize("judge", [JUDGE, JOINED, LOST, GONE], ids=["ready", "joined", "lost", "gone"])
@pytest.mark.parametrize("closed", [0, 2])
@pytest.mark.parametrize("lost", ["wait", "fail", "retry"])
@pytest.mark.parametrize("trainers", [{}, {"a": READY}, {"a": READY, "b": READY}], ids=len)
def test_what_happens_between_rounds_does_not_depend_on_them(judge, closed, lost, trainers):
    config = CONFIG.model_copy(update={"on_quorum_lost": lost})
    without = next_round("r", closed, trainers, config)
    assert next_round("r", closed, {**trainers, "v": judge}, config) == without
    assert "v" not in without.names


def test_a_round_that_opens_again_opens_for_none_of_them():
    found = reopened(ROUND, {}, {"a": READY, "b": READY, "v": JUDGE}, CONFIG)
    assert (found.action, found.names) == (Action.REOPEN, ("a", "b"))


def test_no_update_comes_from_a_site_that_trained_before_and_only_judges_now():
    found = standings(ROUND, {}, {"a": READY, "b": READY, "v": JUDGE})
    assert found["a"] == (Standing.PENDING, "")
    assert found["v"] == (Standing.GONE, TRAINS_NOT)


def test_they_judge_models():
    found = evaluation_step(None, {}, {"a": READY, "v": JUDGE, "w": JOINED, "x": GONE}, CONFIG, closed=1, now_ms=0)
    assert found is not None
    assert (found.action, found.names) == (Action.EVALUATE, ("v",))


MODEL = GlobalModel(ObjectRef("m", "d"), None, None, "torch")
MERGING = EvaluationView(1, 0, EvaluationState.MERGING, MODEL, ("a",), (), 1_000, 9_000, merging_ms=2_000)
OPENS = Decision(Action.OPEN, "2 clients ready")


@pytest.mark.parametrize(
    ("rules", "is_beside"),
    [
        ({}, True),
        ({"select": "accuracy:max"}, True),
        ({"stop_when": ("central/accuracy>=0.9",)}, True),
        ({"stop_when": ("accuracy>=0.9",)}, False),
        ({"select": "accuracy:max", "stop_after_no_gain": "2"}, False),
        ({"select": "central/accuracy:max", "stop_after_no_gain": "2"}, True),
    ],
    ids=str,
)
def test_results_are_merged_beside_the_next_round_unless_a_rule_may_end_the_run_by_them(rules, is_beside):
    config = CONFIG.model_copy(update=rules)
    assert is_merged_beside(MERGING, config, OPENS) is is_beside
    for other in (None, replace(MERGING, state=EvaluationState.OPEN)):
        assert not is_merged_beside(other, config, OPENS)
    for action in (Action.FINISH, Action.WAIT, Action.FAIL):
        assert not is_merged_beside(MERGING, config, Decision(action, "why"))
