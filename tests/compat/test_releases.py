"""The release before this one beside this one: each role of either takes part in the other's run, and may change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from flavor import __version__
from flavor.bus.token import JoinToken
from flavor.config import RunConfig
from flavor.records.states import RunState
from tests.compat.previous import Release, build
from tests.conftest import Bench, Process

TRAINER = Path(__file__).parent / "stepping_trainer.py"
ROUNDS = 5
WAITS = ("--on-quorum-lost", "wait")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return build(tmp_path_factory.mktemp("previous"))


@pytest.fixture(params=["upgrade", "downgrade"])
def order(request: pytest.FixtureRequest, previous: Release) -> tuple[Release, Release]:
    """With which release a run begins, and with which it ends."""
    this = Release(__version__, {})
    return (previous, this) if request.param == "upgrade" else (this, previous)


class Federation:
    """A run of which each role can be stopped, and started as another release."""

    def __init__(self, bench: Bench, release: Release) -> None:
        self.bench = bench
        self.running: dict[str, Process] = {}
        for role in ("coordinator", "aggregator", "c1", "c2"):
            self.start(role, release)

    def start(self, role: str, release: Release) -> None:
        bench, env = self.bench, release.env
        if role == "coordinator":
            process = bench.serve(*WAITS, rounds=ROUNDS, env=env)
        elif role == "aggregator":
            process = bench.aggregator(env=env)
        else:
            process = bench.edge(role, f"{sys.executable} {TRAINER}", env=env)
        self.running[role] = process

    def change(self, role: str, release: Release) -> None:
        """Stop a role as an operator does, and start it as this release."""
        self.running[role].send(signal.SIGTERM)
        self.running[role].wait()
        self.start(role, release)

    def hand_in(self, client: str, round_: int) -> None:
        """Let a client's trainer finish this round, and wait until its update is accepted."""
        bench = self.bench
        bench.release(client)
        bench.logged("update.accepted", client=client, round=round_)

    def trains(self, client: str, round_: int) -> None:
        """Wait until a client's trainer has begun this round."""
        found = self.bench.redis.blpop([f"test:{self.bench.run}:{client}:here"], timeout=30)
        assert found is not None, f"{client} never began round {round_}"
        assert int(found[1]) == round_


def test_the_release_before_refuses_a_later_run_reads_a_token_of_this_one_and_changes_nothing(
    bench: Bench, previous: Release
) -> None:
    config = RunConfig(rounds=2, store=bench.store.as_uri(), queue=bench.run).to_mapping() | {"signed_urls": True}
    bench.runs.create(rounds=2, config=config)
    before = bench.redis.hgetall(bench.runs.keys.state)
    assert (before["protocol"], before["release"], before["needs"]) == ("3", __version__, "signed_urls")
    for process in (
        bench.edge("c1", f"{sys.executable} {TRAINER}", env=previous.env),
        bench.serve(*WAITS, rounds=2, env=previous.env),
    ):
        assert process.wait() == 1
        last = process.stderr.strip().splitlines()[-1]
        assert f"run '{bench.run}' was begun by a later release of flavor (protocol 3; this one speaks 2): " in last
        assert "upgrade flavor here" in last
    assert bench.redis.hgetall(bench.runs.keys.state) == before
    assert not bench.redis.exists(bench.runs.keys.client("c1").lease)
    names = {"url": "redis://bus:6379/0", "user": "u", "secret": SecretStr("s"), "run": "r", "client": "c"}
    word = JoinToken(**names, protocol=2, release=__version__).encode()
    code = "import sys; from flavor.bus.token import JoinToken; print(JoinToken.parse(sys.argv[1]).user)"
    command, environment = [sys.executable, "-P", "-c", code, word], {**os.environ, **previous.env}
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "u\n"


def test_each_role_changes_its_release_in_mid_round_and_the_run_ends_as_it_would(
    bench: Bench, previous: Release, order: tuple[Release, Release]
) -> None:
    """Round 1 is of one release; then a role changes in each round, after one of two updates, until all have."""
    first, then = order
    assert bench.done("flavor", "--version", env=previous.env).stdout == f"flavor, version {previous.number}\n"
    run = Federation(bench, first)
    for round_, changes in enumerate((None, "c2", "aggregator", "coordinator", "c1"), 1):
        for client in ("c1", "c2"):
            run.trains(client, round_)
        one, other = ("c2", "c1") if changes == "c1" else ("c1", "c2")
        run.hand_in(one, round_)
        if changes is not None:
            run.change(changes, then)
        if changes == other:
            run.trains(other, round_)  # its trainer begins the round anew
        bench.release(other)
        bench.logged("round.closed", round=round_)
    ended = ("coordinator", "c1", "c2")
    assert [run.running[role].wait() for role in ended] == [0, 0, 0], [run.running[role].stderr for role in ended]
    view = bench.runs.read()
    assert (view.state, view.round, view.protocol) == (RunState.FINISHED, ROUNDS, 2)
    accepted = [(entry["round"], entry["client"]) for entry in bench.log() if entry["event"] == "update.accepted"]
    assert sorted(accepted) == [(str(round_), client) for round_ in range(1, ROUNDS + 1) for client in ("c1", "c2")]
    model = bench.folder / "model.npz"
    got = bench.done("flavor", "get", bench.run, "--store", bench.store, "--format", "npz", "-o", model)
    assert got.wait() == 0, got.stderr
    with np.load(model) as weights:
        assert weights["w"].tolist() == [2.0 * ROUNDS] * 3, "each round adds the mean of 1 and 3"
    for env in ({}, previous.env):
        verified = bench.done("flavor", "verify", bench.run, "--store", bench.store, env=env)
        assert verified.wait() == 0, verified.stdout + verified.stderr
        assert f"{ROUNDS} rounds" in verified.stdout
