"""A folder that is the store is away for a while, in the middle of a run: nothing ends, and all go on."""

from __future__ import annotations

import contextlib
import os
import re
import signal

import pytest

from tests.faults.federation import TAKEN_OVER
from tests.faults.servers import moved_away, remounted, tmpfs
from tests.polled import START_PAUSE_S

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a tmpfs")
TIMED = r"^\d{4}(-\d\d){2} \d\d:\d\d:\d\d "


@pytest.mark.parametrize("leave", [True, False], ids=["empty", "gone"])
def test_a_share_that_is_unmounted_while_edges_hand_in(faulty, leave):
    """Row 45: an empty folder, or none; nothing is written there."""
    bench = faulty.bench
    coordinator = faulty.serve()
    bench.aggregator()
    edges = faulty.edges("--hold", "--at", 2)
    bench.held("c1")
    bench.held("c2")
    back = moved_away(bench.store, leave=leave)
    bench.release("c1", "c2")
    for edge in edges.values():
        edge.until("waiting for the store, for at most 1 d: store file://")
    waits = re.compile(r'^c1 +training .* "it waits for the object store, which cannot be used for now"$', re.M)
    status = lambda: bench.done("flavor", "status", bench.run).stdout  # noqa: E731
    bench.eventually("status says it", lambda: waits.search(status()), pause_s=START_PAUSE_S)
    assert bench.logged("round.waiting", saying="waiting for the object store, which c1, c2")["held"]
    back()
    faulty.finish(coordinator, edges)
    reason = bench.redis.hget(bench.runs.keys.client("c1").hash, "reason") or ""
    assert "it waits for" not in reason, "its trainer may have ended before the run did"
    for edge in edges.values():
        assert re.search(
            r"^\d{4}(-\d\d){2} \d\d:\d\d:\d\d \[c\d\] flavor: the store can be used again", edge.stderr, re.M
        )
    assert not [entry for entry in bench.log() if entry["event"] in ("update.refused", "client.lost", "client.failed")]


@needs_mounts
def test_a_store_that_is_read_only_while_edges_hand_in_and_workers_aggregate(faulty):
    """Row 45: first the one, then the other."""
    bench = faulty.bench
    with tmpfs(bench.store, "4m") as store:
        coordinator = faulty.serve(*TAKEN_OVER)
        aggregator = bench.aggregator()
        aggregator.until("listens on queue")
        edges = faulty.edges("--hold", "--at", 2)
        bench.held("c1")
        bench.held("c2")
        remounted(store, "ro")
        bench.release("c1", "c2")
        for edge in edges.values():
            edge.until("waiting for the store, for at most 1 d: store file://")
        aggregator.send(signal.SIGSTOP)
        remounted(store, "rw")
        for client in faulty.clients:
            update = bench.runs.keys.client(client).update(2)
            bench.eventually(f"{client} has handed in", lambda update=update: bench.redis.exists(update))
        remounted(store, "ro")
        aggregator.send(signal.SIGCONT)
        aggregator.until("its work goes back into the queue, and it takes none for now: ")
        remounted(store, "rw")
        faulty.finish(coordinator, edges)
        assert "it takes work again" in aggregator.stderr
    assert all("the store can be used again: going on" in edge.stderr for edge in edges.values())
    assert not [entry for entry in bench.log() if entry["event"] in ("update.refused", "client.lost", "client.failed")]


def test_a_share_that_stays_away_ends_an_edge_and_its_operator_is_told_that_it_is_the_store(faulty):
    """Row 45: beyond --patience-s."""
    faulty.clients, bench = ("c1",), faulty.bench
    faulty.serve()
    bench.aggregator()
    (edge,) = faulty.edges("--hold", "--at", 2, env={"FLAVOR_PATIENCE_S": "1"}).values()
    bench.held("c1")
    back = moved_away(bench.store, leave=True)
    bench.release("c1")
    assert edge.wait() == 1
    back()
    assert edge.stderr.splitlines()[-1].endswith(
        "is not there: is the share mounted?; waited for 1 s (--patience-s): start this again once it can be used"
    )
    assert bench.logged("client.lost", client="c1")["reason"] == '"its edge cannot use the object store"'


def test_a_share_that_is_unmounted_when_a_round_is_closed(faulty):
    """Row 45: its worker dies before the manifest is in place, so the coordinator needs the store, and waits for it."""
    bench = faulty.bench
    coordinator = faulty.serve(*TAKEN_OVER)
    edges = faulty.edges()
    assert bench.aggregator(env={"FLAVOR_FAILPOINT": "worker.claimed:2"}).wait() == -9
    bench.eventually("there is another attempt", lambda: bench.runs.read_round(2).attempt == 2)
    bench.eventually("its job is in the queue", lambda: bench.redis.llen(f"rq:queue:{bench.run}"))
    coordinator.send(signal.SIGSTOP)
    assert bench.aggregator(env={"FLAVOR_FAILPOINT": "worker.committed"}).wait() == -9
    back = moved_away(bench.store, leave=True)
    coordinator.send(signal.SIGCONT)
    coordinator.until("is the share mounted?; trying again until it can be used")
    back()
    coordinator.until("the store can be used again: going on")
    bench.aggregator()
    faulty.finish(coordinator, edges)


@pytest.mark.parametrize("how", ["empty", "staged", "within"])
def test_an_edge_that_starts_before_its_share_is_mounted_waits_for_it(faulty, how):
    """Row 45: after a reboot; the mount point is empty, or an aggregator was there, or it is the folder above."""
    bench, faulty.clients = faulty.bench, ("c1",)
    coordinator = faulty.serve()
    bench.aggregator()
    coordinator.until("is open for clients")
    point = bench.folder / "mnt"
    point.mkdir()
    if how == "staged":
        (point / ".staging").mkdir()
    named = point / "flavor" if how == "within" else point
    (edge,) = faulty.edges(env={"FLAVOR_STORE": str(named)}).values()
    edge.until(
        f"waiting for the store, for at most 1 d: store {named}: the folder {point} is empty: is the run's share"
        if how == "within"
        else f": the folder {point} is empty: is the run's share mounted there?"
    )
    if how == "within":
        named.symlink_to(bench.store)
    else:
        point.rename(bench.folder / "covered")
        point.symlink_to(bench.store)
    edge.until("the store can be used again: going on")
    faulty.finish(coordinator, {"c1": edge})


@needs_mounts
@pytest.mark.parametrize("why", ["Read-only file system", "No space left on device"])
def test_a_run_whose_programs_start_while_its_store_takes_no_writes_waits_for_it(faulty, why):
    """Row 45: after a reboot; systemd starts none again that ended with 2."""
    bench, faulty.clients = faulty.bench, ("c1",)
    with tmpfs(bench.store, "4m,nr_inodes=200") as store:
        if why.startswith("Read-only"):
            remounted(store, "ro")
        else:
            for number in range(200):
                with contextlib.suppress(OSError):
                    (store / f"full-{number}").touch()
        coordinator, aggregator = faulty.serve(), bench.aggregator()
        for each in (coordinator, aggregator):
            each.until(
                f"waiting: store '{store}' cannot be used ({why})" if why.startswith("Read") else f": {why}: free"
            )
            each.until("; trying again until it can be used")
        if why.startswith("Read-only"):
            remounted(store, "rw")
        for number in range(200):
            (store / f"full-{number}").unlink(missing_ok=True)
        for each in (coordinator, aggregator):
            each.until("the store can be used again: going on")
        faulty.finish(coordinator, faulty.edges())


@needs_mounts
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_waits_for_a_store_when_it_starts_ends_when_it_is_told_to(faulty, number):
    with tmpfs(faulty.bench.store, "1m") as store:
        remounted(store, "ro")
        coordinator, aggregator = faulty.serve(), faulty.bench.aggregator()
        for each in (coordinator, aggregator):
            each.until("trying again until it can be used")
            each.send(number)
        assert (coordinator.wait(), aggregator.wait()) == (128 + number, 0), coordinator.stderr + aggregator.stderr
