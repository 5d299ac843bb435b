"""A server without room takes no writes, and shows what it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from servers import REDIS, Server

from flavor.bus.state import ClientState
from flavor.config import RunConfig
from flavor.edge.seat import Seat
from tests.conftest import Bench


def test_commands_that_only_read_need_no_room(tmp_path: Path, bench_at: Callable[[str], Bench]) -> None:
    """Redis 7.0 refuses also a transaction that only reads."""
    server = Server(tmp_path / "redis", program=REDIS or pytest.skip("redis-server is not installed"))
    try:
        bench = bench_at(server.url)
        runs, config = bench.runs, RunConfig(rounds=3, store=str(bench.store))
        runs.create(rounds=3, config=config.to_mapping())
        bench.redis.set(runs.keys.coordinator, "token")
        runs.admit("token", "c1", "joined")
        bench.redis.hset(runs.keys.client("c1").hash, mapping={"state": ClientState.READY.value, "protocol": "2"})
        runs.open_round("token", 1, expected=["c1"], timeout_s=60, reason="go")
        bench.redis.hset(runs.keys.client("c1").update(1), mapping={"path": "x", "size": "1"})
        bench.redis.sadd(f"rq:workers:{config.queue}", "rq:worker:killed")
        bench.redis.set("ballast", bytes(2 << 20))
        bench.redis.config_set("maxmemory", "1mb")
        with pytest.raises(redis.exceptions.OutOfMemoryError), redis.Redis.from_url(server.url) as plain:
            plain.set("more", "x")
        assert Seat(bench.redis, server.url, runs.keys, "c1").verdict(1) == {}
        for words in (["status", bench.run], ["status", bench.run, "--json"], ["status"], ["log", bench.run]):
            shown = bench.done("flavor", *words)
            assert shown.wait() == 0, (words, shown.stderr)
            assert "takes no writes" not in shown.stderr
            assert bench.run in shown.stdout or "round.opened" in shown.stdout
    finally:
        server.close()
