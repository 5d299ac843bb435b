"""A run of aumai_fedtrain goes on under its own rule alone: every command names the right way, and refuses others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aumai_fedtrain import BusUpdateProvider, DiLoCoCoordinator
from flavor.cli.serve import check_rule
from flavor.config import RunConfig
from flavor.coordinator.resume import resume
from flavor.errors import InvalidSetting, RunExists, RunStopped
from flavor.records.states import RunState
from flavor.resume import FEDTRAIN, is_of_fedtrain
from tests.conftest import Bench
from tests.integration.test_fedtrain_live import (
    NESTEROV,
    NODES,
    Broken,
    command,
    configuration,
    edges,
    expected,
    global_models,
    provider,
    verified,
)


def held(bench: Bench, round_: int) -> tuple[list[object], list]:
    """The options of a training that stands in this round, and its sites."""
    options = ["--outer-optimizer", NESTEROV, "--heartbeat-timeout-s", 2, "--set", f"HOLD_AT={round_}"]
    return options, edges(bench, "site-1", "site-2", takes="HOLD_AT")


def test_a_stopped_run_goes_on_under_its_outer_optimizer_as_the_commands_say(bench: Bench) -> None:
    options, sites = held(bench, 3)
    first = command(bench, 4, *options)
    for name in ("site-1", "site-2"):
        bench.held(name)
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    program = "the same `aumai-fedtrain run` command or Python program"
    way = f"`flavor resume {bench.run} --detach`, and then {program}, go on"
    assert first.wait() == 1
    assert way in first.stderr
    assert [site.wait() for site in sites] == [RunStopped.exit_code] * 2

    begun = f"run {bench.run!r} was begun by aumai_fedtrain, which coordinates it and averages its rounds itself: {way}"
    resumed = bench.done("flavor", "resume", bench.run)
    assert (resumed.wait(), begun in resumed.stderr) == (1, True), resumed.stderr
    again = command(bench, 4, *options)
    assert (again.wait(), way in again.stderr) == (8, True), again.stderr
    assert bench.runs.read().state is RunState.STOPPED, "no refusal has changed it"

    detached = bench.done("flavor", "resume", bench.run, "--detach")
    assert detached.wait() == 0, detached.stderr
    assert f"start {program}" in detached.stderr
    served = bench.serve(rounds=4, clients=2)
    assert served.wait() == 2
    assert (
        "averages its rounds itself: the same `aumai-fedtrain run` command or Python program goes on" in served.stderr
    )
    bench.eventually("the old lease runs out", lambda: not bench.redis.exists(bench.runs.keys.coordinator))
    status = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    assert status["absent"] == [f"no coordinator serves it: start {program} again"]

    second = command(bench, 4, *options)
    sites = edges(bench, "site-1", "site-2", takes="HOLD_AT")
    for name in ("site-1", "site-2"):
        bench.held(name)  # in round 3, again
    bench.release("site-1", "site-2")
    assert [process.wait() for process in (second, *sites)] == [0, 0, 0]
    for tensors, w in zip(global_models(bench, 4), expected(4, NESTEROV), strict=True):
        np.testing.assert_array_equal(tensors["layer/w"], w.astype(np.float32))
    assert verified(bench)["problems"] == []


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([], ["--outer-optimizer", "momentum:lr=0.5"], "server_step is not set, not 'momentum:lr=0.5'"),
        (["--outer-optimizer", "momentum:lr=0.5"], [], "server_step is 'momentum:lr=0.5', not not set"),
        ([], ["--weighted"], "weights is 'equal', not 'datasetSize'"),
    ],
)
def test_the_rule_cannot_change_half_way(bench: Bench, before: list[str], after: list[str], told: str) -> None:
    first = command(bench, 2, *before)
    bench.eventually("there is a run", bench.runs.find)
    first.end()
    second = command(bench, 2, *after)
    assert second.wait() == 2
    assert told in second.stderr


def test_a_run_that_was_recorded_without_its_rule_goes_on(bench: Bench) -> None:
    """Once, the record of each such run said `mean`, whatever its outer optimizer was."""

    class Older(BusUpdateProvider):
        def take_rule(self, rule: object) -> None:
            self._rule = {"aggregator": "mean"}

    sites = edges(bench, "site-1", "site-2")
    options = {"store": str(bench.store), "heartbeat_timeout_s": 2.0, "key": bench.folder / "aggregator.key"}
    older = Older(bench.run, redis_url=bench.url, **options)
    with pytest.raises(ZeroDivisionError):
        Broken(outer_optimizer=NESTEROV).run_training(configuration(4), [], older)
    view = bench.runs.read()
    assert (view.config["aggregator"], view.config["server_step"]) == ("mean", None)
    assert is_of_fedtrain(view)
    resumed = bench.done("flavor", "resume", bench.run)
    assert f"run {bench.run!r} was begun by aumai_fedtrain, which" in resumed.stderr
    result = DiLoCoCoordinator(outer_optimizer=NESTEROV).run_training(configuration(4), [], provider(bench))
    assert (result.rounds_completed, result.total_samples) == (4, 120)
    for tensors, w in zip(global_models(bench, 4), expected(4, NESTEROV), strict=True):
        np.testing.assert_array_equal(tensors["layer/w"], w.astype(np.float32))
    assert [site.wait() for site in sites] == [0, 0]


def test_what_flavor_resume_has_changed_stands(bench: Bench) -> None:
    live = provider(bench)
    with live.training(configuration(3), NODES):
        live.restore(configuration(3), NODES)
        config = live._config(configuration(3), NODES)
    bench.runs.create(rounds=3, config=config.to_mapping())
    bench.runs.end(RunState.FAILED, "lost quorum")
    resume(bench.runs, given={"on_quorum_lost": "wait", "quorum": 1, "rounds": 5}, tell=print)

    told: list[str] = []
    live = provider(bench, tell=told.append)
    with live.training(configuration(5), NODES):
        assert live.restore(configuration(5), NODES) is None
        assert told == [f"run {bench.run!r} was resumed with quorum 1, on_quorum_lost wait: that stands"]
        with pytest.raises(RunExists, match="was resumed with rounds 5: go on with it with global_rounds 5"):
            live.restore(configuration(3), NODES)
    other = provider(bench, round_timeout_s=7.0)
    with (
        other.training(configuration(5), NODES),
        pytest.raises(RunExists, match=r"other settings: round_timeout_s is 86400.0, not 7.0; the same `aumai"),
    ):
        other.restore(configuration(5), NODES)


def test_no_coordinator_of_flavor_takes_the_rule() -> None:
    with pytest.raises(InvalidSetting, match="only aumai_fedtrain coordinates such a run: start `aumai-fedtrain run`"):
        check_rule(RunConfig(rounds=1, store="store", aggregator=FEDTRAIN))
