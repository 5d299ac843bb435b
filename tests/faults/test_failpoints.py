"""Rows 20 and 36: a process dies at each step between a trainer's file and a closed round.

In one run each process is followed by one that dies at the next step, and the last one by one that lives.
"""

from __future__ import annotations

import signal

from flavor.failpoints import COORDINATOR, EDGE, WORKER
from tests.faults.federation import MISSED, TAKEN_OVER


def armed(name: str) -> dict[str, str]:
    return {"FLAVOR_FAILPOINT": name}


def died(process, name: str) -> None:
    assert process.wait() == -9, f"{name}: {process.stderr}"


def test_a_coordinator_that_dies_is_followed_by_another(faulty):
    """Row 36: killed at each step of a run; no round is committed twice, none is opened twice."""
    faulty.bench.aggregator()
    edges = faulty.edges()
    for name in COORDINATOR:
        died(faulty.serve(*MISSED, *TAKEN_OVER, env=armed(name)), name)
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


def test_a_worker_that_dies_is_followed_by_another(faulty):
    """Row 20: killed at each step between an update that arrives and a round that is committed."""
    coordinator = faulty.serve(*TAKEN_OVER, "--aggregation-attempts", len(WORKER))
    edges = faulty.edges()
    for name in WORKER:
        assert "round.closed" not in {entry["event"] for entry in faulty.bench.log()}, "all die in the first round"
        died(faulty.bench.aggregator(env=armed(name)), name)
    faulty.bench.aggregator()
    faulty.finish(coordinator, edges)


def test_an_edge_that_dies_comes_back_into_the_round(faulty):
    """Row 20: killed at each step between the trainer's file and the update that is handed in.

    The edges of c1 die in round 1 and hand in what was trained before. Those of c2 die at the later steps of a round
    that they have trained themselves: at "stored" in round 1, at "submitted" in round 2.
    """
    bench = faulty.bench
    coordinator = faulty.serve(*MISSED)
    bench.aggregator()
    others = [bench.edge("c2", bench.trainer(), env=armed("edge.stored"))]
    trained, again, stored, submitted = ("edge.trained", "edge.trained", "edge.stored", "edge.submitted")
    first = []
    for name in (trained, again, stored, submitted):  # again: before it could hand in what was trained
        first.append(bench.edge("c1", bench.trainer(), env=armed(name)))
        died(first[-1], name)
    assert set(EDGE) == {trained, stored, submitted}
    died(others[-1], "edge.stored")
    others.append(bench.edge("c2", bench.trainer(), env=armed("edge.submitted:2")))
    last = bench.edge("c1", bench.trainer())
    died(others[-1], "edge.submitted:2")
    others.append(bench.edge("c2", bench.trainer()))
    faulty.finish(coordinator, {"c1": last, "c2": others[-1]})
    # What was trained is handed in as it is, and not trained a second time, until it has been handed in.
    before = ["round 1 was trained before: handing it in" in edge.stderr for edge in (*first, last)]
    assert before == [False, True, True, True, False]
    assert ["round 1 was trained before" in edge.stderr for edge in others] == [False, True, False]
    assert not [edge.stderr for edge in others if "round 2 was trained before" in edge.stderr]
