"""Rows 20 and 36: a process dies at each step between a trainer's file and a closed round."""

from __future__ import annotations

import pytest
from federation import MISSED, TAKEN_OVER

from flavor.failpoints import COORDINATOR, EDGE, WORKER


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
    again = faulty.bench.edge("c1", faulty.bench.trainer())
    faulty.finish(coordinator, {"c1": again, "c2": second})
    trained_before = name != "edge.submitted"  # then it is handed in as it is, and not trained a second time
    assert ("round 1 was trained before: handing it in" in again.stderr) is trained_before
