"""What a run does next, from all that is known of it, with no network and no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flavor.config import RunConfig
from flavor.policy.decision import Action
from flavor.policy.next_step import Known, next_step
from flavor.policy.standing import Client, Standing
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import ClientState, RoundState, RunState

CONFIG = RunConfig(rounds=5, min_clients=2, store="file:///s")
READY = Client(ClientState.READY, alive=True)
GONE = {"a": (Standing.ACCEPTED, ""), "b": (Standing.GONE, "exit code 3")}
PENDING = {"a": (Standing.ACCEPTED, ""), "b": (Standing.PENDING, "")}
ROUND = RoundView.opened(2, ("a", "b"), opened_ms=1_000, deadline_ms=11_000)
RUN = RunView("r", RunState.RUNNING, 2, 5, {"rounds": 5}, "", None, created_ms=1, ended_ms=None)


def known(**given: object) -> Known:
    return replace(Known(RUN, ROUND, PENDING, {"a": READY, "b": READY}, CONFIG, 2_000), **given)


def test_a_usual_wait_is_told_from_one_in_which_nothing_is_inspected() -> None:
    usual = next_step(known())
    assert (usual.action, usual.is_usual, usual.round) == (Action.WAIT, True, 2)
    decision = next_step(known(uninspected="the aggregators cannot use the store"))
    assert (decision.reason, decision.is_usual) == ("the aggregators cannot use the store", False)


@pytest.mark.parametrize(("what", "action"), [("fail", Action.FAIL), ("retry", Action.REOPEN)])
def test_what_would_end_or_reopen_a_round_is_put_off_until_its_deadline(what: str, action: Action) -> None:
    config = CONFIG.model_copy(update={"on_quorum_lost": what})
    held = next_step(known(standings=GONE, config=config, is_lenient=True))
    assert (held.action, held.postponed, held.is_held) == (Action.HOLD, action, False)
    assert next_step(known(standings=GONE, config=config, is_lenient=True, now_ms=11_000)).action is action


def test_a_wait_in_which_nothing_is_inspected_is_held_and_lasts_since_the_update_came() -> None:
    assert not next_step(known()).is_held
    decision = next_step(known(uninspected="no aggregator listens", uninspected_ms=1_500))
    assert (decision.is_held, decision.since_ms) == (True, 1_500)
    view = replace(ROUND, state=RoundState.AGGREGATING)
    untaken = known(round=view, enqueued_ms=7, now_ms=10_000_000, workers=0, absence="no aggregator is there")
    assert (next_step(untaken).is_held, next_step(untaken).since_ms) == (True, 7)


def test_a_round_is_held_once_all_sites_that_it_waits_for_wait_for_the_store() -> None:
    stuck, standings = replace(READY, awaits_store=True), {"a": (Standing.PENDING, ""), "b": (Standing.PENDING, "")}
    some = next_step(known(standings=standings, clients={"a": stuck, "b": READY}))
    assert (some.is_held, some.reason) == (False, "0 of 2 updates accepted, waiting for a, b")
    every = next_step(known(standings=standings, clients={"a": stuck, "b": stuck}))
    assert every.is_held
    assert every.reason == "0 of 2 updates accepted, waiting for the object store, which a, b cannot use for now"
    handed_in = {"a": (Standing.SUBMITTED, ""), "b": (Standing.PENDING, "")}
    assert not next_step(known(standings=handed_in, clients={"a": stuck, "b": stuck})).is_held, "a is inspected"


def test_without_a_coordinator_no_aggregator_is_said_to_be_at_fault() -> None:
    handed_in = {"a": (Standing.ACCEPTED, ""), "b": (Standing.SUBMITTED, "")}
    for now_ms, served, alone in (
        (2_000, "waiting for an aggregator to inspect", "waiting for a coordinator, which has them inspected"),
        (12_000, "handed in and being inspected", "handed in and not inspected, as no coordinator has that done"),
    ):
        assert next_step(known(standings=handed_in, now_ms=now_ms)).reason.endswith(served)
        assert next_step(known(standings=handed_in, now_ms=now_ms, is_served=False)).reason.endswith(alone)


def test_the_reason_of_a_failed_run_names_its_round_once() -> None:
    decision = next_step(known(standings=GONE))
    assert decision.action is Action.FAIL
    assert decision.reason.startswith("2 updates are needed and 1 can come")
    assert decision.of_run == f"round 2: {decision.reason}"


def test_an_aggregation_that_no_aggregator_takes() -> None:
    view = replace(ROUND, state=RoundState.AGGREGATING)
    assert next_step(known(round=view)).is_usual
    late = known(round=view, enqueued_ms=0, now_ms=10_000_000, workers=0, absence="no aggregator is there")
    decision = next_step(late)
    assert (decision.action, decision.reason, decision.is_usual) == (Action.WAIT, "no aggregator is there", False)
    assert next_step(replace(late, workers=1)).action is Action.REQUEUE


def test_a_run_that_was_just_resumed_does_not_end_between_rounds() -> None:
    closed, left = replace(ROUND, state=RoundState.CLOSED), Client(ClientState.FAILED, alive=False)
    run = replace(RUN, resumed_round=1, resumed_ms=1_000)
    decision = next_step(known(run=run, round=closed, clients={"a": READY, "b": left}))
    assert (decision.action, decision.postponed, decision.round) == (Action.HOLD, Action.FAIL, None)
    later = next_step(known(run=run, round=closed, clients={"a": READY, "b": left}, now_ms=10**12))
    assert later.action is Action.FAIL
