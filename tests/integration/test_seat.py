"""A client's seat: what is written from it, and when nothing is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.bus.state import ClientState, RunState, Verdict
from flavor.edge.seat import Seat
from flavor.errors import LeaseLost

TOKEN = "coordinator"


@pytest.fixture
def runs(url: str) -> Iterator[RunStore]:
    """A run in its first round."""
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    runs.create(rounds=3, config={})
    redis.set(runs.keys.coordinator, TOKEN)
    runs.open_round(TOKEN, 1, expected=["a"], timeout_s=9, reason="")
    yield runs
    redis.close()


def seat(runs: RunStore, url: str) -> Seat:
    taken = Seat(runs.redis, url, runs.keys, "a")
    taken.take(ttl_s=60, told=lambda _: None)
    return taken


def test_an_update_is_handed_in_only_for_the_round_that_the_run_is_in(runs: RunStore, url: str) -> None:
    mine = seat(runs, url)
    assert mine.hand_in(1, {"path": "p"})
    assert mine.hand_in(1, {"path": "another"})
    assert runs.updates(1, ["a"]) == {"a": {"path": "another"}}
    for other in (0, 2):
        assert not mine.hand_in(other, {"path": "p"})
        assert not mine.has_update(other)
    runs.end(RunState.STOPPED, "by an operator")
    assert not mine.hand_in(1, {"path": "too late"})
    assert runs.updates(1, ["a"]) == {"a": {"path": "another"}}


def test_a_round_that_opens_meanwhile_is_seen(runs: RunStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the run and the write."""
    mine = seat(runs, url)
    watched = type(runs.redis.pipeline()).multi

    def opened_meanwhile(self: object) -> None:
        monkeypatch.undo()
        connect(url).hset(runs.keys.state, "round", "2")
        watched(self)  # type: ignore[arg-type]

    monkeypatch.setattr(type(runs.redis.pipeline()), "multi", opened_meanwhile)
    assert not mine.hand_in(1, {"path": "p"})
    assert not mine.has_update(1)


def test_who_was_replaced_writes_nothing(runs: RunStore, url: str) -> None:
    mine = seat(runs, url)
    runs.redis.set(runs.keys.client("a").lease, "another")
    with pytest.raises(LeaseLost, match="'a' was taken over"):
        mine.hand_in(1, {"path": "p"})
    with pytest.raises(LeaseLost):
        mine.report(ClientState.READY, {}, behind=0, public_key="")
    assert not mine.has_update(1)
    assert not runs.redis.exists(runs.keys.client("a").hash)


def test_the_refusal_of_an_earlier_try_says_nothing_of_what_lies_there_now(runs: RunStore, url: str) -> None:
    mine = seat(runs, url)
    assert mine.hand_in(1, {"path": "p", "try": "t1"})
    assert runs.judge(1, "a", Verdict(False, "NaN", try_id="t1"))
    assert mine.verdict(1)["reason"] == "NaN"
    assert mine.hand_in(1, {"path": "p2", "try": "t2"})
    assert mine.verdict(1) == {}
    assert runs.judge(1, "a", Verdict(True, "good", try_id="t2"))
    assert mine.verdict(1)["accepted"] == "1"
    assert mine.hand_in(1, {"path": "p3", "try": "t3"})
    assert mine.verdict(1)["accepted"] == "1", "what was accepted is the last"
