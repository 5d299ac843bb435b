"""The end of a run hears that results are merged which were handed in, and gives up what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flavor.bus.connection import connect
from flavor.bus.subscription import Subscription
from flavor.coordinator.evaluations import SiteEvaluations
from flavor.ledger.evaluation import JudgeRecord
from flavor.records.evaluation import AUTOMATIC, EvaluationSummary
from flavor.records.states import EvaluationState
from flavor.store.local import LocalStore
from flavor.view.observer import Silent
from tests.driven import TOKEN, Driven, info

JUDGE = JudgeRecord(client="c1", num_examples=10, info_path="result.json", info_digest="a" * 64)


class Workers:
    """Stands for the queue: how many aggregators are there, each time that one asks."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = [*numbers]

    def workers(self) -> int:
        return self._numbers.pop(0)


class Lease:
    token = TOKEN


def merging(server: str, tmp_path: Path) -> Driven:
    run = Driven(server, LocalStore(tmp_path / "store", create=True))
    run.open(["c1"])
    run.accept("c1", 10, {})
    run.close()
    run.open_evaluation(["c1"])
    run.runs.begin_merge(TOKEN, 1, AUTOMATIC, attempt=1)
    return run


def evaluations(run: Driven, *numbers: int) -> SiteEvaluations:
    nothing: Any = None
    jobs: Any = Workers(*numbers)
    lease: Any = Lease()
    return SiteEvaluations(run.runs, run.config, nothing, members=nothing, jobs=jobs, lease=lease, observer=Silent())


def test_the_publication_of_the_result_ends_the_wait(server: str, tmp_path: Path) -> None:
    run = merging(server, tmp_path)
    subscription = Subscription(connect(server), server, patterns=[run.runs.keys.rounds_pattern])
    subscription.open()
    heard = list[list[str]]()

    def hear(timeout_s: float) -> None:
        summary = EvaluationSummary(1, AUTOMATIC, 1, 0, 1, 1, 10, {"accuracy": 0.5})
        run._commit_evaluation(summary, info(10, {"accuracy": 0.5}), {}, judges=(JUDGE,))
        heard.append(subscription.wait(timeout_s))

    try:
        evaluations(run, 1).give_up_open(hear)
    finally:
        subscription.close()
    view = run.runs.read_evaluation(1, AUTOMATIC)
    assert view is not None
    assert view.state is EvaluationState.CLOSED
    assert heard == [[run.runs.keys.evaluation(1, AUTOMATIC)]]


def test_no_result_is_waited_for_once_the_aggregator_is_gone(server: str, tmp_path: Path) -> None:
    run = merging(server, tmp_path)
    waited = list[float]()
    evaluations(run, 1, 1, 0).give_up_open(waited.append)
    view = run.runs.read_evaluation(1, AUTOMATIC)
    assert view is not None
    assert (view.state, view.reason) == (EvaluationState.FAILED, "the run ended before its result")
    assert len(waited) == 2
    assert all(0 < each <= 1 for each in waited)
