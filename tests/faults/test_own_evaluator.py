"""Row 56: something dies while a model is judged on the operator's own data. Each model has one result."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from flavor.bus.jobs import RqJobQueue
from flavor.failpoints import CENTRAL as FAILPOINTS
from flavor.records.evaluation import CENTRAL, EvaluationSummary
from tests.faults.federation import MISSED, TAKEN_OVER
from tests.faults.servers import moved_away

EVALUATOR = shlex.join([sys.executable, str(Path(__file__).parents[1] / "integration" / "toy_evaluator.py")])
JUDGED = ("--evaluate", "final")


def armed(name: str) -> dict[str, str]:
    return {"FLAVOR_FAILPOINT": name}


def died(process, name: str) -> None:
    assert process.wait() == -9, f"{name}: {process.stderr}"


def judges(faulty, *flags: str, options=(), env=None):
    """An aggregator that judges models, too."""
    bench = faulty.bench
    data = bench.folder / "data"
    data.mkdir(exist_ok=True)
    words = ["-e", " ".join([EVALUATOR, *flags]), "--evaluate-input", data, "--workspace", bench.folder / "agg"]
    return bench.aggregator(*words, "--env", "TEST_BUS", *options, env={"TEST_BUS": bench.url, **(env or {})})


def sites(faulty):
    """Sites whose trainers wait for rounds until the run is over."""
    bench = faulty.bench
    return {client: bench.edge(client, bench.trainer("--rounds", "endless")) for client in faulty.clients}


def queue_of(bench) -> RqJobQueue:
    return RqJobQueue(bench.url, bench.run, timeout_s=60)


def results(faulty) -> list[int]:
    """The rounds whose models have a result; the accuracy of that of round r is r x 5/3 by 100, plus 1 / 1000."""
    found = [EvaluationSummary.from_json(text) for text in faulty.bench.runs.evaluated()]
    for each in found:
        assert each.number == CENTRAL
        assert abs(each.metrics["central/accuracy"] - (each.round * 5 / 300 + 0.001)) < 1e-7
    assert faulty.bench.runs.evaluating() == []
    return [each.round for each in found]


def test_a_coordinator_that_dies_when_it_has_a_model_judged_is_followed_by_another(faulty):
    """Row 56: killed before and after it has opened the evaluation."""
    judges(faulty)
    edges = sites(faulty)
    for name in FAILPOINTS["coordinator"]:
        died(faulty.serve(*MISSED, *TAKEN_OVER, *JUDGED, env=armed(name)), name)
    faulty.finish(faulty.serve(*MISSED, *TAKEN_OVER, *JUDGED), edges)
    assert results(faulty) == [faulty.rounds]


def test_a_worker_that_dies_while_it_judges_is_followed_by_another(faulty):
    """Row 56: killed while the evaluator runs, and before it commits."""
    first, *others = FAILPOINTS["worker"]
    worker = judges(faulty, env=armed(first))
    faulty.bench.eventually("it is there when the last round closes", queue_of(faulty.bench).judges)
    faulty.bench.aggregator()
    coordinator = faulty.serve(*TAKEN_OVER, *JUDGED, "--aggregation-attempts", 5)
    edges = sites(faulty)
    died(worker, first)
    for name in others:
        died(judges(faulty, env=armed(name)), name)
    judges(faulty)
    faulty.finish(coordinator, edges)
    assert results(faulty) == [faulty.rounds]
    assert faulty.bench.runs.read_evaluation(faulty.rounds, CENTRAL).attempt == 3


def test_an_evaluator_that_is_killed_costs_its_result_alone(faulty):
    """Row 56: by the kernel, for want of memory."""
    judges(faulty, "--fail", "killed")
    coordinator = faulty.serve(*JUDGED)
    edges = sites(faulty)
    faulty.finish(coordinator, edges)
    assert results(faulty) == []
    assert "its evaluator ended (killed by SIGKILL" in faulty.bench.logged("evaluation.failed")["reason"]


def test_a_worker_without_the_runs_store_leaves_the_model_to_another(faulty):
    """Row 56: its share is not mounted; no site is refused, and the model has its result."""
    bench = faulty.bench
    empty = bench.folder / "not-mounted"
    empty.mkdir()
    judges(faulty, options=["--store", empty])
    coordinator = faulty.serve(*TAKEN_OVER, *JUDGED)
    edges = sites(faulty)
    bench.aggregator()
    judges(faulty)
    faulty.finish(coordinator, edges)
    assert results(faulty) == [faulty.rounds]


def test_a_share_that_is_unmounted_while_a_model_is_judged_costs_no_result(faulty):
    """Row 45: nothing is written there; the worker gives its work back, and judges the model again."""
    bench = faulty.bench
    worker = judges(faulty, "--hold", "--in-round", str(faulty.rounds))
    coordinator = faulty.serve(*JUDGED)
    edges = sites(faulty)
    bench.held("central")
    back = moved_away(bench.store, leave=True)
    bench.release("central")
    worker.until("is the share mounted?")
    back()
    bench.held("central")
    bench.release("central")
    faulty.finish(coordinator, edges)
    assert results(faulty) == [faulty.rounds]
    view = bench.runs.read_evaluation(faulty.rounds, CENTRAL)
    assert (bench.store / view.manifest.path).exists()
