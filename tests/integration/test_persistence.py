"""What a coordinator says about a server that forgets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flavor.bus.connection import Redis, connect
from flavor.bus.embedded import embedded_server
from flavor.bus.persistence import persistence_warnings
from tests.conftest import Bench

TURN_ON = "`redis-cli CONFIG SET appendonly yes`"


@pytest.fixture
def redis() -> Iterator[tuple[Redis, str]]:
    with embedded_server() as url, connect(url) as client:
        yield client, url


def test_a_server_that_keeps_nothing(redis: tuple[Redis, str]) -> None:
    (line,) = persistence_warnings(*redis)
    assert "keeps nothing on disk" in line
    assert TURN_ON in line
    assert "`redis-cli CONFIG REWRITE`" in line
    assert "\n" not in line


def test_a_server_that_keeps_snapshots_only(redis: tuple[Redis, str]) -> None:
    redis[0].config_set("save", "3600 1 300 100")
    (line,) = persistence_warnings(*redis)
    assert "only snapshots (3600 1 300 100)" in line
    assert TURN_ON in line


def test_a_server_that_keeps_everything(redis: tuple[Redis, str]) -> None:
    redis[0].config_set("appendonly", "yes")
    assert persistence_warnings(*redis) == []


def test_a_server_that_evicts(redis: tuple[Redis, str]) -> None:
    redis[0].config_set("appendonly", "yes")
    redis[0].config_set("maxmemory-policy", "allkeys-lru")
    (line,) = persistence_warnings(*redis)
    assert "maxmemory-policy allkeys-lru" in line
    assert "`redis-cli CONFIG SET maxmemory-policy noeviction`" in line


def test_what_cannot_be_told_is_not_said(redis: tuple[Redis, str]) -> None:
    client, url = redis
    client.execute_command("ACL", "SETUSER", "ops", "on", ">secret", "~*", "&*", "+@all", "-config")
    with connect(url.replace("unix://", "unix://ops:secret@")) as limited:
        (line,) = persistence_warnings(limited, url)
        assert "keeps no append-only file" in line  # whether it takes snapshots it does not tell
        client.execute_command("ACL", "SETUSER", "ops", "-info")
        assert persistence_warnings(limited, url) == []
        assert "secret" not in line


def test_serve_says_it_once_before_the_run_is_open(bench: Bench) -> None:
    coordinator = bench.serve(rounds=1, clients=1)
    coordinator.until("is open for clients")
    before, _, _ = coordinator.stderr.partition("is open for clients")
    assert before.count("keeps nothing on disk") == 1
