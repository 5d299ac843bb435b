"""Releases that speak another protocol, or know fewer settings: refused in one line, before anything is changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flavor import __version__
from flavor.bus.lease import Lease
from flavor.config import RunConfig
from flavor.protocol import OLDEST, PROTOCOL, SPEAKS, here
from flavor.records.states import RunState
from flavor.store.paths import manifest_path, run_record_path
from flavor.view.observer import Lines
from tests.conftest import Bench, Process
from tests.unit.forged_run import ForgedRun, overwrite
from workers import jobs
from workers.context import WorkerContext, set_context
from workers.fault import GivenBack

EARLIER = "was begun by an earlier release of flavor"


def open_run(bench: Bench, **changes: object) -> dict[str, object]:
    """A run in its first round, which waits for edge-1; its config."""
    config = RunConfig(rounds=2, min_clients=1, queue=bench.run, store=bench.store.as_uri()).to_mapping() | changes
    bench.store.mkdir(exist_ok=True)
    bench.runs.create(rounds=2, config=config)
    bench.redis.set(bench.runs.keys.coordinator, "coordinator")
    bench.runs.open_round("coordinator", 1, expected=["edge-1"], timeout_s=60, reason="")
    bench.redis.delete(bench.runs.keys.coordinator)
    return config


def speak(bench: Bench, protocol: int | None, *, release: str = "", needs: str = "") -> None:
    """Have the run be one of another release."""
    bench.redis.hdel(bench.runs.keys.state, "protocol", "release", "run_id")
    if protocol is not None:
        bench.redis.hset(
            bench.runs.keys.state,
            mapping={"protocol": protocol, "release": release, "needs": needs, "run_id": "1" * 32},
        )


def refused(process: Process, *parts: str, code: int = 1) -> None:
    assert process.wait() == code, process.stderr
    assert "Traceback" not in process.stderr + process.stdout
    last = process.stderr.strip().splitlines()[-1]
    assert "Error: " in last, process.stderr
    for part in parts:
        assert part in last


HERE = f"this is {here()}"
FINISH = "finish the run with the release that began it"
UPGRADE = "upgrade flavor here"


@pytest.mark.parametrize(
    ("protocol", "release", "needs", "parts"),
    [
        (None, "", "", (EARLIER, "no protocol version", HERE, FINISH, "--init-model")),
        (1, "0.0.9", "", ("was begun by flavor 0.0.9 (protocol 1)", HERE, FINISH)),
        (9, "9.1.0", "", ("was begun by flavor 9.1.0 (protocol 9)", HERE, UPGRADE)),
        (9, "", "masked", ("was begun by a later release of flavor (protocol 9)", HERE, "needs: masked: ", UPGRADE)),
        (PROTOCOL, "9.1.0", "masked", (f"flavor 9.1.0 (protocol {PROTOCOL})", HERE, "needs: masked: ", UPGRADE)),
    ],
)
def test_a_run_of_another_release_is_refused_by_all_and_still_shown(
    bench: Bench, protocol: int | None, release: str, needs: str, parts: tuple[str, ...]
) -> None:
    open_run(bench)
    speak(bench, protocol, release=release, needs=needs)
    before = bench.redis.hgetall(bench.runs.keys.state)
    refused(bench.serve(rounds=2, clients=1), f"run '{bench.run}'", *parts)
    refused(bench.edge("edge-1", bench.trainer()), f"run '{bench.run}'", *parts)
    refused(bench.done("flavor", "get", bench.run), f"run '{bench.run}'", *parts)
    assert bench.redis.hgetall(bench.runs.keys.state) == before
    assert not bench.redis.exists(bench.runs.keys.client("edge-1").lease), "the edge took a seat that it cannot use"
    shown = bench.done("flavor", "status", bench.run, "--json")
    document = json.loads(shown.stdout)
    said = (document["protocol"], document["release"] or "", " ".join(document["needs"]))
    assert said == (protocol or 0, release, needs)

    told: list[str] = []
    set_context(
        WorkerContext(bench.redis, bench.url, ForgedRun(bench.store).store, observer=Lines(told.append, name_runs=True))
    )
    try:
        for job, argument in ((jobs.inspect, ["edge-1"]), (jobs.aggregate, 1)):
            with pytest.raises(GivenBack) as back:  # for a worker of another release
                job(bench.run, 1, argument)
            assert back.value.run == bench.run
            assert all(part in str(back.value) for part in parts)
        bench.redis.hset(bench.runs.keys.state, "state", "finished")
        for job, argument in ((jobs.inspect, ["edge-1"]), (jobs.aggregate, 1)):
            assert not job(bench.run, 1, argument), "no worker does it any more, so it does not wait for one"
        with pytest.raises(GivenBack):  # `flavor evaluate` asks after the end, too
            jobs.merge(bench.run, 1, [0, 1])
    finally:
        set_context(None)
    assert told == []
    round_ = bench.runs.read_round(1)
    assert round_ is not None
    assert (round_.lease_ms, round_.verdicts) == (None, {})


def older(run: ForgedRun, path: str) -> None:
    """Write a record as the release before this one did."""
    file = run.store.local(path)
    values = json.loads(file.read_bytes())
    del values["protocol"], values["run_id"]
    overwrite(file, json.dumps({**values, "version": 1}, sort_keys=True, separators=(",", ":")).encode())


def test_the_records_of_an_earlier_release_are_refused_in_one_line(bench: Bench, tmp_path: Path) -> None:
    run = ForgedRun(bench.store, name=bench.run).complete(2)
    older(run, run_record_path(bench.run))
    refused(bench.done("flavor", "verify", bench.run, "--store", bench.store), EARLIER)
    recovery = ["--run", bench.run, "--store", bench.store, "--untrusted"]
    refused(bench.done("flavor", "recover", *recovery), EARLIER)
    assert bench.runs.find() is None


def test_a_manifest_of_an_earlier_release_in_a_run_of_this_one_is_wrong(tmp_path: Path, bench: Bench) -> None:
    run = ForgedRun(bench.store, name=bench.run).complete(2)
    older(run, manifest_path(bench.run, 2))
    found = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert found.wait() == 1
    assert any(line.startswith("wrong: round 2: ") and EARLIER in line for line in found.stderr.splitlines())


def test_a_setting_that_a_site_does_not_know_is_refused_by_name(bench: Bench) -> None:
    config = open_run(bench, sharpness=[0.5])
    unknown = (f"settings that {here()} does not know: sharpness ([0.5])", "install the coordinator's release here")
    bench.redis.hset(bench.runs.keys.state, "release", "9.1.0")
    for process in (bench.edge("edge-1", bench.trainer()), bench.serve(rounds=2, clients=1)):
        refused(process, f"run '{bench.run}' was begun by flavor 9.1.0 and has ", *unknown, code=2)
    with pytest.raises(ValueError, match="sharpness"):
        RunConfig.of_run("r", config)
    assert RunConfig.known(config).rounds == 2
    shown = bench.done("flavor", "status", bench.run)
    assert shown.wait() == 0, shown.stderr
    bench.runs.end(RunState.STOPPED, "by a test")
    refused(bench.done("flavor", "resume", bench.run), *unknown, code=2)


def test_a_store_whose_run_has_a_setting_or_a_need_that_this_release_does_not_know_is_refused(bench: Bench) -> None:
    run = ForgedRun(bench.store, name=bench.run).complete(2)
    file = run.store.local(run_record_path(bench.run))
    values = json.loads(file.read_bytes())
    for changes, part in (
        ({"config": {**values["config"], "masked": True}}, f"settings that {here()} does not know: masked (true)"),
        ({"protocol": 9, "release": "9.1.0", "needs": ["masked"]}, "flavor 9.1.0 (protocol 9), and this is " + here()),
    ):
        overwrite(file, json.dumps({**values, **changes}, sort_keys=True, separators=(",", ":")).encode())
        refused(bench.done("flavor", "verify", bench.run, "--store", bench.store), part, "masked")
        recovery = ["--run", bench.run, "--store", bench.store, "--untrusted"]
        refused(bench.done("flavor", "recover", *recovery), part, "masked")
    assert bench.runs.find() is None


def test_a_run_is_shown_where_the_packages_of_its_checkpoints_and_its_store_are_not_installed(bench: Bench) -> None:
    open_run(bench, checkpoint="trees", store="tape://library")
    kind, store = "no checkpoints of the kind 'trees' here", "store 'tape://' cannot be used: no package here"
    shown = bench.done("flavor", "status", bench.run)
    assert shown.wait() == 0, shown.stderr
    assert kind in shown.stdout
    assert f"no metrics are shown: {store}" in shown.stdout
    found = bench.done("flavor", "status", bench.run, "--json")
    assert found.wait() == 0, found.stderr
    assert json.loads(found.stdout)["waits_for"]
    for command in (["status"], ["log", bench.run], ["credits", bench.run]):
        assert bench.done("flavor", *command).wait() == 0
    refused(bench.done("flavor", "get", bench.run), store, code=2)
    refused(bench.edge("edge-1", bench.trainer()), kind, code=2)
    stopped = bench.done("flavor", "stop", bench.run)
    assert stopped.wait() == 0, stopped.stderr


@pytest.mark.parametrize(
    ("says", "named"),
    [
        ({}, "an earlier release of flavor (no protocol version)"),
        ({"protocol": "1", "version": "flavor 0.0.9, Python 3"}, "flavor 0.0.9 (protocol 1)"),
        ({"protocol": "9", "release": "9.1.0"}, "flavor 9.1.0 (protocol 9)"),
        ({"protocol": "-2", "release": "\x1b[2J"}, "an earlier release of flavor (no protocol version)"),
    ],
)
def test_a_client_of_another_protocol_is_not_admitted_and_can_read_why(
    bench: Bench, says: dict[str, str], named: str
) -> None:
    coordinator = bench.serve(rounds=1, clients=1)
    coordinator.until("is open for clients")
    keys = bench.runs.keys.client("other")
    lease = Lease(bench.redis, keys.lease, ttl_s=60, what="")
    lease.acquire(told=lambda _: None)
    bench.redis.hset(keys.hash, mapping={"state": "ready", "host": "elsewhere", **says})
    bench.redis.publish(keys.state, "ready")
    bench.logged("client.not_admitted", client="other")
    told = bench.eventually("it is told", lambda: bench.redis.hgetall(keys.admission))
    assert isinstance(told, dict)
    assert told["admitted"] == "0"
    assert told["reason"] == (
        f"its edge is {named}, and this run has protocol {OLDEST}, by {here()}: install flavor {__version__} there"
    )
    coordinator.until(f"other: its edge is {named}")
    assert bench.runs.members() == []
    assert bench.runs.read().state is RunState.WAITING

    bench.redis.hset(keys.hash, mapping={**SPEAKS})
    bench.redis.publish(keys.state, "ready")
    bench.logged("client.joined", client="other")
