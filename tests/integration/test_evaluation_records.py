"""Signed records of evaluations: `flavor verify` checks them, `flavor recover` rebuilds what Redis had of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flavor.ledger.evaluation import EvaluationManifest
from flavor.ledger.keys import SigningKey
from flavor.records.evaluation import EvaluationSummary
from tests.integration.test_evaluation import finish, start


def verified(bench, *args: object) -> tuple[dict, str]:
    done = bench.done("flavor", "verify", bench.run, "--store", bench.store, "--json", *args)
    return json.loads(done.stdout), done.stderr


def overwrite(path: Path, text: str) -> None:
    path.chmod(0o600)
    path.write_text(text)


@pytest.fixture
def judged(bench):
    """A run of two rounds whose models c1 and c2 have judged, and of which c3 could not say anything."""
    flags = ["--fail", "exit", "--only", "c3"]
    options = ["--select", "worst/accuracy:min", "--require-signatures"]
    coordinator, edges = start(bench, *options, flags=flags, clients=("c1", "c2", "c3"))
    finish(coordinator, edges)
    return bench


def record_of(bench, round_: int) -> Path:
    (found,) = bench.store.rglob(f"{round_:04d}-0-manifest-*.json")
    return found


def test_the_records_of_evaluations_are_right(judged):
    found, stderr = verified(judged)
    assert found["problems"] == []
    assert not [notice for notice in found["notices"] if "evaluation" in notice["path"] + notice["what"]], stderr
    assert [(each["round"], each["verdict"]) for each in found["evaluations"]] == [(1, "ok"), (2, "ok")]
    assert "c3" in found["evaluations"][0]["manifest"]["missing"]
    key = found["evaluations"][0]["manifest"]["public_key"]
    assert verified(judged, "--trust", key)[0]["problems"] == []
    told = judged.done("flavor", "verify", judged.run, "--store", judged.store).stdout
    assert "2 evaluations, of the models of rounds 1, 2" in told


def test_what_was_changed_removed_or_made_up_is_named(judged):
    record = record_of(judged, 2)
    (result,) = judged.store.rglob("*0002-0-result-c1-*.json")
    (merged,) = judged.store.rglob("*0001-0-merged-*.json")
    overwrite(result, result.read_text().replace("100", "900"))
    merged.unlink()
    wrong = {Path(each["path"]).name: each["what"] for each in verified(judged)[0]["problems"]}
    assert wrong.keys() == {result.name, merged.name}
    assert "the result of the evaluation of c1 was changed" in wrong[result.name]
    assert "missing: the merged information of the evaluation" in wrong[merged.name]

    manifest = EvaluationManifest.parse(record.read_bytes(), "")
    key = SigningKey.generate()
    other = manifest.model_copy(update={"best_round": 2}).signed(key)
    forged = {
        "signature": manifest.model_copy(update={"best_round": 2}).to_bytes(),
        "other key": other.to_bytes(),
        "other model": manifest.model_copy(update={"model_digest": "f" * 64}).signed(key).to_bytes(),
        "other run": manifest.model_copy(update={"run_id": "0" * 32}).signed(key).to_bytes(),
        "no record": b"{}",
    }
    said = {
        "signature": "the signature is not that of its key",
        "other key": "it was changed: its SHA-256 is",
        "other model": "it is of the model ffffffffffff…",
        "other run": "it is of another run of this name",
        "no record": record.name,
    }
    for name, data in forged.items():
        overwrite(record, data.decode())
        problems = [f"{each['path']}: {each['what']}" for each in verified(judged)[0]["problems"]]
        assert any(said[name] in each for each in problems if record.name in each), (name, problems)
    beside = record.with_name(f"0002-0-manifest-{other.digest[:16]}.json")
    overwrite(record, manifest.to_bytes().decode())
    beside.write_bytes(other.to_bytes())
    found, _ = verified(judged)
    assert any("which has signed no round" in each["what"] for each in found["notices"])
    trusted, _ = verified(judged, "--trust", manifest.public_key)
    assert any("which --trust does not name" in each["what"] for each in trusted["problems"])


def test_objects_that_no_record_names_are_named(judged):
    folder = record_of(judged, 1).parent
    stray = folder / "0001-0-result-c9-0123456789abcdef.json"
    stray.write_text("{}")
    found, _ = verified(judged)
    assert any(stray.name in each["path"] and "was changed" in each["what"] for each in found["problems"])
    assert any(stray.name in each["path"] and "no record of an evaluation" in each["what"] for each in found["notices"])


def test_a_run_that_is_rebuilt_has_its_evaluations_and_its_best_model(judged):
    runs = judged.runs
    before, view = runs.evaluated(), runs.read()
    assert view.best is not None
    table = judged.done("flavor", "results", judged.run, "--json").stdout
    judged.redis.flushall()
    done = judged.done("flavor", "recover", "--run", judged.run, "--store", judged.store, "--untrusted")
    assert done.wait() == 0, done.stderr
    assert runs.read().best == view.best
    rebuilt = [EvaluationSummary.from_json(text) for text in runs.evaluated()]
    for one, other in zip(rebuilt, map(EvaluationSummary.from_json, before), strict=True):
        assert (one.round, one.metrics, one.spread, one.few) == (other.round, other.metrics, other.spread, other.few)
        assert (one.sites, one.expected, one.examples) == (other.sites, other.expected, other.examples)
        assert (one.best_before, one.beside) == (other.best_before, other.beside)
    assert rebuilt[1].best_before == 1
    again, first = json.loads(judged.done("flavor", "results", judged.run, "--json").stdout), json.loads(table)
    assert {**again, "closed_ms": 0} == {**first, "closed_ms": 0}
    assert judged.done("flavor", "rm", judged.run, "--objects", "--store", judged.store).wait() == 0
    assert judged.redis.keys(f"flavor:{{{judged.run}}}*") == []
    assert not [path for path in judged.store.rglob("*") if path.is_file() and judged.run in path.parts]


def test_a_record_that_is_not_believed_is_not_rebuilt(judged):
    record = record_of(judged, 1)
    manifest = EvaluationManifest.parse(record.read_bytes(), "")
    overwrite(record, manifest.model_copy(update={"best_round": 2}).to_bytes().decode())
    judged.redis.flushall()
    done = judged.done("flavor", "recover", "--run", judged.run, "--store", judged.store, "--untrusted")
    assert done.wait() == 0, done.stderr
    assert f"{record.name}: it was changed" in done.stderr
    assert [EvaluationSummary.from_json(text).round for text in judged.runs.evaluated()] == [2]
    assert "whose evaluation cannot be read: none is the best now" in done.stderr
    assert judged.runs.read().best is None
