"""What an edge makes of what it reads, when the publication of it was lost, or is about an earlier try."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flavor.bus.connection import connect
from flavor.bus.events import ClientEvents
from flavor.bus.runs import RunStore, late
from flavor.bus.subscription import RESYNC
from flavor.edge.agent import Edge
from flavor.edge.config import EdgeConfig
from flavor.edge.notice import Died, Failure
from flavor.ledger.keys import SigningKey
from flavor.records.names import Event
from flavor.records.states import Verdict

TOKEN = "coordinator"


class NoFiles:
    """An edge's files, of which there are none."""

    def has_local(self) -> bool:
        return False

    def release_local(self) -> None:
        pass


@pytest.fixture
def runs(url: str) -> Iterator[RunStore]:
    """A run in its first round."""
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    runs.create(rounds=3, config={})
    redis.set(runs.keys.coordinator, TOKEN)
    runs.open_round(TOKEN, 1, expected=["a"], timeout_s=600, reason="")
    yield runs
    redis.close()


@pytest.fixture
def edge(runs: RunStore, url: str, tmp_path: Path) -> Iterator[Callable[[], Edge]]:
    """A process of client `a` after another: each has its seat."""
    edges: list[Edge] = []

    def started() -> Edge:
        for before in edges:
            before._seat.leave(announce=False)
        config = EdgeConfig(run="r", client="a", redis_url=url, command=("true",), workspace=tmp_path)
        told: list[str] = []
        edge = Edge(config, tell=told.append)
        edge.told = told  # type: ignore[attr-defined]
        edge._seat.take(ttl_s=60, told=told.append)
        edge._exchange = NoFiles()  # type: ignore[assignment]
        edge._incarnation, edge._rounds = runs.read().incarnation, 3
        edge._key = SigningKey.load_or_create(tmp_path / "key", "a")
        edges[:] = [edge]
        return edge

    yield started
    for left in edges:
        left._seat.leave(announce=False)


def test_an_edge_that_is_started_again_awaits_the_verdict_on_its_new_try(
    runs: RunStore, edge: Callable[[], Edge]
) -> None:
    edge()._hand_in(1, {"path": "x", "digest": "1", "try": "t1"})
    runs.judge(1, "a", Verdict(False, "tensor 'w' has NaN", try_id="t1"))

    second = edge()
    second._forget_past(runs.read())
    assert not runs.updates(1, ["a"]), "it is trained again"
    second._hand_in(1, {"path": "y", "digest": "2", "try": "t2"})
    second._read_verdict(1)
    assert second._unjudged == 1
    assert len(second.told) == 1, second.told  # type: ignore[attr-defined]  # that of the first try, as it started

    third = edge()
    third._forget_past(runs.read())
    assert runs.updates(1, ["a"])["a"]["try"] == "t2", "which nobody has inspected"
    assert third._unjudged == 1
    runs.judge(1, "a", Verdict(False, "tensor 'w' has inf", try_id="t2"))
    third._read_verdict(1)
    assert third._unjudged == 0
    again = "once that is mended start this again, and it trains round 1 again while that is open"
    assert third.told == [f"round 1: the update was refused: tensor 'w' has inf; {again}"]  # type: ignore[attr-defined]
    third._hand_in(1, {"refused": "its checkpoint cannot be used", "try": "t3"})
    third._refused = 0
    runs.judge(1, "a", Verdict(False, "its checkpoint cannot be used", try_id="t3"))
    third._read_verdict(1)
    assert third.told[1:] == [f"round 1: {again}"], "why was told when it was found"  # type: ignore[attr-defined]


def test_an_update_that_was_too_late_is_not_tried_again(runs: RunStore, edge: Callable[[], Edge]) -> None:
    one = edge()
    one._hand_in(1, {"path": "x", "digest": "1", "try": "t1"})
    runs.judge(1, "a", late(1, "t1"))
    one._read_verdict(1)
    assert one.told == ["round 1: the update was refused: late: round 1 no longer takes updates"]  # type: ignore[attr-defined]
    assert one._refused == 0


@pytest.mark.parametrize("round_", [0, 1])
def test_the_event_error_is_read_where_its_publication_was_lost(
    runs: RunStore, edge: Callable[[], Edge], url: str, round_: int
) -> None:
    site = edge()
    site._forget_past(runs.read())
    site._ready, site._training, site._newest = bool(round_), round_, 1
    if round_:
        site._events.start_round(1, anew=True)
    trainer = ClientEvents(url, "r", "a")
    trainer.set(Event.ERROR, round_)
    trainer.close()
    with pytest.raises(Died, match="set the event Error") as died:
        site._news((RESYNC,))
    assert died.value.notice.failure is Failure.ERROR_EVENT


def test_the_event_error_of_an_earlier_process_s_trainer_ends_nobody(runs: RunStore, edge: Callable[[], Edge]) -> None:
    first = edge()
    first._hand_in(1, {"path": "x", "digest": "1", "try": "t1"})
    first._events.set(Event.ERROR, 1)
    second = edge()
    second._forget_past(runs.read())
    assert second._behind == 1
    assert not second._news((RESYNC,))
