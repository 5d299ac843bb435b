"""A coordinator in a thread of its program, which averages the rounds itself; the test is its sites and its worker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from flavor.bus.claim import Attempt
from flavor.bus.connection import Redis, connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.round_server import Aggregator, RoundServer
from flavor.errors import UpdatesRefused
from flavor.protocol import SPEAKS
from flavor.records.round import RoundView
from flavor.records.states import RoundState
from flavor.records.update import Update
from flavor.records.verdict import Verdict
from flavor.store.open import open_store
from flavor.view.observer import Silent
from tests.polled import eventually

LONG_S = 30.0


class Accepting:
    """Accepts every update."""

    def __init__(self, redis: Redis, url: str) -> None:
        self._redis, self._url = redis, url

    def inspect(self, run: str, round_: int, clients: Sequence[str]) -> None:
        runs = RunStore(self._redis, run, self._url)
        for client, update in runs.updates(round_, clients).items():
            assert isinstance(update, Update)
            runs.judge(round_, client, Verdict(True, "good", update, try_id=update.try_id))

    def attempt(self, runs: RunStore, round_: int, number: int, lease_s: float) -> Attempt:
        return Attempt.of(runs, round_, number, lease_s, worker="w")


class Sites:
    """The sites `a` and `b` of the run `r`."""

    def __init__(self, runs: RunStore) -> None:
        self.runs = runs

    def until(self, what: str, look: Callable[[], object]) -> None:
        eventually(what, look, LONG_S, pause_s=0.01)

    def join(self) -> None:
        self.until("there is a run", lambda: self.runs.find() is not None)
        for client in "ab":
            keys = self.runs.keys.client(client)
            self.runs.redis.set(keys.lease, "x")
            self.runs.redis.hset(keys.hash, mapping={"state": "ready", **SPEAKS, "round": "0"})
            self.runs.redis.publish(keys.state, "ready")
        self.until("round 1 is open", lambda: self.runs.read_round(1) is not None)

    def hand_in(self, client: str, try_id: str) -> None:
        key = self.runs.keys.client(client).update(1)
        path = f"runs/r/clients/{client}/0001-update-{try_id}"
        fields = {"path": path, "digest": "d", "size": "12", "info_path": f"{path}-info", "try": try_id}
        self.runs.redis.hset(key, mapping=fields)
        self.runs.redis.publish(key, "1")


@pytest.fixture
def server(url: str, tmp_path: Path) -> Iterator[RoundServer]:
    connect(url).flushall()
    store = open_store(str(tmp_path / "store"), create=True)
    config = RunConfig(rounds=1, min_clients=2, on_quorum_lost="wait", heartbeat_timeout_s=60, store=store.url)
    server = RoundServer(
        "r",
        config,
        redis_url=url,
        store=store,
        observer=Silent(),
        aggregator=lambda redis: cast(Aggregator, Accepting(redis, url)),
    )
    yield server
    server.close()


def waited(server: RoundServer) -> RoundView:
    """The round that `wait` returns."""
    found: queue.SimpleQueue[RoundView | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: found.put(server.wait(1)), daemon=True).start()
    view = found.get(timeout=LONG_S)
    assert view is not None
    return view


def test_a_round_that_was_returned_comes_again_with_its_next_updates(server: RoundServer) -> None:
    sites = Sites(server.runs)
    sites.join()
    for client in "ab":
        sites.hand_in(client, "1")
    first = waited(server)
    server.refuse(1, UpdatesRefused({"b": "it does not go with the others"}))

    def is_open_without_b() -> bool:
        view = server.runs.read_round(1)
        return view is not None and view.state is RoundState.OPEN and not view.verdicts["b"].accepted

    sites.until("the round is open again", is_open_without_b)
    sites.hand_in("b", "2")
    second = waited(server)
    assert (first.attempt, second.attempt) == (1, 1), "attempts count from 1 again"
    assert second.contributors == ("a", "b")
    assert second.verdicts["b"].try_id == "2"
    server.refuse(1, UpdatesRefused({"a": "neither does this one"}))  # the attempt is this process's
