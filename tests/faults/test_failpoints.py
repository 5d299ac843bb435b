"""Rows 20 and 36: a process dies at each step between a trainer's file and a closed round."""

from __future__ import annotations

import signal

import pytest

from flavor.failpoints import COORDINATOR, EDGE, WORKER
from tests.faults.federation import MISSED, TAKEN_OVER


def armed(name: str) -> dict[str, str]:
    return {"FLAVOR_FAILPOINT": name}


def died(process) -> None:
    assert process.wait() == -9, process.stderr


@pytest.mark.parametrize("name", COORDINATOR)
def test_a_coordinator_that_dies_is_followed_by_another(faulty, name):
    """Row 36: killed at each step of a run; no round is committed twice, none is opened twice."""
    first = faulty.serve(*MISSED, *TAKEN_OVER, env=armed(name))
    faulty.bench.aggregator()
    edges = faulty.edges()
    died(first)
    faulty.finish(faulty.serve(*MISSED, *TAKEN_OVER), edges)


def test_a_coordinator_that_was_paused_while_another_took_over_refuses_nothing(faulty):
    """Row 36: it hears of updates of a round that it does not know, and that nobody has inspected yet."""
    bench = faulty.bench
    paused = faulty.serve(*MISSED)
    aggregator = bench.aggregator()
    flags = ("--hold", "--at")
    edges = faulty.edges(only={"c1": (*flags, 2), "c2": (*flags, 3)})
    bench.held("c1")
    bench.logged("update.accepted", client="c2", round=2)
    paused.send(signal.SIGSTOP)
    second = faulty.serve(*MISSED)
    second.until("goes on from round 2")
    bench.release("c1")
    bench.held("c2")
    bench.logged("update.accepted", client="c1", round=3)
    aggregator.send(signal.SIGSTOP)
    bench.release("c2")
    update = bench.runs.keys.client("c2").update(3)
    bench.eventually("c2 has handed in", lambda: bench.redis.exists(update))
    paused.send(signal.SIGCONT)
    assert paused.wait() == 1
    assert "was taken over by another coordinator" in paused.stderr.splitlines()[-1]
    aggregator.send(signal.SIGCONT)
    faulty.finish(second, edges)
    assert bench.runs.read_round(3).contributors == faulty.clients


@pytest.mark.parametrize("name", WORKER)
def test_a_worker_that_dies_is_followed_by_another(faulty, name):
    """Row 20: killed at each step between an update that arrives and a round that is committed."""
    coordinator = faulty.serve(*TAKEN_OVER)
    first = faulty.bench.aggregator(env=armed(name))
    edges = faulty.edges()
    died(first)
    faulty.bench.aggregator()
    faulty.finish(coordinator, edges)


@pytest.mark.parametrize("name", EDGE)
def test_an_edge_that_dies_comes_back_into_the_round(faulty, name):
    """Row 20: killed at each step between the trainer's file and the update that is handed in."""
    coordinator = faulty.serve(*MISSED)
    faulty.bench.aggregator()
    first = faulty.bench.edge("c1", faulty.bench.trainer(), env=armed(name))
    second = faulty.bench.edge("c2", faulty.bench.trainer())
    died(first)
    if name == "edge.trained":  # and once more, before it could hand in what was trained
        died(faulty.bench.edge("c1", faulty.bench.trainer(), env=armed(name)))
    again = faulty.bench.edge("c1", faulty.bench.trainer())
    faulty.finish(coordinator, {"c1": again, "c2": second})
    trained_before = name != "edge.submitted"  # then it is handed in as it is, and not trained a second time
    assert ("round 1 was trained before: handing it in" in again.stderr) is trained_before
