"""What the scripts write of asynchronous rounds, on a server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from flavor.bus.connection import connect
from flavor.bus.events import ClientEvents
from flavor.bus.runs import RunStore
from flavor.bus.verdicts import Recorded
from flavor.errors import IllegalMove, LeaseLost
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.records.verdict import Verdict
from tests.recorded import global_model

TOKEN = "coordinator"
UPDATE = Update(ObjectRef("p", "d" * 64, 3), ObjectRef("i", "e" * 64), "pickle", 10, try_id="t")


def model(round_: int) -> object:
    return global_model(f"runs/r/global/{round_:04d}-model", f"{round_:064d}", 12)


@pytest.fixture
def runs(url: str) -> Iterator[RunStore]:
    """A run whose first two rounds are closed; b has no verdict in the second."""
    redis = connect(url)
    redis.flushall()
    store = RunStore(redis, "r", url)
    redis.set(store.keys.coordinator, TOKEN)
    fields = {"state": "waiting", "round": "0", "rounds": "9", "config": "{}", "created_ms": "1"}
    redis.hset(store.keys.state, mapping=fields)
    for round_ in (1, 2):
        begin(store, round_)
        accept(store, round_, "a")
        if round_ == 1:
            accept(store, round_, "b")
        close(store, round_, ["a", "b"] if round_ == 1 else ["a"])
    yield store
    redis.close()


def begin(runs: RunStore, round_: int, **since: int) -> None:
    runs.open_round(TOKEN, round_, expected=["a", "b"], timeout_s=9, reason="go", since=since)


def accept(runs: RunStore, round_: int, client: str, **how: int) -> Recorded:
    return runs.judge(round_, client, Verdict(True, "good", UPDATE, try_id="t"), **how)  # type: ignore[arg-type]


def close(runs: RunStore, round_: int, contributors: list[str]) -> None:
    runs.begin_aggregation(TOKEN, round_, attempt=1, contributors=contributors, reason="go")
    runs.claim_round(round_, attempt=1, token="w", ttl_s=9)
    runs.commit_round(round_, attempt=1, token="w", model=model(round_), reason="done")  # type: ignore[arg-type]


def hand_in(runs: RunStore, round_: int, client: str) -> None:
    runs.redis.hset(runs.keys.client(client).update(round_), mapping=UPDATE.to_hash())


def test_a_script_can_ask_how_much_time_is_left_by_the_servers_clock(
    runs: RunStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, state = ClientEvents(url, "r", "a"), runs.keys.state
    monkeypatch.setattr(time, "time", lambda: 1e12)  # the site's clock is wrong
    hand_over = {"expected": ["a", "b"], "reason": "go"}
    runs.open_round(TOKEN, 3, timeout_s=90, tells_deadline=False, **hand_over)  # type: ignore[arg-type]
    assert events.left_s(3) is None, "an asynchronous run tells no deadline"
    close(runs, 3, ["a"])
    runs.open_round(TOKEN, 4, timeout_s=90, **hand_over)  # type: ignore[arg-type]
    left_s = events.left_s(4)
    assert left_s is not None
    assert 30 < left_s <= 90
    assert events.left_s(5) is None, "that round is not open yet"
    assert events.left_s(3) == 0.0, "that one is over"
    runs.redis.hset(state, "config", '{"mode": "sync:slow=async"}')
    accept(runs, 4, "a")
    close(runs, 4, ["a"])
    runs.open_round(TOKEN, 5, timeout_s=90, since={"a": 4}, **hand_over)  # type: ignore[arg-type]
    assert events.left_s(4) is None, "its update counts later"
    assert events.left_s(3) == 0.0, "it has done that task"
    again = {"new": [], "left_out": [], "opening": 2, "timeout_s": 9000}
    runs.reopen_round(TOKEN, 5, **again, **hand_over)  # type: ignore[arg-type]
    assert 8000 < (events.left_s(5) or 0) <= 9000
    runs.redis.hset(state, "deadline_ms", 1)
    assert events.left_s(5) == 0.0, "never below 0"
    runs.redis.hset(state, "state", "failed")
    assert events.left_s(5) is None
    runs.redis.hset(runs.keys.round(5), "state", "failed")
    runs.resume(TOKEN, 5, config={"rounds": 9}, changed=[], closed=4, spoiled=[], timeout_s=700, reason="an operator")
    assert 600 < (events.left_s(5) or 0) <= 700
    events.close()


def test_a_script_hears_that_its_task_was_given_up(runs: RunStore, url: str) -> None:
    runs.redis.hset(runs.keys.state, "config", '{"mode": "async:buffer=1,staleness=constant,max_staleness=1"}')
    events = ClientEvents(url, "r", "b")
    begin(runs, 3, b=2)
    assert events.left_s(2) is None, "its update counts in round 3"
    accept(runs, 3, "a")
    close(runs, 3, ["a"])
    runs.open_round(
        TOKEN, 4, expected=["a", "b"], timeout_s=9, reason="go", since={}, outdated={"b": 1}, tells_deadline=False
    )
    assert events.left_s(2) == 0.0, "it has the task of round 4"
    assert events.left_s(4) is None
    view = runs.read_round(4)
    assert view is not None
    assert view.outdated == {"b": 1}
    events.close()


def test_who_goes_on_keeps_its_task_and_update_and_gets_no_other(runs: RunStore) -> None:
    hand_in(runs, 2, "b")
    begin(runs, 3, b=2)
    view = runs.read_round(3)
    assert view is not None
    assert (view.is_buffered, view.since, view.task_round("a"), view.task_round("b")) == (True, {"b": 2}, 3, 2)
    exists = runs.redis.exists
    assert [exists(runs.keys.client(client).task(3)) for client in "ab"] == [1, 0]
    assert runs.updates(3, ["a", "b"], since=view.since).keys() == {"b"}
    assert {client: each.model.digest for client, each in runs.given({"a": 3, "b": 2}).items()} == {
        "a": f"{2:064d}",
        "b": f"{1:064d}",
    }
    assert runs.given({"a": 7}) == {}, "no such task"
    assert runs.given({"a": 1}) == {}, "it names no model"


def test_a_synchronous_round_has_no_such_field(runs: RunStore) -> None:
    runs.open_round(TOKEN, 3, expected=["a", "b"], timeout_s=9, reason="go")
    view = runs.read_round(3)
    assert view is not None
    assert (view.is_buffered, view.since) == (False, {})
    assert runs.redis.exists(runs.keys.client("b").task(3))


def test_the_answer_has_the_number_of_the_task(runs: RunStore) -> None:
    begin(runs, 3, b=2)
    assert accept(runs, 3, "b", task_round=2) is Recorded.ACCEPTED
    view = runs.read_round(3)
    assert view is not None
    assert view.verdicts["b"].accepted
    assert runs.redis.hget(runs.keys.client("b").verdict(2), "accepted") == "1"
    assert not runs.redis.exists(runs.keys.client("b").verdict(3))


def test_an_inspection_that_ends_after_its_round_says_nothing(runs: RunStore) -> None:
    """The update is inspected again, for the next round."""
    assert accept(runs, 2, "b") is Recorded.NOT
    assert runs.judge(2, "b", Verdict(False, "NaN", try_id="t")) is Recorded.NOT
    assert runs.refusals() == {}
    begin(runs, 3, b=2)
    assert accept(runs, 3, "b", task_round=2) is Recorded.ACCEPTED


def test_the_coordinator_alone_refuses_as_late(runs: RunStore) -> None:
    assert runs.refuse_late(2, "b", "t") is Recorded.TOLD
    assert runs.redis.hget(runs.keys.client("b").verdict(2), "accepted") == "0"
    assert runs.refusals() == {}, "no blame"


def test_a_client_that_becomes_ready_gets_the_task_of_the_open_round(runs: RunStore) -> None:
    begin(runs, 3, b=2)
    hand_in(runs, 3, "c")  # of a history that is lost
    runs.join_round(TOKEN, 3, expected=["a", "b", "c"], new=["c"], reason="c is ready")
    view = runs.read_round(3)
    assert view is not None
    assert (view.expected, view.since) == (("a", "b", "c"), {"b": 2})
    assert runs.given({"c": 3})["c"].model.digest == f"{2:064d}"
    assert not runs.updates(3, ["c"])
    assert accept(runs, 3, "c") is Recorded.ACCEPTED


def test_nobody_joins_a_round_of_another_coordinator_or_one_that_is_not_open(runs: RunStore) -> None:
    with pytest.raises(IllegalMove):
        runs.join_round(TOKEN, 2, expected=["a", "b", "c"], new=["c"], reason="it is closed")
    begin(runs, 3)
    with pytest.raises(LeaseLost):
        runs.join_round("another", 3, expected=["a", "b", "c"], new=["c"], reason="no lease")
    with pytest.raises(IllegalMove, match="decided without b, which is expected"):
        runs.join_round(TOKEN, 3, expected=["a", "c"], new=["c"], reason="b is left out")
    assert not runs.redis.exists(runs.keys.client("c").task(3))
    accept(runs, 3, "a")
    close(runs, 3, ["a"])
    runs.open_round(TOKEN, 4, expected=["a", "b"], timeout_s=9, reason="go")
    with pytest.raises(IllegalMove):
        runs.join_round(TOKEN, 4, expected=["a", "b", "c"], new=["c"], reason="it is synchronous")
