"""An evaluation is closed also where another model becomes the best, or the share is away, while it is merged."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flavor.errors import FlavorError, IllegalMove
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.evaluation import read_manifest
from flavor.records.evaluation import AUTOMATIC, CENTRAL, BestModel, EvaluationSummary, EvaluationView, Result
from flavor.records.info import info_bytes
from flavor.records.objects import ObjectRef
from flavor.records.states import EvaluationState
from flavor.results.read_evaluated import read_merged
from flavor.store.local import LocalStore
from flavor.store.paths import result_prefix, run_record_path
from tests.driven import TOKEN, Driven, info
from workers.closing import close_on_best
from workers.context import WorkerContext
from workers.evaluation import merge_results
from workers.fault import GivenBack

NAME = "central/accuracy"
REF = ObjectRef("p", "d")


@pytest.fixture
def driven(server: str) -> Driven:
    """A run whose newest model is judged by a site, and on the operator's own data."""
    found = Driven(server, select=f"{NAME}:max")
    found.open(["a"])
    found.accept("a")
    found.close()
    found.open_evaluation(["a"])
    found.runs.begin_merge(TOKEN, 1, AUTOMATIC, attempt=1)
    found.open_evaluation([], number=CENTRAL)
    return found


def merging(driven: Driven) -> EvaluationView:
    found = driven.runs.read_evaluation(1, AUTOMATIC)
    assert found is not None
    return found


def commit(driven: Driven, best: BestModel | None) -> str:
    summary = EvaluationSummary(1, AUTOMATIC, 1, sites=1, expected=1, examples=1)
    driven.runs.commit_evaluation(
        1,
        AUTOMATIC,
        attempt=1,
        verdicts={},
        info=REF,
        manifest=REF,
        summary=summary,
        reason="merged",
        before=best,
        best=best,
    )
    return "merged"


def test_it_is_closed_beside_the_model_that_has_become_the_best(driven):
    told = []

    def close(best: BestModel | None) -> str:
        told.append(best and best.round)
        if len(told) == 1:
            driven.judge_centrally(100, {NAME: 0.9}, 1)
        return commit(driven, best)

    assert close_on_best(driven.runs, merging(driven), None, close) == "merged"
    assert told == [None, 1]
    assert merging(driven).state is EvaluationState.CLOSED
    assert driven.runs.read().best.round == 1


def test_it_says_so_where_the_best_changes_each_time(driven):
    def close(best: BestModel | None) -> str:
        now = (best.round if best else 0) + 1
        fields = {"best_round": now, "best_value": "0.5", "best_sites": 1}
        driven.runs.redis.hset(driven.runs.keys.state, mapping=fields)
        return commit(driven, best)

    with pytest.raises(FlavorError, match="another model became the best in each of 5 attempts"):
        close_on_best(driven.runs, merging(driven), None, close)
    assert merging(driven).state is EvaluationState.MERGING


def test_another_worker_that_was_faster_is_left_alone(driven):
    evaluation = merging(driven)
    commit(driven, None)
    with pytest.raises(IllegalMove):
        close_on_best(driven.runs, evaluation, None, lambda best: commit(driven, best))


class Unmounting(LocalStore):
    """A folder whose share is unmounted before a number of objects has been put."""

    puts_left = 0

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        self.puts_left -= 1
        if self.puts_left == 0:
            self.folder.rename(self.folder.with_name("elsewhere"))
            self.folder.mkdir()
        with super().stage() as staged:
            yield staged

    @property
    def folder(self) -> Path:
        return Path(self.url.removeprefix("file://"))

    def mount_again(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.with_name("elsewhere").rename(self.folder)


def handed_in(
    server: str, store: LocalStore, sites: list[str], *, timeout_s: float = 600.0, more: int = 0, **settings: object
) -> Driven:
    """A run whose newest model is judged by these sites: the first one has handed in its result, which is merged.

    It has `more` metrics before `accuracy`.
    """
    driven = Driven(server, store, **settings)
    driven._place(run_record_path(driven.runs.run), json.dumps({"run_id": driven.runs.read().run_id}).encode())
    driven.open(["a"])
    driven.accept("a")
    driven.close()
    driven.open_evaluation(sites, timeout_s=timeout_s)
    data = info_bytes(info(10, {**{f"class {number}": 0.1 for number in range(more)}, "accuracy": 0.5}))
    place = result_prefix(driven.runs.run, 1, AUTOMATIC, sites[0])
    ref = replace(driven._place(f"{place}{sha256(data)[:16]}.json", data), size_bytes=None)
    result = Result(ref, 10, merging(driven).model.model.digest)
    driven.runs.redis.hset(driven.runs.keys.client(sites[0]).result(1, AUTOMATIC), mapping=result.to_hash())
    driven.runs.begin_merge(TOKEN, 1, AUTOMATIC, attempt=1)
    return driven


def test_a_verdict_has_the_metric_of_the_run_s_rule_also_of_a_site_with_many_others(server, tmp_path):
    store = LocalStore(tmp_path / "store", create=True)
    driven = handed_in(server, store, ["a"], more=25, select="accuracy:max")
    context = WorkerContext(driven.runs.redis, server, store)
    assert merge_results(context, driven.runs.run, 1, AUTOMATIC, attempt=1)
    verdict = merging(driven).verdicts["a"]
    assert (verdict.metrics["accuracy"], verdict.is_cut) == (0.5, True)


@pytest.mark.parametrize("timeout_s", [600.0, 0.0], ids=["before the deadline", "after it"])
def test_a_site_without_a_result_is_missing_for_a_true_reason(server, tmp_path, timeout_s):
    store = LocalStore(tmp_path / "store", create=True)
    driven = handed_in(server, store, ["a", "gone", "left", "revoked", "there"], timeout_s=timeout_s)
    for site, state in {"gone": "ready", "left": "left", "revoked": "revoked", "there": "ready"}.items():
        driven.runs.redis.hset(driven.runs.keys.client(site).hash, "state", state)
    driven.runs.redis.set(driven.runs.keys.client("there").lease, "token", ex=5)
    context = WorkerContext(driven.runs.redis, server, store)
    assert merge_results(context, driven.runs.run, 1, AUTOMATIC, attempt=1)
    assert {site: each.reason for site, each in merging(driven).verdicts.items() if not each.accepted} == {
        "gone": "it was gone before it handed in a result",
        "left": "it has left the run without a result",
        "revoked": "it was revoked",
        "there": "it was gone when the others had handed in, or it is quarantined: it was not waited for"
        if timeout_s
        else "it handed in no result in time",
    }


@pytest.mark.parametrize("puts", [1, 2], ids=["the merged information", "the record"])
def test_nothing_is_lost_where_the_share_is_unmounted_while_results_are_merged(server, tmp_path, puts):
    (tmp_path / "store").mkdir()
    store = Unmounting(tmp_path / "store", create=True)
    driven = handed_in(server, store, ["a"])
    view = driven.runs.read()
    context, name = WorkerContext(driven.runs.redis, server, store), (view.run, 1, AUTOMATIC)
    store.puts_left = puts
    with pytest.raises(GivenBack, match="/store: an empty folder, as where no share is mounted: check"):
        merge_results(context, *name, attempt=1)
    assert merging(driven).state is EvaluationState.MERGING
    store.mount_again()
    assert merge_results(context, *name, attempt=1)
    closed = merging(driven)
    assert closed.state is EvaluationState.CLOSED
    assert closed.info is not None
    assert read_merged(store, closed.info)["metrics"]["accuracy"] == 0.5
    assert read_manifest(Archive(store, view.run), closed.manifest).judges[0].client == "a"
