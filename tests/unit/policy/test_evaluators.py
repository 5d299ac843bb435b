"""Sites that only judge models count nowhere among those that train."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flavor.config import RunConfig
from flavor.policy.decision import Action, Decision, next_round, reopened
from flavor.policy.evaluating import (
    COMING_S,
    LONG_S,
    awaits_sites,
    evaluation_step,
    is_merged_beside,
    left_out,
    may_open,
    newly_not_counted,
)
from flavor.policy.selection import StopWhen
from flavor.policy.standing import TRAINS_NOT, Client, Standing, standings
from flavor.records.evaluation import EvaluationSummary, EvaluationView
from flavor.records.lacking import Lacking, SomeSites
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


def test_one_that_has_come_back_and_is_not_ready_yet_is_waited_for():
    found = evaluation_step(None, {}, {"w": JOINED}, CONFIG, closed=1, now_ms=0, judged=["w"])
    assert found is not None
    assert (found.action, found.names) == (Action.EVALUATE, ("w",))
    assert awaits_sites(found, {"w": JOINED}, 1) == found
    assert awaits_sites(found, {"w": GONE}, 1).action is Action.WAIT


def test_a_site_that_trains_on_is_not_asked_and_is_named():
    busy, trains = replace(JUDGE, trains=True), replace(JUDGE, trains=True, evaluates=False)
    clients = {"a": busy, "b": busy, "c": trains, "v": JUDGE}
    found = evaluation_step(None, {}, clients, CONFIG, closed=1, now_ms=0, busy=["b", "c"], judged=["b", "v"])
    assert found is not None
    assert found.names == ("a", "v")
    assert found.reason == (
        "its global model is judged by a, v; not asked, because they train on: b; without an evaluator: c"
    )
    assert left_out(clients, ["b", "c", "x"]) == ["b"]
    assert evaluation_step(None, {}, {"b": busy}, CONFIG, closed=1, now_ms=0, busy=["b"]) is None


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


TRAINER = Client(ClientState.READY, alive=True, evaluates=True)
NOT_YET = Client(ClientState.STOPPED, alive=False, evaluates=True, ended_with_run=True)
OPEN = EvaluationView(1, 0, EvaluationState.OPEN, MODEL, ("a", "b"), (), 1_000, 9_000_000)


@pytest.mark.parametrize("action", Action)
def test_a_model_is_judged_when_the_next_round_can_be_opened_or_none_follows(action):
    assert may_open(Decision(action, "why")) is (action in (Action.OPEN, Action.FINISH))


@pytest.mark.parametrize("clients", [{"a": TRAINER}, {"a": TRAINER, "b": NOT_YET}, {"b": NOT_YET}], ids=str)
def test_it_is_opened_for_who_has_judged_before_and_is_to_come_back(clients):
    found = evaluation_step(None, {}, clients, CONFIG, closed=1, now_ms=0, judged=["a", "b"])
    assert found is not None
    assert (found.action, found.names) == (Action.EVALUATE, ("a", "b"))
    assert "b, which judges the model" in found.reason or "a, b, which judge the model" in found.reason


@pytest.mark.parametrize(
    "gone",
    [
        replace(NOT_YET, ended_with_run=False),
        replace(NOT_YET, state=ClientState.REVOKED),
        replace(NOT_YET, quarantined=True),
        replace(TRAINER, evaluates=False),
    ],
    ids=["gone", "revoked", "quarantined", "without its evaluator"],
)
def test_who_is_not_to_come_back_is_not_waited_for(gone):
    clients = {"a": TRAINER, "b": gone}
    found = evaluation_step(None, {}, clients, CONFIG, closed=1, now_ms=0, judged=["a", "b"])
    assert found is not None
    assert found.names == ("a",)
    found = evaluation_step(OPEN, {"a": True}, clients, CONFIG, closed=1, now_ms=2_000)
    assert found is not None
    assert found.action is Action.MERGE


def test_who_is_to_come_back_is_waited_for_by_name_and_for_a_time_that_is_said():
    def step(now_ms, **clients):
        found = evaluation_step(OPEN, {"a": True}, {"a": TRAINER, **clients}, CONFIG, closed=1, now_ms=now_ms)
        assert found is not None
        return found

    last_ms = OPEN.opened_ms + int(COMING_S * 1000)
    waits = step(last_ms - 1)
    assert (waits.action, waits.is_held) == (Action.WAIT, True)
    assert "1 of 2 results handed in, waiting for b, which judges the model" in waits.reason
    assert "has not come back yet, for 60 s at most" in waits.reason
    assert step(last_ms).action is Action.MERGE
    short = evaluation_step(
        replace(OPEN, deadline_ms=OPEN.opened_ms + 20_000), {}, {}, CONFIG, closed=1, now_ms=OPEN.opened_ms
    )
    assert short is not None
    assert short.reason.endswith("for 20 s at most"), "its own time ends before"
    opened = evaluation_step(
        None,
        {},
        {"a": TRAINER},
        CONFIG.model_copy(update={"evaluation_timeout_s": 20.0}),
        closed=1,
        now_ms=0,
        judged=["b"],
    )
    assert opened is not None
    assert opened.reason.endswith("for 20 s at most")
    back = step(last_ms, b=TRAINER)
    assert (back.action, back.is_held) == (Action.WAIT, False)
    assert back.reason.endswith("waiting for b")


@pytest.mark.parametrize(("time_s", "long_s"), [(3600, LONG_S), (20, 10)])
def test_a_wait_for_a_slow_evaluator_is_worth_telling_after_a_while(time_s, long_s):
    view = replace(OPEN, deadline_ms=OPEN.opened_ms + time_s * 1000)

    def is_long(after_ms):
        now_ms = view.opened_ms + after_ms
        found = evaluation_step(view, {}, {"a": TRAINER, "b": TRAINER}, CONFIG, closed=1, now_ms=now_ms)
        assert found is not None
        assert (found.action, found.is_usual) == (Action.WAIT, True)
        return found.is_long

    last_ms = int(long_s * 1000)
    assert [is_long(0), is_long(last_ms - 1), is_long(last_ms)] == [False, False, True]


def test_why_a_goal_does_not_count_is_told_once_for_each_reason():
    when, told = [StopWhen.parse("auc>=0.9")], dict[str, str]()
    away = {site: {"auc": Lacking(away=SomeSites.of([site]))} for site in "bc"}
    steps = [("b", 0.8, 0), ("b", 0.95, 1), ("b", 0.96, 0), ("b", 0.8, 0), ("b", 0.97, 0), ("c", 0.97, 1), ("", 0.8, 0)]
    for site, auc, lines in [*steps, ("c", 0.97, 1)]:
        lacking = away.get(site, {"auc": Lacking()})
        summary = EvaluationSummary(1, 0, 1, sites=2, expected=2, metrics={"auc": auc}, lacking=lacking)
        found, told = newly_not_counted(when, summary, told)
        assert len(found) == lines, (site, auc)
        assert all(f"{site} was not there to judge the model" in line for line in found)
