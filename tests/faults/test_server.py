"""Rows 23 to 27: a server that dies, is full, or is followed by its replica. Redis's own where it is there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable

import pytest
import redis
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from flavor.records.names import Event
from tests.faults.federation import Faulty
from tests.faults.sentinel import Replicated
from tests.faults.servers import REDIS, Server, tmpfs

LAPSE = ("--heartbeat-timeout-s", 3)
"""Leases lapse while the server is away, and nobody is to be counted as gone for that."""


def test_a_run_outlives_a_server_that_is_killed_again_and_again(on_port, redis_server):
    """Row 23: while an event is being set, after an update was accepted, and after a round was closed."""
    gate, on_port.rounds, bench = on_port.gate("c1"), 4, on_port.bench
    coordinator = on_port.serve()
    aggregator = bench.aggregator()
    edges = on_port.edges(only={"c1": ("--gate", gate.path, "--where", "saved", "--at", 2)})
    gate.reached()
    redis_server.kill()
    gate.open()
    edges["c1"].until(f"flavor: Redis at {bench.url} does not answer; trying for", stream="stdout")  # its trainer
    for process in (coordinator, edges["c1"]):
        process.until(f"flavor: Redis at {bench.url} does not answer; trying for")
    aggregator.until(f"flavor: Redis at {bench.url} does not answer; waiting for it, without limit")
    redis_server.start()
    for process in (coordinator, aggregator, edges["c1"]):
        process.until(f"flavor: Redis at {bench.url} answers again")
    for event, number in (("update.accepted", 3), ("round.closed", 3)):
        bench.logged(event, round=number)
        redis_server.kill()
        redis_server.start()
    on_port.finish(coordinator, edges)


def test_on_a_server_that_was_emptied_the_run_is_told_to_be_gone(faulty):
    """Row 24: while all go on; no edge is told that it is of an earlier release."""
    bench, gates = faulty.bench, {client: faulty.gate(client) for client in faulty.clients}
    coordinator = faulty.serve(*LAPSE)
    bench.aggregator()
    edges = faulty.edges(only={c: ("--gate", g.path, "--at", 2) for c, g in gates.items()})
    for gate in gates.values():
        gate.reached()
    bench.redis.flushall()
    status = bench.done("flavor", "status", bench.run)
    assert status.wait() == 1
    assert f"there is no run {bench.run!r} on Redis at " in status.stderr
    assert coordinator.wait() == 1
    assert "or came back empty or older" in coordinator.stderr.splitlines()[-1]
    for edge in edges.values():
        assert edge.wait() == 1
        assert f"run {bench.run!r} is gone from Redis at {bench.url}, which came back empty" in edge.stderr
    assert not any("protocol" in process.stderr for process in (coordinator, *edges.values()))


def test_a_server_that_comes_back_empty_is_refused_and_the_run_rebuilt_from_the_store(on_port, redis_server):
    """Row 24: in training of the third round; everybody refuses it, a new coordinator too, until `flavor recover`."""
    on_port.rounds, bench = 4, on_port.bench
    gates = {client: on_port.gate(client) for client in on_port.clients}
    coordinator = on_port.serve(*LAPSE)
    bench.aggregator()
    edges = on_port.edges(only={c: ("--gate", g.path, "--at", 3) for c, g in gates.items()})
    for gate in gates.values():
        gate.reached()
    redis_server.kill()
    shutil.rmtree(redis_server.folder)
    redis_server.folder.mkdir()
    redis_server.start()
    for gate in gates.values():
        gate.open()
    again = on_port.serve()
    for refusal in (coordinator, again):
        assert refusal.wait() == 1
        last = refusal.stderr.splitlines()[-1]
        assert "has 2 closed rounds in the store" in last
        assert f"`flavor recover --run {bench.run}`" in last
    for edge in edges.values():
        assert edge.wait() == 1
        assert f"run '{bench.run}' is gone from Redis" in edge.stderr.splitlines()[-1]
    assert not bench.redis.exists(bench.runs.keys.state, bench.runs.keys.log), "nothing was begun anew"
    recovered = bench.done("flavor", "recover", "--run", bench.run, "--store", bench.store, "--untrusted")
    assert recovered.wait() == 0, recovered.stderr
    coordinator = on_port.serve(*LAPSE)
    on_port.finish(coordinator, on_port.edges())
    assert on_port.history().closed() == [3, 4]
    checked = bench.done("flavor", "verify", bench.run, "--store", bench.store, "--json")
    assert checked.wait() == 0, checked.stderr
    found = json.loads(checked.stdout)
    assert (found["closed"], found["problems"]) == (4, []), "of the rounds before, by the store alone"


def outlasts(
    faulty: Faulty, refuse: Callable[[], None], relieve: Callable[[], None], words: str, *, all_writes: bool
) -> None:
    """A run whose server refuses writes for a while: who is refused says so, waits, and goes on.

    That is everybody where `all_writes` are refused, and else the trainers: renewing a lease needs no memory.
    """
    bench = faulty.bench
    gates = [faulty.gate(client) for client in faulty.clients]
    flags = {c: ("--gate", g.path, "--where", "saved", "--at", 2) for c, g in zip(faulty.clients, gates, strict=True)}
    coordinator = faulty.serve(*LAPSE)
    aggregator = bench.aggregator()
    edges = faulty.edges(only=flags)
    for gate in gates:
        gate.reached()
    refuse()
    with contextlib.closing(redis.Redis.from_url(bench.url)) as plain:

        def refused() -> bool:
            try:
                plain.set("test:probe", "x" * 10_000)
            except redis.exceptions.ResponseError as error:
                return words in str(error)
            return False

        bench.eventually("writes are refused", refused)
    for gate in gates:
        gate.open()  # the trainers set TrainFinished now
    line = f"flavor: Redis at {bench.url} takes no writes ("
    for edge in edges.values():
        edge.until(line, stream="stdout")  # its trainer
    for process in (coordinator, *edges.values()) if all_writes else ():
        process.until(line)
    other = ["--run", f"{bench.run}-other", "--rounds", 1, "--store", bench.store, "--patience-s", 1]
    impatient = bench.done("flavor", "serve", *other)
    assert impatient.wait() == 3, impatient.stderr
    assert f"Error: Redis at {bench.url}: " in impatient.stderr.splitlines()[-1]
    assert words in impatient.stderr.splitlines()[-1]
    if all_writes:
        keys = bench.runs.keys
        leases = keys.coordinator, *(keys.client(client).lease for client in faulty.clients)
        bench.eventually("the leases have lapsed", lambda: not bench.redis.exists(*leases))
    for arguments in ([bench.run], []):
        status = bench.done("flavor", "status", *arguments)
        assert status.wait() == 0, status.stderr
        told = status.stdout + status.stderr
        assert "Redis takes no writes: " in told
        assert not any(each in told for each in ("flavor serve", "heartbeat stopped", "flavor-agg", "gone")), told
    assert all(process.running for process in (coordinator, aggregator, *edges.values()))
    relieve()
    faulty.finish(coordinator, edges)
    for edge in edges.values():
        assert f"flavor: Redis at {bench.url} takes writes again" in edge.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system needs root to mount it")
def test_a_run_outlasts_a_full_disk_of_its_server(tmp_path, bench_at):
    """Row 25: the server's AOF lies on 4 MB, which something else fills; it refuses writes until there is space."""
    with tmpfs(tmp_path / "redis", "4m") as small:
        server = Server(small, "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0", program=REDIS)
        filler = small / "filler"

        def fill() -> None:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)

        try:
            outlasts(
                Faulty(bench_at(server.url)), fill, filler.unlink, "Errors writing to the AOF file", all_writes=True
            )
        finally:
            server.close()


def test_a_run_outlasts_a_server_that_reached_maxmemory(on_port):
    """Row 26: with noeviction it refuses whatever needs memory, until it is given some."""
    admin = on_port.bench.redis
    admin.config_set("maxmemory-policy", "noeviction")
    less = lambda: admin.config_set("maxmemory", "1kb")  # noqa: E731 - it takes about a megabyte when it is empty
    more = lambda: admin.config_set("maxmemory", "0")  # noqa: E731
    outlasts(on_port, less, more, "used memory > 'maxmemory'", all_writes=False)


@pytest.fixture
def replicated(tmp_path):
    servers = Replicated(tmp_path)
    yield servers
    servers.close()


def test_a_run_goes_on_at_the_replica_that_sentinel_promotes(replicated, bench_at):
    """Row 27: the primary is killed in training, while its replica has everything; nothing is lost."""
    faulty = Faulty(bench_at(replicated.proxy.url))
    gate, bench = faulty.gate("c1"), faulty.bench
    coordinator = faulty.serve(*LAPSE)
    bench.aggregator()
    edges = faulty.edges(only={"c1": ("--gate", gate.path, "--at", 2)})
    gate.reached()
    bench.logged("update.accepted", client="c2", round=2)
    replicated.catch_up()
    replicated.fail_over()
    replicated.lead()
    gate.open()
    faulty.finish(coordinator, edges)


def test_what_a_replica_that_lags_has_lost_is_handed_in_again(replicated, bench_at):
    """Row 27: TrainFinished, the update and its verdict are acknowledged, and unknown to the replica that follows."""
    faulty = Faulty(bench_at(replicated.proxy.url))
    bench, gates = faulty.bench, {client: faulty.gate(client) for client in faulty.clients}
    coordinator = faulty.serve(*LAPSE)
    bench.aggregator()
    edges = faulty.edges(only={c: ("--gate", g.path, "--where", "saved", "--at", 2) for c, g in gates.items()})
    for gate in gates.values():
        gate.reached()
    replicated.catch_up()
    replicated.lag()
    gates["c1"].open()
    bench.logged("update.accepted", client="c1", round=2)
    replicated.fail_over()
    keys = bench.runs.keys.client("c1")
    with contextlib.closing(redis.Redis(port=replicated.replica.port)) as promoted:
        assert promoted.exists(bench.runs.keys.log), "the run was there before the replica lagged"
        assert not promoted.exists(keys.update(2), keys.event(2, Event.TRAIN_FINISHED))
    replicated.lead()
    bench.logged("update.accepted", client="c1", round=2)
    gates["c2"].open()
    faulty.finish(coordinator, edges)
    assert "has forgotten the update of round 2: handing it in again" in edges["c1"].stderr


def test_a_process_ends_on_a_signal_also_while_the_server_stands_still(on_port, redis_server):
    """Row 54: coordinator, edges and an aggregator; the server keeps their connections open."""
    gate, bench = on_port.gate("c1"), on_port.bench
    coordinator = on_port.serve("--out", bench.folder / "results")
    aggregator = bench.aggregator()
    edges = on_port.edges(only=dict.fromkeys(on_port.clients, ("--gate", gate.path, "--at", 2)))
    gate.reached()
    os.kill(redis_server.process.pid, signal.SIGSTOP)
    try:
        coordinator.until("has given a request no answer")
        for process in (coordinator, aggregator, *edges.values()):
            process.send(signal.SIGTERM)
        assert [edge.wait(15) for edge in edges.values()] == [143, 143]
        assert (coordinator.wait(15), aggregator.wait(15)) == (143, 0)
    finally:
        os.kill(redis_server.process.pid, signal.SIGCONT)
    gate.open()


def test_programs_give_up_a_server_that_stands_still(on_port, redis_server):
    """Row 54: after `--patience-s`; a command that only looks gives it up after five seconds, and says what it does.

    An aggregator, which serves many runs, waits without limit, and says so.
    """
    bench = on_port.bench
    patience = {"FLAVOR_PATIENCE_S": "6"}
    coordinator = on_port.serve(env=patience)
    aggregator, edges = bench.aggregator(env=patience), on_port.edges(env=patience)
    coordinator.until("2 clients")
    bench.eventually("registered", lambda: bench.redis.scard(WORKERS_BY_QUEUE_KEY % bench.run))
    os.kill(redis_server.process.pid, signal.SIGSTOP)
    try:
        status = bench.start("flavor", "status", bench.run)
        status.until("has given a request no answer for 2 s; waiting for it for 3 s more")
        assert status.wait(30) == 3
        assert "answers nothing" in status.stderr
        assert [each.wait(60) for each in (coordinator, *edges.values())] == [3, 3, 3]
        aggregator.until(f"Redis at {bench.url} does not answer; waiting for it, without limit")
    finally:
        os.kill(redis_server.process.pid, signal.SIGCONT)
    aggregator.until(f"Redis at {bench.url} answers again")
    assert aggregator.stderr.count("waiting for it, without") == 1
    assert " s more" not in aggregator.stderr, "as it waits without limit"
    on_port.finish(on_port.serve(), on_port.edges())


def test_programs_wait_once_for_a_server_that_is_away_and_then_end(on_port, redis_server):
    """Row 23: what they do at their end, such as giving leases up, and their last results, does not wait anew."""
    bench, patience = on_port.bench, {"FLAVOR_PATIENCE_S": "7"}
    coordinator = on_port.serve("--out", bench.folder / "results", env=patience)
    aggregator, edges = bench.aggregator(env=patience), on_port.edges(env=patience)
    coordinator.until("2 clients")
    bench.eventually("registered", lambda: bench.redis.scard(WORKERS_BY_QUEUE_KEY % bench.run))
    redis_server.kill()
    assert [each.wait(60) for each in (coordinator, *edges.values())] == [3, 3, 3]
    for each in (coordinator, *edges.values()):
        left = [int(seconds) for seconds in re.findall(r"trying for (\d+) s more", each.stderr)]
        assert left
        assert left == sorted(left, reverse=True), "it waited for one outage more than once"
    aggregator.until("does not answer; waiting for it, without limit")
    redis_server.start()
    aggregator.until(f"Redis at {bench.url} answers again")
    assert "trying for" not in aggregator.stderr
    on_port.finish(on_port.serve(), on_port.edges())
