"""Row 55: a process dies at each step of an evaluation. The run goes on, and each round is judged once, in order."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

from flavor.failpoints import EVALUATION
from flavor.records.evaluation import AUTOMATIC, EvaluationSummary
from flavor.records.states import EvaluationState, RoundState
from tests.faults.federation import MISSED, TAKEN_OVER
from tests.faults.servers import moved_away
from tests.polled import eventually

EVALUATOR = shlex.join([sys.executable, str(Path(__file__).parents[1] / "integration" / "toy_evaluator.py")])
JUDGED = ("--evaluate", "every")


def armed(name: str) -> dict[str, str]:
    return {"FLAVOR_FAILPOINT": name}


def died(process, name: str) -> None:
    assert process.wait() == -9, f"{name}: {process.stderr}"


def edge(faulty, client: str, *flags: str, trainer: tuple[str, ...] = (), env=None):
    """A site whose trainer waits for rounds until the run is over, and whose evaluator has these flags."""
    named = {"TEST_BUS": faulty.bench.url, **(env or {})}
    command = " ".join([EVALUATOR, *flags])
    return faulty.bench.edge(client, faulty.bench.trainer("--rounds", "endless", *trainer), "-e", command, env=named)


def edges(faulty):
    return {client: edge(faulty, client) for client in faulty.clients}


def assert_judged_once(faulty) -> None:
    """Each round has one result, of all sites, and no site is awaited any more."""
    bench = faulty.bench
    found = [EvaluationSummary.from_json(text) for text in bench.runs.evaluated()]
    assert [each.round for each in found] == list(range(1, bench.runs.read().rounds + 1))
    assert {each.sites for each in found} == {len(faulty.clients)}
    assert bench.runs.evaluating() == []
    events = [entry["event"] for entry in bench.log() if entry["event"] in ("evaluation.opened", "evaluation.closed")]
    assert events == ["evaluation.opened", "evaluation.closed"] * len(found)


def test_a_coordinator_that_dies_in_an_evaluation_is_followed_by_another(faulty):
    """Row 55: killed at each step; no round is judged twice."""
    faulty.bench.aggregator()
    sites = edges(faulty)
    for name in EVALUATION["coordinator"]:
        died(faulty.serve(*MISSED, *TAKEN_OVER, *JUDGED, env=armed(name)), name)
    faulty.finish(faulty.serve(*MISSED, *TAKEN_OVER, *JUDGED), sites)
    assert_judged_once(faulty)


def test_a_worker_that_dies_in_an_evaluation_is_followed_by_another(faulty):
    """Row 55: killed when it has taken a result, and before it commits."""
    coordinator = faulty.serve(*TAKEN_OVER, *JUDGED, "--aggregation-attempts", 5)
    sites = edges(faulty)
    for name in EVALUATION["worker"]:
        died(faulty.bench.aggregator(env=armed(name)), name)
    faulty.bench.aggregator()
    faulty.finish(coordinator, sites)
    assert_judged_once(faulty)


def test_an_edge_that_dies_in_an_evaluation_judges_the_model_when_it_is_back(faulty):
    """Row 55: its result of before its death counts, if it had one."""
    coordinator = faulty.serve("--heartbeat-timeout-s", 2, "--on-quorum-lost", "wait", *JUDGED)
    faulty.bench.aggregator()
    first, other = faulty.clients
    sites = {other: edge(faulty, other, "--hold", "--only", other)}
    for name in EVALUATION["edge"]:
        died(edge(faulty, first, env=armed(name)), name)
    sites[first] = edge(faulty, first)
    faulty.bench.held(other)
    faulty.bench.release(*[other] * faulty.rounds)
    faulty.finish(coordinator, sites)
    assert_judged_once(faulty)


def test_results_are_merged_beside_the_next_round_when_the_worker_and_the_coordinator_have_died(faulty):
    """Row 55: another worker merges them as soon as another coordinator finds them, while the round is still open."""
    bench, held = faulty.bench, ("--hold", "--at", "2")
    options = (*MISSED, *TAKEN_OVER, *JUDGED)
    first = faulty.serve(*options)
    sites = {client: edge(faulty, client, trainer=held) for client in faulty.clients}
    died(bench.aggregator(env=armed("worker.evaluated")), "worker.evaluated")
    for client in faulty.clients:
        bench.held(client)
    assert bench.runs.read_round(2).state is RoundState.OPEN
    assert bench.runs.read_evaluation(1, AUTOMATIC).state is EvaluationState.MERGING
    first.send(signal.SIGKILL)
    first.wait()
    bench.aggregator()
    last = faulty.serve(*options)
    eventually("the evaluation is over", lambda: bench.runs.read_evaluation(1, AUTOMATIC).is_over)
    assert bench.runs.read_round(2).state is RoundState.OPEN
    assert bench.runs.read_evaluation(1, AUTOMATIC).state is EvaluationState.CLOSED
    bench.release(*faulty.clients)
    faulty.finish(last, sites)
    assert_judged_once(faulty)


def test_a_share_that_is_unmounted_while_sites_judge_a_model_costs_no_result(faulty):
    """Row 45: nothing is written there, and the sites wait for it."""
    bench = faulty.bench
    coordinator = faulty.serve(*JUDGED)
    bench.aggregator()
    sites = {client: edge(faulty, client, "--hold", "--in-round", "1", "--report") for client in faulty.clients}
    for client in faulty.clients:
        bench.held(client)
    back = moved_away(bench.store, leave=True)
    bench.release(*faulty.clients)
    for site in sites.values():
        site.until("waiting for the store, for at most 1 d: store file://")
    back()
    faulty.finish(coordinator, sites)
    assert_judged_once(faulty)
    verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert verified.wait() == 0, verified.stdout
