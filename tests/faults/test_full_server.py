"""A server without room takes no writes, and shows what it has."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from flavor.bus.acl import enroll, revoke, user_name
from flavor.bus.bounds import bounds_warnings
from flavor.bus.connection import connect
from flavor.bus.lease import Lease, LeaseKeeper
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.edge.membership import Membership
from flavor.records.states import ClientState
from tests.conftest import Bench
from tests.faults.servers import REDIS, Server
from tests.polled import eventually


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
        assert Membership(bench.redis, server.url, runs.keys, "c1").answer(1) is None
        for words in (["status", bench.run], ["status", bench.run, "--json"], ["status"], ["log", bench.run]):
            shown = bench.done("flavor", *words)
            assert shown.wait() == 0, (words, shown.stderr)
            assert "trying for" not in shown.stderr, "it waits for nothing"
            assert bench.run in shown.stdout or "round.opened" in shown.stdout
    finally:
        server.close()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "redis", program=REDIS or pytest.skip("redis-server is not installed"))
    yield server
    server.close()


def test_a_lease_is_kept_at_a_server_without_room(full: Server) -> None:
    """So no trainer takes its edge for gone, and no coordinator an edge; another's lease is not taken for ours."""
    lost = threading.Event()
    with connect(full.url, patience_s=0.0) as client, redis.Redis.from_url(full.url, decode_responses=True) as plain:
        lease = Lease(client, "lease", ttl_s=1.5, what="it", announce="heard")
        assert lease.try_acquire()
        keeper = LeaseKeeper(lease, lost=lost.set)
        keeper.start()
        plain.config_set("maxmemory", "1kb")  # an empty server takes about a megabyte
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            plain.set("more", "x")
        heard = plain.pubsub(ignore_subscribe_messages=True)
        heard.subscribe("heard")
        beats, end = 0, time.monotonic() + 60
        while beats < 6 and time.monotonic() < end:  # two of its lifetimes
            beats += heard.get_message(timeout=1.0) is not None
            assert plain.get("lease") == lease.token
        assert (beats, lost.is_set()) == (6, False)
        keeper.stop()
        plain.config_set("maxmemory", "0")
        plain.set("lease", "another's")
        plain.config_set("maxmemory", "1kb")  # an empty server takes about a megabyte
        assert not lease.renew()
        heard.close()


def test_revoking_the_site_that_filled_a_server_gives_it_room_again(full: Server) -> None:
    with connect(full.url, patience_s=5.0) as admin, redis.Redis.from_url(full.url) as plain:
        runs = RunStore(admin, "r", full.url)
        own, other = runs.keys.client("site-1"), runs.keys.client("site-10")
        for keys in (own, other):
            enroll(admin, "r", keys.client, where="here")
            plain.hset(keys.hash, mapping={"state": "ready"})
            plain.set(keys.lease, "its")
        plain.hset(runs.keys.verdicts(1), "site-1", "accepted")
        plain.hset(own.update(1), "path", "p")
        plain.config_set("maxmemory", "40mb")
        for size in (1 << 20, 1000):
            with contextlib.suppress(redis.exceptions.OutOfMemoryError):
                for number in range(10_000):
                    plain.set(f"{own.prefix}:{size}-{number}".encode() + b"\xff", bytes(size))
        with pytest.raises(redis.exceptions.OutOfMemoryError):  # some fit: what connections hold goes up and down
            any(plain.set(f"others-{number}", bytes(1000)) is None for number in range(1000))
        revoke(admin, "r", "site-1", where="here")
        assert [plain.exists(key) for key in (own.lease, own.update(1))] == [0, 0]
        assert plain.keys(f"{own.prefix.replace('{', '[{]')}:*") == []
        assert plain.hget(own.hash, "state") == b"revoked"
        assert (plain.exists(other.lease), plain.hget(other.hash, "state")) == (1, b"ready")
        assert plain.hget(runs.keys.verdicts(1), "site-1") == b"accepted"
        assert plain.info("memory")["used_memory"] < 20 << 20
        plain.set("others", "write again")


def test_what_a_site_asks_for_and_does_not_read_fills_no_server(full: Server) -> None:
    """With the line of docs/deployment.md: answers that wait for a connection count as much as what is stored."""
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
    (share,) = re.findall(r"^maxmemory-clients (\S+)$", page, flags=re.MULTILINE)
    with connect(full.url, patience_s=5.0) as admin, redis.Redis.from_url(full.url) as plain:
        plain.config_set("maxmemory", "100mb")
        (warning,) = bounds_warnings(admin, full.url)
        assert f"CONFIG SET maxmemory-clients {share}" in warning
        plain.config_set("maxmemory-clients", share)
        secret, _ = enroll(admin, "r", "site-1", where="here")
        own = RunStore(admin, "r", full.url).keys.client("site-1").prefix
        at = urlsplit(full.url)
        with socket.create_connection((at.hostname, at.port), timeout=30) as site:
            site.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            site.sendall(packed("AUTH", user_name("r", "site-1"), secret))
            assert site.recv(100) == b"+OK\r\n"
            site.sendall(packed("SET", f"{own}:x", "x" * (8 << 20)))
            assert site.recv(100) == b"+OK\r\n"
            with contextlib.suppress(OSError):  # it is cut off
                site.sendall(packed("GET", f"{own}:x") * 40)
            eventually("it is cut off", lambda: user_name("r", "site-1") not in str(plain.client_list()), 60)
        assert plain.set("another's", "write")


def packed(*words: str) -> bytes:
    """A command, as it goes over the wire."""
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()
