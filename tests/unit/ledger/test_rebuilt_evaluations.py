"""What a run's evaluations were, from their signed records: what somebody has asked for decides nothing, as before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flavor.cook.metrics import binary_counts
from flavor.ledger.audit_evaluations import audit_evaluations
from flavor.ledger.canonical import sha256
from flavor.ledger.chain import Chain, read_chain
from flavor.ledger.evaluation import EvaluationManifest, JudgeRecord, put_manifest
from flavor.ledger.evaluations import EvaluationRecord, Signed, read_records
from flavor.ledger.recover_evaluations import RebuiltEvaluations, rebuilt_evaluations
from flavor.ledger.trust import Trust
from flavor.policy.selection import StopWhen
from flavor.records.evaluation import AUTOMATIC, CENTRAL, BestModel, EvaluationView
from flavor.records.info import CONFUSION, info_bytes
from flavor.records.merging import merge_infos
from flavor.results.evaluated import evaluated_of
from flavor.results.evaluated_table import described
from flavor.results.read_evaluated import from_store
from flavor.store.paths import evaluation_prefix, named
from tests.unit.contributions.madeup import MadeRun, weights

Sites = Mapping[str, Mapping[str, Any]]


def made(tmp_path: Path, **config: object) -> MadeRun:
    """A run of two rounds."""
    run = MadeRun(tmp_path / "store", weights(0, 0), config={"select": "accuracy:max", "evaluate": "every", **config})
    for value in (1, 2):
        run.round({"a": (weights(value, 0), 10), "b": (weights(value, 0), 10)})
    return run


def judge(run: MadeRun, round_: int, number: int, sites: Sites, *, best: int, closed_ms: int, twice: str = "") -> str:
    """Put a signed record: these sites have measured this. `twice` is a site that the record has two times."""
    prefix = evaluation_prefix(run.name, round_, number)
    infos, judges = {}, []
    for site, metrics in sites.items():
        metadata = {"epoch": 1, "datasetSize": 10, "importance": 1.0}
        infos[site] = {"metadata": metadata, "metrics": {**dict.fromkeys(CONFUSION, -1), **metrics}}
        data = info_bytes(infos[site])
        path = named(prefix, f"result-{site}", sha256(data), ".json")
        run.archive.put(path, data)
        judges += [JudgeRecord(client=site, num_examples=10, info_path=path, info_digest=sha256(data))] * (
            2 if site == twice else 1
        )
    merged = merge_infos(list(infos), list(infos.values()))
    if number == CENTRAL:
        merged = {"metadata": {"clients": [], "datasetSize": [10]}, "metrics": dict(*sites.values())}
        judges = []
    data = json.dumps(merged).encode()
    ref = run.archive.put(named(prefix, "merged", sha256(data), ".json"), data)
    model = run.manifests[round_ - 1].global_model
    manifest = EvaluationManifest(
        run=run.name,
        run_id=run.run_id,
        round=round_,
        evaluation=number,
        model_path=model.path,
        model_digest=model.digest,
        opened_ms=closed_ms - 10,
        closed_ms=closed_ms,
        expected=() if number == CENTRAL else tuple(sites),
        judges=tuple(judges),
        missing={},
        central=10 if number == CENTRAL else None,
        best_round=best,
        merged_path=ref.path,
        merged_digest=ref.digest,
    )
    return put_manifest(run.archive, manifest.signed(run.key)).path


def chain_of(run: MadeRun) -> Chain:
    return read_chain(run.archive, Trust(), run_id=run.run_id)


def rebuilt(run: MadeRun) -> RebuiltEvaluations:
    said = list[str]()
    found = rebuilt_evaluations(run.archive, chain_of(run), Trust(), said.append)
    assert not [line for line in said if "had a result" not in line]
    return found


def test_the_best_model_keeps_the_value_of_the_runs_own_evaluation(tmp_path):
    run = made(tmp_path)
    judge(run, 1, AUTOMATIC, {"a": {"accuracy": 0.3}, "b": {"accuracy": 0.4}}, best=1, closed_ms=3_000)
    judge(run, 2, AUTOMATIC, {"a": {"accuracy": 0.5}, "b": {"accuracy": 0.7}}, best=2, closed_ms=3_100)
    before = rebuilt(run)
    assert before.best == BestModel(2, 0.6, 2)
    judge(run, 2, 1, {"a": {"accuracy": 0.5}}, best=2, closed_ms=3_200)
    judge(run, 1, 1, {"c": {"accuracy": 0.9, "more": 1.0}}, best=1, closed_ms=3_300)
    after = rebuilt(run)
    assert after.best == before.best
    assert after.reported == before.reported
    assert set(after.reported) == {"a", "b"}, "a site that was asked has no part in the run's rules"
    assert [(each.round, each.number) for each in after.every] == [(1, 0), (2, 0), (2, 1), (1, 1)]
    own = [each.summary for each in after.every if each.number == AUTOMATIC]
    assert own == [each.summary for each in before.every]


def test_the_best_model_on_the_operators_own_data_keeps_that_value(tmp_path):
    run = made(tmp_path, select="central/accuracy:max")
    judge(run, 1, CENTRAL, {"x": {"central/accuracy": 0.7}}, best=1, closed_ms=2_900)
    judge(run, 2, CENTRAL, {"x": {"central/accuracy": 0.8}}, best=2, closed_ms=3_000)
    judge(run, 2, AUTOMATIC, {"a": {"accuracy": 0.5}}, best=2, closed_ms=3_100)
    judge(run, 2, 1, {"a": {"accuracy": 0.5}}, best=2, closed_ms=3_200)
    assert rebuilt(run).best == BestModel(2, 0.8, 1)


def test_the_store_shows_the_runs_own_evaluation_of_a_round_and_the_newest_of_all(tmp_path):
    run = made(tmp_path)
    judge(run, 1, 1, {"a": {"accuracy": 0.2}}, best=0, closed_ms=3_000)
    judge(run, 2, AUTOMATIC, {"a": {"accuracy": 0.5}, "b": {"accuracy": 0.7}}, best=2, closed_ms=3_100)
    judge(run, 2, 1, {"a": {"accuracy": 0.5}}, best=2, closed_ms=3_200)
    shown = {
        "best": from_store(run.archive, best=True),
        "round 2": from_store(run.archive, 2),
        "round 1": from_store(run.archive, 1),
        "newest": from_store(run.archive),
        "named": from_store(run.archive, 2, 1),
    }
    names = {what: (stored.found.round, stored.found.number) for what, stored in shown.items()}
    assert names == {"best": (2, 0), "round 2": (2, 0), "round 1": (1, 1), "newest": (2, 1), "named": (2, 1)}


@pytest.mark.parametrize("twice", ["", "a"])
def test_a_record_that_has_a_site_twice_is_wrong(tmp_path, twice):
    run = made(tmp_path)
    path = judge(run, 1, AUTOMATIC, {"a": {"accuracy": 0.3}, "b": {"accuracy": 0.4}}, best=1, closed_ms=9, twice=twice)
    ((_, record),) = read_records(run.archive, [path], Signed.of(chain_of(run), Trust()))
    assert isinstance(record, EvaluationRecord)
    assert record.problems == (("a site is in it twice",) if twice else ())


COUNTS = binary_counts([0, 1], [0.25, 0.75], bins=4)
OTHER = binary_counts([0, 1], [0.75, 0.25], bins=8)


@pytest.mark.parametrize(
    ("lost", "why_not", "reported"),
    [
        ({"accuracy": 0.2, **OTHER}, "the counts of c are left out of pooled/auc", {"pooled/auc"}),
        ({"accuracy": 0.2}, "it is not known whether c has a value of pooled/auc: its result cannot be read", set()),
        ({"accuracy": 0.2, **COUNTS}, "", {"pooled/auc"}),
    ],
)
def test_a_lost_result_ends_no_run_and_hides_no_lowest_value(
    tmp_path: Path, lost: Mapping[str, Any], why_not: str, reported: set[str]
) -> None:
    """A site has overwritten its own object: what is merged says whether its value is in it."""
    run = made(tmp_path, stop_when=("pooled/auc>=0.9",))
    own = {f"class {number}": 0.5 for number in range(30)}
    sites = {"a": {**own, "accuracy": 0.7, **COUNTS}, "b": {"accuracy": 0.8, **COUNTS}, "c": lost}
    judge(run, 1, AUTOMATIC, sites, best=1, closed_ms=3_000)
    (path,) = run.folder.rglob("*result-c*")
    path.chmod(0o600)
    path.write_bytes(b"{}")
    said = list[str]()
    found = rebuilt_evaluations(run.archive, chain_of(run), Trust(), said.append)
    assert any("what c has measured of the model of round 1 cannot be read" in line for line in said)
    (each,) = found.every
    rule = StopWhen.parse("pooled/auc>=0.9")
    assert rule.incomplete(each.summary) == why_not
    assert rule.is_met(each.summary) == (None if why_not else 1.0)
    assert {*found.reported.get("c", ())} - {"accuracy"} == reported
    view = EvaluationView.from_hash(1, AUTOMATIC, each.fields, each.verdicts)
    shown = described(evaluated_of(run.name, view, each.summary))
    accuracy = shown["metrics"]["accuracy"]
    assert {*shown["unread"]} == {"c"}
    assert (shown["sites"]["a"]["metrics"]["accuracy"], shown["sites"]["a"]["cut"]) == (0.7, True)
    assert (accuracy["lowest"], accuracy["highest"], accuracy["worst"]) == (None, None, None)
    assert accuracy["plain_mean"] == pytest.approx(1.7 / 3)


@pytest.mark.parametrize(("accuracy", "notices"), [(0.7, 0), (0.6, 1)], ids=["the same results", "others"])
def test_a_record_of_an_attempt_that_was_repeated_is_nothing_to_tell(
    tmp_path: Path, accuracy: float, notices: int
) -> None:
    run = made(tmp_path)
    judge(run, 1, AUTOMATIC, {"a": {"accuracy": accuracy}}, best=0, closed_ms=3_000)
    judge(run, 1, AUTOMATIC, {"a": {"accuracy": 0.7}}, best=1, closed_ms=3_020)
    found = audit_evaluations(run.archive, chain_of(run), Trust())
    assert (found.problems, len(found.records)) == ([], 1)
    assert ["takes its place" in each.what for each in found.notices] == [True] * notices
