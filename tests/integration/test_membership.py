"""A client's seat: what is written from it, and when nothing is."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from flavor.bus.connection import Redis, connect
from flavor.bus.events import ClientEvents
from flavor.bus.runs import RunStore
from flavor.edge.membership import Membership
from flavor.errors import LeaseLost
from flavor.records.client import ClientStatus
from flavor.records.moved import Moved
from flavor.records.names import Event
from flavor.records.pulse import Doing, Pulse
from flavor.records.states import ClientState, RunState
from flavor.records.update import Update
from flavor.records.verdict import Answer, Verdict
from flavor.watch import Progress
from tests.integration.test_events import Counting
from tests.recorded import accepted

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


def update(path: str, try_id: str = "") -> Update:
    return accepted(path=path, try_id=try_id).inspected


def seat(runs: RunStore, url: str) -> Membership:
    taken = Membership(runs.redis, url, runs.keys, "a")
    taken.take(ttl_s=60, told=lambda _: None)
    return taken


def test_what_was_moved_is_there_for_the_next_process_of_the_client(runs: RunStore, url: str) -> None:
    mine, before_ms = seat(runs, url), runs.now_ms()
    began_ms = mine.moved().since_ms
    assert before_ms <= began_ms <= runs.now_ms()
    mine.hand_in(1, update("p"), moved=Moved(67, 51, began_ms))
    mine.report(ClientStatus(ClientState.STOPPED))
    mine.leave(announce=False)
    assert seat(runs, url).moved() == Moved(67, 51, began_ms)
    runs.redis.hdel(runs.keys.client("a").hash, "moved_ms")
    assert mine.moved() == Moved(67, 51), "an edge of an earlier release has begun the sum"


def test_an_update_is_handed_in_only_for_the_round_that_the_run_is_in(runs: RunStore, url: str) -> None:
    mine = seat(runs, url)
    assert mine.hand_in(1, update("p"))
    assert mine.hand_in(1, update("another"))
    assert runs.updates(1, ["a"]) == {"a": update("another")}
    for other in (0, 2):
        assert not mine.hand_in(other, update("p"))
        assert not mine.has_update(other)
    runs.end(RunState.STOPPED, "by an operator")
    assert not mine.hand_in(1, update("too late"))
    assert runs.updates(1, ["a"]) == {"a": update("another")}


def test_a_round_that_opens_meanwhile_is_seen(runs: RunStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the run and the write."""
    mine = seat(runs, url)
    watched = type(runs.redis.pipeline()).multi

    def opened_meanwhile(self: object) -> None:
        monkeypatch.undo()
        connect(url).hset(runs.keys.state, "round", "2")
        watched(self)  # type: ignore[arg-type]

    monkeypatch.setattr(type(runs.redis.pipeline()), "multi", opened_meanwhile)
    assert not mine.hand_in(1, update("p"))
    assert not mine.has_update(1)


def test_who_was_replaced_writes_nothing(runs: RunStore, url: str) -> None:
    mine = seat(runs, url)
    runs.redis.set(runs.keys.client("a").lease, "another")
    with pytest.raises(LeaseLost, match="'a' was taken over"):
        mine.hand_in(1, update("p"))
    with pytest.raises(LeaseLost):
        mine.report(ClientStatus(ClientState.READY))
    assert not mine.has_update(1)
    assert not runs.redis.exists(runs.keys.client("a").hash)


def test_what_has_moved_is_told_with_the_update(runs: RunStore, url: str) -> None:
    """A round may be shorter than the time between two pulses."""
    mine = seat(runs, url)
    assert mine.hand_in(1, update("p"), moved=Moved(1200, 3400, 5))
    assert Pulse.from_hash(runs.redis.hgetall(runs.keys.client("a").hash)) == Pulse(moved=Moved(1200, 3400, 5))


def test_the_refusal_of_an_earlier_try_says_nothing_of_what_lies_there_now(runs: RunStore, url: str) -> None:
    mine = seat(runs, url)
    assert mine.hand_in(1, update("p", "t1"))
    assert runs.judge(1, "a", Verdict(False, "NaN", try_id="t1"))
    assert mine.answer(1) == Answer(False, "NaN", "t1")
    assert mine.hand_in(1, update("p2", "t2"))
    assert mine.answer(1) is None
    assert runs.judge(1, "a", Verdict(True, "good", try_id="t2"))
    assert mine.answer(1) == Answer(True, "good", "t2")
    assert mine.hand_in(1, update("p3", "t3"))
    assert mine.answer(1) == Answer(True, "good", "t2"), "what was accepted is the last"


# -- an edge that was paused past its lease, and one whose answer was lost


def everything(redis: Redis) -> dict[str, object]:
    """All that a client wrote."""
    reads: dict[str, Callable[[str], object]] = {"string": redis.get, "hash": redis.hgetall}
    return {key: reads[redis.type(key)](key) for key in redis.scan_iter("flavor:{r}:client:a*")}


@pytest.mark.parametrize("seen", ["before it looks", "between its look and what it writes"])
@pytest.mark.parametrize("what", ["start", "clear", "transfer", "pulse"])
def test_an_edge_that_was_paused_undoes_nothing_of_its_successor(
    runs: RunStore, url: str, monkeypatch: pytest.MonkeyPatch, what: str, seen: str
) -> None:
    """It had the task of round 1, and wakes when another process of its client has had that trained."""
    old, keys = seat(runs, url), runs.keys.client("a")
    events = ClientEvents(url, "r", "a", redis=connect(url))
    writes: dict[str, Callable[[], object]] = {
        "start": lambda: events.start_round(1, anew=True, edge=old.token),
        "clear": lambda: old.clear([keys.started, keys.event(1, Event.TRAIN_FINISHED)]),
        "transfer": lambda: old.report_transfer(Progress("uploading", 1, 2)),
        "pulse": lambda: old.report_pulse(lambda _: Pulse(Doing.TRAINING, 1)),
    }

    def succeed() -> None:
        runs.redis.delete(keys.lease)
        new = seat(runs, url)
        new.report(ClientStatus(ClientState.READY))
        with contextlib.closing(ClientEvents(url, "r", "a", edge=new.token)) as of_new:
            of_new.start_round(1, anew=True, edge=new.token)
            of_new.take(1)
            of_new.set(Event.TRAIN_FINISHED, 1)

    if seen == "before it looks":
        succeed()
    else:
        multi = type(runs.redis.pipeline()).multi

        def first(self: object) -> None:
            monkeypatch.undo()
            succeed()
            multi(self)  # type: ignore[arg-type]

        monkeypatch.setattr(type(runs.redis.pipeline()), "multi", first)
    with pytest.raises(LeaseLost, match="'a' was taken over by another process"):
        writes[what]()
    assert events.is_set(Event.TRAIN_FINISHED, 1)
    left = everything(runs.redis)
    assert left[keys.started] == "1"
    assert set(left) == {
        *(keys.hash, keys.lease, keys.started, keys.taken),
        *(keys.event(1, event) for event in (Event.TRAIN_STARTED, Event.TRAIN_FINISHED)),
    }
    assert not {"phase", "doing"} & runs.redis.hgetall(keys.hash).keys()
    events.close()


def test_what_stood_of_a_round_is_removed_as_it_starts(runs: RunStore, url: str) -> None:
    mine = seat(runs, url)
    with contextlib.closing(ClientEvents(url, "r", "a")) as events:
        for event in Event:
            events.set(event, 1)
        events.start_round(1, edge=mine.token)
        assert all(events.is_set(event, 1) for event in Event), "one that is repeated forgets nothing"
        runs.redis.delete(runs.keys.client("a").started)
        events.start_round(1, anew=True, edge=mine.token)
        assert [event for event in Event if events.is_set(event, 1)] == [Event.TRAIN_STARTED]
        assert events.newest_started() == 1


class Lossy(Counting):
    """Loses the answer to the next EXEC, with its connection; `then` is called in between."""

    def __init__(self, target: str, then: Callable[[], object]) -> None:
        self._then, self._loses, self.lost = then, threading.Event(), 0
        super().__init__(target)

    def _pump(self, source: socket.socket, sink: socket.socket, counts: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counts and b"EXEC" in data and self.lost == 0:
                    self._loses.set()
                elif not counts and self._loses.is_set():
                    self._loses.clear()
                    self.lost += 1
                    self._then()
                    self.cut()
                    return
                self.requests += counts
                sink.sendall(data)


def test_a_round_whose_start_is_repeated_keeps_what_the_trainer_set_since(runs: RunStore, url: str) -> None:
    """The answer was lost, and the trainer was faster than the second try; what another run's had set is gone."""
    mine, keys = seat(runs, url), runs.keys.client("a")
    runs.redis.set(keys.event(1, Event.ERROR), "1")

    def train() -> None:
        with contextlib.closing(ClientEvents(url, "r", "a")) as trainer:
            assert trainer.wait_started(0, timeout_s=60) == 1
            trainer.set(Event.TRAIN_FINISHED, 1)

    with contextlib.closing(Lossy(url.removeprefix("unix://"), train)) as way:
        events = ClientEvents(way.url, "r", "a", redis=connect(way.url))
        events.start_round(1, anew=True, edge=mine.token)
        assert way.lost == 1
        assert [event for event in Event if events.is_set(event, 1)] == [Event.TRAIN_STARTED, Event.TRAIN_FINISHED]
        events.close()


def test_a_fenced_write_is_two_round_trips(runs: RunStore, url: str) -> None:
    with contextlib.closing(Counting(url.removeprefix("unix://"))) as way:
        client = connect(way.url)
        mine, events = Membership(client, way.url, runs.keys, "a"), ClientEvents(way.url, "r", "a", redis=client)
        mine.take(ttl_s=60, told=lambda _: None)
        writes: list[Callable[[], object]] = [
            lambda: mine.hand_in(1, update("p")),
            lambda: mine.report(ClientStatus(ClientState.READY)),
            lambda: events.start_round(1, anew=True, edge=mine.token),
        ]
        for write in writes:
            before = way.requests
            write()
            assert way.requests == before + 2
        events.close()
