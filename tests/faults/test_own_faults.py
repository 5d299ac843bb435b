"""Rows 40, 41, 45 and 49: an aggregator that is signalled or killed, or that its machine, store or a site lets down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flavor.local.processes import ProcessGroup
from tests.faults.federation import KEEP, TAKEN_OVER, Faulty
from tests.faults.servers import filled, tmpfs

ROOT = Path(__file__).parents[2]
needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a tmpfs")


def test_a_signal_at_any_moment_ends_a_worker_soon_and_loses_no_job():
    """Row 40: forty times; `python benchmarks/signals.py` does so 500 times."""
    script = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "signals.py"), "40", "--seed", str(os.getpid())],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        text=True,
        timeout=240,
    )
    assert script.returncode == 0, script.stderr
    found = json.loads(script.stdout)
    assert (found["lost"], found["between"], found["dropped"], found["failed"]) == (0, 0, 0, 0), found
    assert set(found["exit_codes"]) <= {"0", "-15"}, found  # the latter before its own first line
    assert found["exit_codes"].get("0"), found
    assert found["longest_s"] < 10, found


def test_a_signal_ends_a_worker_whose_server_is_away(on_port, redis_server):
    """Row 40: it would wait for a minute, or for ever."""
    aggregator = on_port.bench.aggregator()
    aggregator.until("listens on queue")
    redis_server.kill()
    aggregator.until("does not answer")
    aggregator.send(signal.SIGTERM)
    assert aggregator.wait(15) == 0


def test_a_worker_that_is_killed_is_started_again_and_takes_its_own_place(faulty):
    bench = faulty.bench
    coordinator = faulty.serve(*TAKEN_OVER)
    aggregator = bench.aggregator()
    aggregator.until("listens on queue")
    (child,) = (int(pid) for pid in Path(f"/proc/{aggregator.pid}/task/{aggregator.pid}/children").read_text().split())
    os.kill(child, signal.SIGBUS)
    aggregator.until("killed by SIGBUS: it is started again in 1 s")
    edges = faulty.edges()
    faulty.finish(coordinator, edges)
    assert bench.redis.scard(f"rq:workers:{bench.run}") == 1
    aggregator.send(signal.SIGTERM)
    assert aggregator.wait() == 0


def test_a_share_that_is_not_mounted_is_no_sites_fault(faulty):
    """Row 41: an empty folder; the work goes back, and who has the share does it."""
    bench = faulty.bench
    coordinator = faulty.serve(*TAKEN_OVER, "--round-timeout-s", 60)
    unmounted = bench.start("flavor-agg", "--queue", bench.run, "--store", bench.folder / "empty")
    edges = faulty.edges()
    unmounted.until("goes back into the queue, and it takes none of it for now: the store file://")
    coordinator.until("every aggregator on queue")
    bench.aggregator()
    faulty.finish(coordinator, edges)
    assert not [entry for entry in bench.log() if entry["event"] in ("update.refused", "round.attempt_failed")]
    assert f"does not have runs/{bench.run}/run.json" in unmounted.stderr


def test_runs_with_stores_of_their_own_share_a_queue(faulty, bench_at):
    """Row 41: each aggregator has the store of one run, and gives the other's work back without resting itself."""
    ours, others = faulty, Faulty(bench_at(faulty.bench.url))
    queue = ("--queue", ours.bench.run)
    ours.rounds = others.rounds = 8
    coordinators = {each: each.serve(*queue, "--on-quorum-lost", "wait") for each in (ours, others)}
    aggregators = {each: each.bench.aggregator(*queue) for each in (ours, others)}
    for aggregator in aggregators.values():
        aggregator.until("listens on queue")
    edges = {each: each.edges() for each in (ours, others)}
    for each, coordinator in coordinators.items():
        each.finish(coordinator, edges[each])
    for aggregator in aggregators.values():
        assert "it takes none for now" not in aggregator.stderr
        assert aggregator.stderr.count("it takes none of it for now") <= 1


@needs_mounts
def test_a_cache_on_a_full_disk_is_no_sites_fault(faulty, s3):
    """Row 41: of a bucket; it works again once there is room."""
    bench, store = faulty.bench, f"s3://{s3.bucket()}/runs"
    with tmpfs(bench.folder / "small", "1m") as small:

        def machine(cache: Path) -> dict[str, str]:
            return {**s3.environment(), "FLAVOR_STORE": store, "FLAVOR_STORE_CACHE": str(cache)}

        words = ["--run", bench.run, "--rounds", 3, "--min-clients", 2, "--queue", bench.run, *KEEP, *TAKEN_OVER]
        coordinator = bench.start("flavor", "serve", *words, env=machine(bench.folder / "serve"))
        aggregator = bench.start("flavor-agg", "--queue", bench.run, env=machine(small / "cache"))
        aggregator.until("listens on queue")
        ballast = filled(small)
        edges = {c: bench.edge(c, bench.trainer(), env=machine(bench.folder / f"cache-{c}")) for c in faulty.clients}
        aggregator.until("it takes none for now: ")
        assert "small has 0 B: free some space there, or name a folder on another disk" in aggregator.stderr
        ballast.unlink()
        assert coordinator.wait(60) == 0, coordinator.stderr
        assert [edge.wait() for edge in edges.values()] == [0, 0]
    assert not [entry for entry in bench.log() if entry["event"] in ("update.refused", "round.attempt_failed")]


@needs_mounts
def test_a_store_without_room_is_waited_for(faulty):
    """Row 45: it is full when the round is aggregated, which costs no attempt; then there is room again."""
    bench = faulty.bench
    with tmpfs(bench.store, "1m") as store:
        coordinator = faulty.serve(*TAKEN_OVER)
        aggregator = bench.aggregator()
        aggregator.until("listens on queue")
        edges = faulty.edges("--hold", "--at", 2)
        bench.held("c1")
        bench.held("c2")
        aggregator.send(signal.SIGSTOP)
        bench.release("c1", "c2")
        for client in faulty.clients:
            update = bench.runs.keys.client(client).update(2)
            bench.eventually(f"{client} has handed in", lambda update=update: bench.redis.exists(update))
        ballast = filled(store)
        aggregator.send(signal.SIGCONT)
        assert "No space left on device" in bench.logged("round.given_back", round=2)["reason"]
        ballast.unlink()
        faulty.finish(coordinator, edges)
        assert [bench.runs.read_round(n).attempt for n in (1, 2, 3)] == [1, 1, 1]


@needs_mounts
def test_a_store_without_room_is_waited_for_by_edges_too(faulty):
    """Row 45: it is full when they hand in, which ends neither edge nor trainer; then there is room again."""
    bench = faulty.bench
    with tmpfs(bench.store, "1m") as store:
        coordinator = faulty.serve()
        bench.aggregator()
        edges = faulty.edges("--hold", "--at", 2)
        bench.held("c1")
        bench.held("c2")
        ballast = filled(store)
        bench.release("c1", "c2")
        for edge in edges.values():
            edge.until("waiting for room, for at most")
        ballast.unlink()
        faulty.finish(coordinator, edges)
    assert not [entry for entry in bench.log() if entry["event"] in ("update.refused", "client.lost", "client.failed")]


def test_a_site_that_cuts_off_its_files_is_alone_with_that(bench_at, own_url):
    """Row 49: before, while and after they are inspected, and once more through what it kept open."""
    faulty = Faulty(bench_at(own_url), clients=("c1", "c2", "c3"))
    bench, ended, kept = faulty.bench, threading.Event(), {}

    def cut_off() -> None:
        while not ended.wait(0.001):
            for path in bench.store.rglob("*update*"):
                if "c3" in path.parts and path not in kept:
                    path.chmod(0o644)
                    kept[path] = os.open(path, os.O_RDWR)
                    os.ftruncate(kept[path], 1_000_000)

    coordinator = faulty.serve(*TAKEN_OVER, "--quorum", 2)
    aggregator = bench.aggregator()
    hostile = threading.Thread(target=cut_off)
    hostile.start()
    try:
        edges = faulty.edges("--elements", 1_000_000)
        assert coordinator.wait(60) == 0, coordinator.stderr
    finally:
        ended.set()
        hostile.join()
        for handle in kept.values():
            os.close(handle)
    assert [edges[client].wait() for client in ("c1", "c2")] == [0, 0]
    assert kept
    assert "started again" not in aggregator.stderr
    faulty.history().check(rounds=3)
    assert all({"c1", "c2"} <= set(bench.runs.read_round(n).contributors) for n in (1, 2, 3))


def test_a_worker_whose_rights_are_taken_away_says_so_and_ends(own_url, bench_at):
    """Of another server's user or none: nothing that it could wait for."""
    bench = bench_at(own_url)
    bench.redis.execute_command("ACL", "SETUSER", "agg", "on", ">secret", "~*", "&*", "+@all")
    url = own_url.replace("unix://", "unix://agg:secret@")
    aggregator = bench.aggregator("--redis-url", url)
    aggregator.until("listens on queue")
    bench.redis.execute_command("ACL", "SETUSER", "agg", "-@all", "+ping", "+client")
    assert aggregator.wait() == 3
    assert "NOPERM" in aggregator.stderr.splitlines()[-1] or "no permissions" in aggregator.stderr.splitlines()[-1]
    assert "Traceback" not in aggregator.stderr


def test_a_place_that_cannot_be_used_is_found_at_the_start(bench):
    """A workspace, a cache or a store below what is a file."""
    (bench.folder / "file").touch()
    below = bench.folder / "file" / "x"
    for options in (["-m", "true", "--workspace", below], ["--store", below]):
        done = bench.done("flavor-agg", "--store", bench.store, *options)
        assert done.wait() == 2, options
        assert str(below) in done.stderr.splitlines()[-1]
    cache = {"FLAVOR_STORE_CACHE": str(below), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    done = bench.done("flavor-agg", "--store", "s3://bucket/x", env=cache)
    assert (done.wait(), str(below) in done.stderr.splitlines()[-1]) == (2, True)


def test_a_log_on_a_full_disk_ends_nothing(faulty):
    """Each line that a program says finds no room; what it says last neither, and its exit code is right."""
    bench = faulty.bench
    full = ("sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    words = ["--run", bench.run, "--store", bench.store, "--queue", bench.run, *KEEP]
    coordinator = bench.start("flavor", "serve", *words, "--rounds", 3, "--min-clients", 2, under=full)
    aggregator = bench.start("flavor-agg", "--queue", bench.run, "--store", bench.store, under=full)
    edges = {client: bench.edge(client, bench.trainer(), under=full) for client in faulty.clients}
    faulty.finish(coordinator, edges)
    aggregator.send(signal.SIGTERM)
    assert aggregator.wait() == 0
    assert bench.done("flavor", "serve", *words, "--rounds", 0, under=full).wait() == 2


@needs_mounts
def test_a_local_run_says_that_its_redis_has_no_room(bench):
    """Its processes' notes and logs lie on the same full disk. Its trainers train on, and write nothing there."""
    gate = bench.folder / "gate"
    os.mkfifo(gate)
    with tmpfs(bench.folder / "small", "4m") as small:
        out = small / "out"
        trainer = bench.trainer("--gate", gate, "--at", 2)
        words = ["-m", trainer, "--edges", 2, "--rounds", 5000, "--heartbeat-timeout-s", 2, "--out", out]
        run = bench.start("flavor", "run", *words, env={"FLAVOR_REDIS_URL": ""})
        run.until("round 1/5000")
        ballast = filled(small)
        run.until("Redis takes no writes: it cannot write its append-only file, as its disk is full or broken")
        ballast.unlink()
        run.send(signal.SIGINT)
        assert run.wait(60) == 130, run.stderr


@needs_mounts
def test_the_last_line_of_a_process_says_that_it_is_cut_off(tmp_path):
    """It was the reason of a run's end, and ended in the middle of a word."""
    with tmpfs(tmp_path / "small", "1m") as small, ProcessGroup() as processes:
        log = small / "talks.log"
        log.write_bytes(b"-" * (4096 - 6) + b"\n")  # 5 bytes are left of the page that the log has
        ballast = filled(small)
        processes.start("talks", "platform", [], environment=os.environ, log=log)
        processes.wait(["talks"], 30)
        assert processes.last_line("talks") == f"Linux… (its log breaks off here; 0 B are free on the disk of {small})"
        ballast.unlink()
        with log.open("a") as more:
            more.write("\n")
        assert processes.last_line("talks") == "Linux"
