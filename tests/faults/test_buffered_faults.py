"""Row 57: a process dies at each step of an asynchronous run, in which a slow site does an earlier task."""

from __future__ import annotations

import signal

from flavor.failpoints import COORDINATOR, EDGE, WORKER
from tests.faults.federation import MISSED, TAKEN_OVER, Faulty

MODE = ("--mode", "async:buffer=2,max_staleness=20")
CLIENTS = ("c1", "c2", "c3")


def armed(name: str) -> dict[str, str]:
    return {"FLAVOR_FAILPOINT": name}


def died(process, name: str) -> None:
    assert process.wait() == -9, f"{name}: {process.stderr}"


def begun(faulty, rounds: int) -> tuple[Faulty, dict]:
    """A run of three sites: c3 holds in its task of round 2, and c1 in that of the last round but one."""
    faulty = Faulty(faulty.bench, rounds, CLIENTS)
    held = {"c1": ("--hold", "--at", rounds - 1), "c3": ("--hold", "--at", 2)}
    return faulty, faulty.edges(only=held)


def ended(faulty, coordinator, edges) -> None:
    """The slow site's update counts in the last round but one, which c1 does not close, and the history is in order."""
    bench = faulty.bench
    bench.held("c3")
    bench.held("c1")
    bench.release("c3")
    bench.logged("round.closed", round=faulty.rounds - 1)
    assert bench.runs.read_round(faulty.rounds - 1).since["c3"] == 2
    assert "c3" in bench.runs.read_round(faulty.rounds - 1).contributors
    faulty.finish(coordinator, edges)


def test_a_coordinator_of_an_asynchronous_run_that_dies_is_followed_by_another(faulty):
    """Row 57: killed at each step of a run; the slow site's update counts once."""
    faulty, edges = begun(faulty, 4)
    faulty.bench.aggregator()
    for name in [name for name in COORDINATOR if not name.startswith("coordinator.end")]:
        died(faulty.serve(*MODE, *MISSED, *TAKEN_OVER, env=armed(name)), name)
    ended(faulty, faulty.serve(*MODE, *MISSED, *TAKEN_OVER), edges)


def test_a_worker_of_an_asynchronous_run_that_dies_is_followed_by_another(faulty):
    """Row 57: each dies when it has the slow site's update, or aggregates it."""
    faulty, edges = begun(faulty, 4)
    bench = faulty.bench
    coordinator = faulty.serve(*MODE, *TAKEN_OVER, "--aggregation-attempts", len(WORKER) + 1)
    worker = bench.aggregator()
    bench.held("c3")
    bench.held("c1")
    bench.logged("update.accepted", client="c2", round=3)
    worker.send(signal.SIGTERM)
    worker.wait()
    bench.release("c3")
    for name in WORKER:
        died(bench.aggregator(env=armed(name)), name)
    bench.aggregator()
    faulty.finish(coordinator, edges)
    assert faulty.bench.runs.read_round(3).contributors == ("c2", "c3")
    assert faulty.bench.runs.read_round(3).since == {"c3": 2}


def test_the_edge_of_a_slow_site_that_dies_does_its_task_again(faulty):
    """Row 57: it has the task of an earlier round, and no other."""
    faulty = Faulty(faulty.bench, 4, CLIENTS)
    bench = faulty.bench
    coordinator = faulty.serve(*MODE, *MISSED, *TAKEN_OVER)
    bench.aggregator()
    edges = faulty.edges(only={"c1": ("--hold", "--at", 3), "c3": ("--hold", "--at", 2)})
    bench.held("c3")
    bench.held("c1")
    edges["c3"].send(signal.SIGKILL)
    edges["c3"].wait()
    for name in EDGE:
        died(bench.edge("c3", bench.trainer(), env=armed(name)), name)
    edges["c3"] = bench.edge("c3", bench.trainer())
    faulty.finish(coordinator, edges)
    assert bench.runs.read_round(3).contributors == ("c2", "c3")
    assert bench.runs.read_round(3).since == {"c3": 2}
