"""The work that evaluations need of workers: one that has other work, one that takes long, and one that is faster."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flavor.bus.jobs import RqJobQueue
from flavor.bus.runs import RunStore
from flavor.coordinator.evaluation_job import EvaluationJob, give_up, give_up_open
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationKind
from flavor.records.states import EvaluationState
from flavor.store.local import LocalStore
from tests.driven import TOKEN, Driven
from tests.integration.test_closing import handed_in
from tests.integration.test_evaluation import evaluator, finish
from tests.polled import eventually
from workers.context import WorkerContext
from workers.evaluation import merge_results
from workers.in_hand import in_hand

LEASE_S = 0.3


def test_results_wait_for_an_aggregator_that_another_run_keeps_busy(bench, bench_at):
    """One aggregator for two runs. The aggregation of the other run outlasts all attempts of this one's evaluation."""
    gate, other = bench.folder / "gate", bench_at(bench.url)
    os.mkfifo(gate)
    toy = [sys.executable, str(Path(__file__).with_name("toy_aggregator.py")), "--fail", "hold", "--at", "2"]
    options = ("--aggregation-lease-s", LEASE_S, "--heartbeat-timeout-s", 1)
    coordinator = bench.serve(*options, rounds=1)
    bench.aggregator("-m", shlex.join([*toy, "--gate", str(gate)]))
    held = evaluator("--hold", "--only", "c1")
    edges = {
        client: bench.edge(client, bench.trainer(), "-e", held, env={"TEST_BUS": bench.url}) for client in ("c1", "c2")
    }
    bench.held("c1")
    words = ("--rounds", 2, "--min-clients", 1, "--queue", bench.run, "--store", bench.store, *options)
    serving = other.start("flavor", "serve", "--run", other.run, *words)
    site = other.start(
        *("flavor-fl", "--run", other.run, "--client", "o1", "-m", other.trainer()),
        *("--workspace", other.folder / "o1", "--store", bench.store),
    )
    with open(gate, "wb"):  # waits until the aggregator reads there
        bench.release("c1")
        said = "no aggregator on queue"
        eventually("it says so", lambda: any(said in entry.get("reason", "") for entry in bench.log()))
        merging = bench.runs.read_evaluation(1, AUTOMATIC)
        last_ms = merging.merging_ms + 5 * LEASE_S * 1000
        eventually("all attempts would be used up", lambda: bench.runs.now_ms() > last_ms)
        now = bench.runs.read_evaluation(1, AUTOMATIC)
        assert (now.state, now.attempt) == (EvaluationState.MERGING, 1)
    finish(coordinator, edges)
    assert serving.wait() == 0, serving.stderr
    assert site.wait() == 0
    assert bench.runs.read_evaluation(1, AUTOMATIC).state is EvaluationState.CLOSED


class Slow(LocalStore):
    """Calls `hook` when the first object is read, once."""

    hook: Callable[[], object] | None = None

    def read(self, *words, **named):
        hook, self.hook = self.hook, None
        if hook is not None:
            hook()
        return super().read(*words, **named)


@pytest.fixture
def slow(server: str, tmp_path: Path) -> tuple[Driven, WorkerContext, EvaluationJob]:
    store = Slow(tmp_path / "store", create=True)
    driven = handed_in(server, store, ["a"], aggregation_lease_s=LEASE_S)
    jobs = RqJobQueue(server, driven.runs.run, timeout_s=60)
    return driven, WorkerContext(driven.runs.redis, server, store), EvaluationJob(driven.runs, jobs, driven.config)


def merge(driven: Driven, context: WorkerContext) -> bool:
    return merge_results(context, driven.runs.run, 1, AUTOMATIC, attempt=1)


def test_a_merge_that_takes_longer_than_its_lease_goes_on_and_no_other_one_begins(slow):
    driven, context, job = slow
    view = driven.runs.read_evaluation(1, AUTOMATIC)
    key, others = driven.runs.keys.evaluation_lease(1, AUTOMATIC), []

    def long() -> None:
        until_ms = driven.runs.now_ms() + 3 * LEASE_S * 1000
        eventually("the lease would have run out", lambda: driven.runs.now_ms() > until_ms)
        found = job.look(view, driven.runs.now_ms(), anew=True)
        assert (found.is_taken, found.is_lost(driven.config), found.workers) == (True, False, None)
        others.append(merge(driven, context))

    context.store.hook = long
    assert merge(driven, context)
    assert others == [False], "a second job of the same attempt does nothing"
    assert driven.runs.read_evaluation(1, AUTOMATIC).state is EvaluationState.CLOSED
    assert not driven.runs.redis.exists(key)


def test_the_lease_is_free_when_an_error_is_reported_because_another_attempt_begins_at_once(slow, monkeypatch):
    driven, context, _ = slow
    held = []
    fail_merge = RunStore.fail_merge

    def failing(runs: RunStore, *words, **named) -> None:
        held.append(runs.is_in_hand(1, AUTOMATIC))
        fail_merge(runs, *words, **named)

    def broken() -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(RunStore, "fail_merge", failing)
    monkeypatch.setattr(context.store, "hook", None)
    monkeypatch.setattr("workers.evaluation.merge_infos", lambda *_: broken())
    assert not merge(driven, context)
    assert held == [False]
    assert driven.runs.read_evaluation(1, AUTOMATIC).error == "RuntimeError: odd"


def test_a_job_that_no_worker_has_and_that_is_in_no_queue_is_lost(slow):
    driven, _, job = slow
    runs = driven.runs
    view = runs.read_evaluation(1, AUTOMATIC)
    with in_hand(runs, runs.read_own(), view) as is_ours:
        assert is_ours
        assert job.look(view, runs.now_ms(), anew=True).is_taken
    eventually("it is lost", lambda: job.look(view, runs.now_ms(), anew=True).is_lost(driven.config))
    assert job.look(view, runs.now_ms()).workers == 0
    again = job.begin(TOKEN, view)
    assert (again.attempt, runs.read_evaluation(1, AUTOMATIC).attempt) == (2, 2)
    found = job.look(again, runs.now_ms(), anew=True)
    assert (found.lost_s, found.is_taken) == (0, False), "it is in the queue"


@pytest.mark.parametrize("kind", EvaluationKind)
def test_an_evaluation_that_a_worker_has_just_closed_is_not_given_up(server, kind):
    driven = Driven(server)
    driven.open(["a"])
    driven.accept("a")
    driven.close()
    number = {EvaluationKind.SITES: AUTOMATIC, EvaluationKind.CENTRAL: CENTRAL}.get(kind, 1)
    runs, by = driven.runs, driven.runs.keys.evaluator if kind is EvaluationKind.ASKED else ""
    if by:
        runs.redis.set(by, TOKEN)
    driven.open_evaluation([], number=number)  # by the token that both leases have
    if kind is not EvaluationKind.CENTRAL:
        runs.begin_merge(TOKEN, 1, number, attempt=1, by=by)
    read = []

    def closing(round_: int, name: int):
        view = runs.read_evaluation(round_, name)
        driven.judge_centrally(3, {"central/accuracy": 0.5}, 1) if kind is EvaluationKind.CENTRAL else runs.redis.hset(
            runs.keys.evaluation(round_, name), "state", "closed"
        )
        read.append(name)
        return view

    give_up_open(runs, TOKEN, kind, lambda _: "the end", by=by, read=closing)
    assert read == [number], "and those of other kinds are not even read"
    view = runs.read_evaluation(1, number)
    assert view.state is EvaluationState.CLOSED
    assert not give_up(runs, TOKEN, view, "the end", by=by)
