"""A coordinator that comes back gives its clients the time to come back too."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.loop import Coordinator
from flavor.protocol import SPEAKS
from flavor.records.states import ClientState, RunState
from flavor.stamp import without_stamp
from flavor.store.open import open_store
from flavor.view.observer import Lines
from tests.conftest import Bench

HEARTBEAT_S = 1.5


@pytest.fixture
def url() -> Iterator[str]:
    with embedded_server() as url:
        yield url


def interrupted(url: str, config: RunConfig) -> RunStore:
    """A run in its first round, whose coordinator and whose only edge were both stopped."""
    runs = RunStore(connect(url), "r", url)
    runs.create(rounds=1, config=config.to_mapping())
    runs.redis.hset(
        runs.keys.client("a").hash, mapping={**SPEAKS, "state": ClientState.FAILED, "reason": "its edge was stopped"}
    )
    runs.redis.set(runs.keys.coordinator, "old")
    runs.admit("old", "a", "")
    runs.open_round("old", 1, expected=["a"], timeout_s=60, reason="")
    runs.redis.delete(runs.keys.coordinator)
    return runs


def coordinator(url: str, config: RunConfig, told: list[str]) -> Coordinator:
    return Coordinator("r", config, redis_url=url, store=open_store(config.store), observer=Lines(told.append))


def test_it_fails_the_run_only_when_they_did_not_come_back(url: str, tmp_path: Path) -> None:
    config = RunConfig(rounds=1, store=f"file://{tmp_path}", heartbeat_timeout_s=HEARTBEAT_S)
    interrupted(url, config)
    told: list[str] = []
    began = time.monotonic()
    view = coordinator(url, config, told).run()
    assert time.monotonic() - began >= HEARTBEAT_S
    assert view.state is RunState.FAILED
    assert "its edge was stopped" in view.reason
    assert sum(line.startswith("waiting:") for line in told) == 1


def test_one_that_is_stopped_says_how_its_run_goes_on_and_another_goes_on_at_once(bench: Bench) -> None:
    """Its lease of an hour is not waited for, and nothing ends: neither the round nor its edge."""
    lease = ("--heartbeat-timeout-s", 3600, "--on-quorum-lost", "wait")
    first = bench.serve(*lease, rounds=1, clients=1)
    edge = bench.edge("c1", bench.trainer("--hold", "--at", 1))
    bench.held("c1")
    first.send(signal.SIGTERM)
    assert first.wait() == 143, first.stderr
    said = [without_stamp(line) for line in first.stderr.splitlines()[-2:]]
    assert said[0] == (
        f"[coordinator] stopped: `flavor serve` with the same options goes on with run {bench.run!r}, "
        f"`flavor stop {bench.run}` ends it"
    )
    assert said[1] == "flavor: terminated"
    assert bench.runs.read().state is RunState.RUNNING
    second = bench.serve(*lease, rounds=1, clients=1)
    bench.aggregator()
    second.until("goes on from round 1")
    bench.release("c1")
    assert [second.wait(), edge.wait()] == [0, 0], second.stderr
    assert bench.runs.read_round(1).contributors == ("c1",)


def test_it_takes_the_update_of_one_that_did(url: str, tmp_path: Path) -> None:
    config = RunConfig(rounds=1, store=f"file://{tmp_path}", heartbeat_timeout_s=HEARTBEAT_S)
    runs = interrupted(url, config)
    thread = threading.Thread(target=coordinator(url, config, []).run, daemon=True)
    thread.start()
    time.sleep(HEARTBEAT_S / 3)
    client = runs.keys.client("a")
    runs.redis.set(client.lease, "host:1:x", px=60_000)
    runs.redis.hset(client.hash, mapping={**SPEAKS, "state": ClientState.READY, "reason": ""})
    runs.redis.publish(client.state, "ready")
    time.sleep(HEARTBEAT_S)
    assert runs.read().state is RunState.RUNNING
    runs.redis.hset(client.update(1), mapping={"refused": json.dumps("none")})
    runs.redis.publish(client.update(1), "1")
    thread.join(10)
    assert not thread.is_alive()
    assert runs.read().state is RunState.FAILED
