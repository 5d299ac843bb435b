"""An edge that comes back into a round that was opened again without it."""

from __future__ import annotations

import signal

from tests.faults.federation import MISSED


def test_what_a_client_hands_in_for_a_round_opened_again_without_it_is_judged(faulty):
    """Row 11: its task of the first opening is still there, so it trains, and Redis takes its update."""
    faulty.clients, faulty.rounds, bench = ("c1", "c2", "c3"), 2, faulty.bench
    options = ("--quorum", 2, *MISSED[:2], "--on-quorum-lost", "retry", "--round-attempts", 9, "--round-timeout-s", 6)
    coordinator = faulty.serve(*options)
    bench.aggregator()
    held = ("--hold", "--at", 1)
    edges = faulty.edges(only={"c2": held, "c3": held})
    bench.held("c2")
    bench.held("c3")
    edges["c3"].send(signal.SIGKILL)
    bench.logged("update.accepted", client="c1", round=1)
    bench.logged("round.reopened", round=1)
    assert bench.runs.read_round(1).expected == ("c1", "c2")
    edges["c3"] = bench.edge("c3", bench.trainer())
    update = bench.runs.keys.client("c3").update(1)
    bench.eventually("c3 has handed in", lambda: bench.redis.exists(update))
    bench.release("c2")
    faulty.finish(coordinator, edges)
    assert bench.logged("update.refused", client="c3", round=1)["reason"] == "late: round 1 no longer takes updates"
