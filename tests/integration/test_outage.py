"""Redis goes away in the middle of a run and comes back with everybody's lease lapsed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.records.states import RunState


@pytest.mark.parametrize("quorum", [None, 1])
def test_a_run_outlives_a_server_that_was_killed(tmp_path: Path, bench_at, quorum: int | None) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    options = ["--heartbeat-timeout-s", "2", *(["--quorum", str(quorum)] if quorum else [])]
    with embedded_server(append_only=True, folder=folder) as url:
        bench = bench_at(url)
        coordinator = bench.serve(*options, rounds=4)
        bench.aggregator()
        edges = [bench.edge(name, bench.trainer("--hold", "--at", 2)) for name in ("edge-1", "edge-2")]
        for name in ("edge-1", "edge-2"):
            bench.held(name)
        bench.redis.execute_command("WAITAOF", 1, 0, 5000)
        os.kill(bench.redis.info("server")["process_id"], signal.SIGKILL)
    with embedded_server(append_only=True, folder=folder) as url:
        keys = bench.runs.keys
        with connect(url) as redis:  # as if it had been away for longer than they last
            redis.delete(keys.coordinator, *(keys.client(name).lease for name in ("edge-1", "edge-2")))
            redis.rpush(f"test:{bench.run}:edge-1:go", "1")
            redis.rpush(f"test:{bench.run}:edge-2:go", "1")
        assert [process.wait() for process in (coordinator, *edges)] == [0, 0, 0]
        view = bench.runs.read()
        assert view.state is RunState.FINISHED
        closed = [entry for entry in bench.log() if entry["event"] == "round.closed"]
        assert [entry["reason"].split()[0] for entry in closed] == ["2"] * 4  # nobody was left out
