"""What a local run waits for: in its terminal, after Ctrl-C, and in `flavor status` of its folder."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace

from flavor.config import RunConfig
from flavor.local.waits import Waits
from flavor.records.states import ClientState
from flavor.store.open import open_store
from flavor.view.blocked import BlockedNote
from flavor.view.site_events import StoreAwaited, StoreBack, UpdateHandedIn
from flavor.view.snapshot import Phase, take_snapshot
from flavor.view.waiting import Wait
from flavor.view.worker_events import WorkGivenBack, WorkTaken
from tests.infos import begin_run


def test_waits_are_told_with_their_time_and_by_whom(bench) -> None:
    at = [0.0]
    files = {name: bench.folder / f"{name}.blocked" for name in ("coordinator", "aggregator", "edge-1")}
    notes = {name: BlockedNote(file) for name, file in files.items()}
    waits = Waits(files, now=lambda: at[0])

    def look(now: float) -> list[str]:
        at[0] = now
        waits.look(take_snapshot(bench.runs) if bench.runs.find() else None)
        return list(waits.news())

    assert look(0.0) == []
    assert waits.lines(at_least_s=0.0) == ["waiting for the coordinator to begin the run"]
    store = open_store(str(bench.store), create=True)
    begin_run(bench.runs, store, RunConfig(rounds=3, min_clients=1, store=store.url))
    bench.redis.set(bench.runs.keys.coordinator, "token")
    bench.runs.admit("token", "edge-1", "here")
    bench.redis.hset(bench.runs.keys.client("edge-1").hash, mapping={"state": ClientState.JOINED.value})
    bench.redis.set(bench.runs.keys.client("edge-1").lease, "1")
    told = "0 of at least 1 client is ready; waiting for edge-1 to call SetEvent('TrainInitDone'), for"
    assert look(10.0) == []
    assert waits.lines() == [], "it has only begun"
    assert look(41.0) == [f"{told} 31 s"]
    assert look(60.0) == []
    assert look(75.0) == [f"{told} 1 min 5 s"]
    full = "its work goes back into the queue, and it takes none for now: No space left on device"
    notes["aggregator"].hear(WorkGivenBack("No space left on device"))
    refused = "Redis at unix:///s takes no writes (MISCONF …)"
    notes["edge-1"].hear(StoreAwaited("full"))
    notes["edge-1"].server(refused)
    notes["edge-1"].hear(UpdateHandedIn("", 1))  # no line for people
    assert look(76.0) == [f"aggregator: {full}", f"edge-1: {refused}"]
    assert waits.blocked() == [f"aggregator: {full}", f"edge-1: {refused}"]
    notes["edge-1"].server(refused)
    assert look(90.0) == [], "it is the same"
    assert waits.lines()[-1] == f"edge-1, for 14 s: {refused}"
    notes["edge-1"].server("")
    assert look(91.0) == ["edge-1: waiting for the store, for at most 0 s: full"], "which was so all the time"
    notes["edge-1"].hear(StoreBack("the store can be used again"))
    assert look(92.0) == []
    assert waits.blocked() == [f"aggregator: {full}"]
    snapshot = take_snapshot(bench.runs)
    held = Wait("1 of 2 updates accepted, waiting for edge-1", 2, is_held=True)
    gone = {"edge-1": replace(snapshot.clients["edge-1"], phase=Phase.GONE)}
    waits.look(replace(snapshot, waits_for=held))
    assert not any("Ctrl-C" in line for line in waits.lines(at_least_s=0.0)), "for a site that may come back"
    waits.look(replace(snapshot, waits_for=replace(held, reason="it is gone"), clients=gone))
    (line,) = [line for line in waits.news() if "it is gone" in line]
    assert "Ctrl-C, and `flavor run --resume FOLDER` starts the site again" in line, "told at once"
    refusal = "Redis takes no writes: it cannot write its append-only file, as its disk is full or broken"
    at[0] = 93.0
    waits.look(replace(take_snapshot(bench.runs), refusal=refusal))
    assert list(waits.news()) == [refusal], "it is told at once, though no process could note it on the same disk"
    at[0] = 96.0
    assert waits.lines()[0] == f"{refusal}, for 3 s"
    assert look(97.0) == []
    notes["aggregator"].hear(WorkTaken())
    assert waits.blocked() == []
    assert not any(file.exists() for file in files.values())


def test_after_an_interruption_the_last_lines_say_what_was_waited_for(bench) -> None:
    words = ["--run", bench.run, "--out", bench.folder / "out", "--edges", 2, "--rounds", 2]
    run = bench.start("flavor", "run", "-m", bench.trainer("--hold", "--at", 0), *words, "--redis-url", bench.url)
    for client in ("edge-1", "edge-2"):
        bench.held(client)
    awaited = "waiting for edge-1, edge-2 to call SetEvent('TrainInitDone')"
    bench.eventually("it waits", lambda: awaited in str(bench.log()))
    status = bench.done("flavor", "status", bench.run)
    assert awaited in status.stdout
    run.send(signal.SIGINT)
    assert run.wait() == 130
    assert f"at that time:  0 of at least 2 clients are ready; {awaited}" in run.stderr


def test_a_local_run_shares_the_output_of_its_scripts_and_says_how_it_goes_on(bench) -> None:
    """Its user owns the sites: nothing is kept from the page and the commands that look at the folder."""
    out, none = bench.folder / "out", {"FLAVOR_REDIS_URL": ""}
    script = f"{sys.executable} -c 'print(1 / 0)'"
    run = bench.start("flavor", "run", "-m", script, "--edges", 1, "--out", out, env=none)
    assert run.wait() == 1, run.stderr
    log = bench.done("flavor", "log", out, "--script", "edge-1", env=none).stdout
    assert "edge-1 | ZeroDivisionError: division by zero" in log
    status = bench.done("flavor", "status", out, env=none).stdout.splitlines()
    assert f"go on with it: flavor run --resume {out}" in status
    assert f"log of edge-1: {out}/logs/edge-1.log" in status
