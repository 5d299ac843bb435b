"""Signed records of evaluations: `flavor verify` checks them, `flavor recover` rebuilds what Redis had of them."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from flavor.bus.admission import replace_key
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.evaluation import EvaluationManifest, JudgeRecord, put_manifest
from flavor.ledger.keys import SigningKey
from flavor.records.evaluation import BestModel, EvaluationSummary
from flavor.records.merging import merge_infos
from flavor.store.local import LocalStore
from flavor.store.paths import evaluation_prefix, named
from tests.integration.test_evaluation import finish, start
from tests.integration.test_judging_site import judge

CONFUSION = dict.fromkeys((f"basic/confusion_{of}" for of in ("tp", "fp", "fn", "tn")), -1)


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
    (problem,) = (each for each in verified(judged)[0]["problems"] if each["path"].endswith(beside.name))
    assert "which has signed no round" in problem["what"]
    assert "another record of this evaluation" in problem["what"]
    trusted, _ = verified(judged, "--trust", manifest.public_key)
    assert any("which --trust does not name" in each["what"] for each in trusted["problems"])
    record.unlink()
    found, _ = verified(judged)
    assert not [each for each in found["problems"] if "-manifest-" in each["path"]]
    (notice,) = (each["what"] for each in found["notices"] if each["path"].endswith(beside.name))
    assert "which has signed no round" in notice
    assert "do not believe it" in notice


def made_up(bench, round_: int, best_round: int, *, days: int = 0) -> EvaluationManifest:
    """Put a record into the store that c1 has made up of its own result, and signed with its own key."""
    archive = Archive(LocalStore(bench.store), bench.run)
    true = EvaluationManifest.parse(record_of(bench, round_).read_bytes(), "")
    key = SigningKey.load_or_create(bench.folder / "c1" / "client.key", "c1")
    prefix = evaluation_prefix(bench.run, round_, 0)
    info = {"metadata": {"epoch": 1, "importance": 1.0, "datasetSize": 100}, "metrics": {**CONFUSION, "accuracy": 0.99}}
    data = json.dumps(info).encode()
    ref = archive.put(named(prefix, "result-c1", sha256(data), ".json"), data)
    judge = JudgeRecord(client="c1", num_examples=100, info_path=ref.path, info_digest=ref.digest)
    signature = key.sign(true.statement(judge).message())
    judge = judge.model_copy(update={"public_key": str(key.public), "signature": signature})
    data = json.dumps(merge_infos(["c1"], [info])).encode()
    merged = archive.put(named(prefix, "merged", sha256(data), ".json"), data)
    fields = {
        "closed_ms": true.closed_ms + days * 86_400_000,
        "expected": ("c1",),
        "judges": (judge,),
        "missing": {},
        "best_round": best_round,
        "merged_path": merged.path,
        "merged_digest": merged.digest,
    }
    forged = true.model_copy(update=fields).signed(key)
    put_manifest(archive, forged)
    return forged


def test_a_record_that_a_site_has_signed_is_not_believed(judged):
    before = json.loads(judged.done("flavor", "results", judged.run, "--json").stdout)
    best = judged.runs.read().best
    true = EvaluationManifest.parse(record_of(judged, 2).read_bytes(), "")
    forged = made_up(judged, 2, 3 - true.best_round, days=10)
    (problem,) = verified(judged)[0]["problems"]
    assert forged.digest[:16] in problem["path"]
    assert "another record of this evaluation" in problem["what"]
    (shown,) = (each for each in verified(judged)[0]["evaluations"] if each["round"] == 2)
    assert shown["digest"] == true.digest

    done = judged.done("flavor", "results", judged.run, "--json", "--store", judged.store)
    found = json.loads(done.stdout)
    assert found["best_round"] == true.best_round
    assert found["signed_by"] == true.public_key
    assert found["sites"] == before["sites"]
    assert f"{forged.digest[:16]}.json: it is signed with key" in done.stderr

    head = verified(judged)[0]["head"]
    for options in (["--head", head], ["--untrusted"], ["--trust", true.public_key]):
        judged.redis.flushall()
        done = judged.done("flavor", "recover", "--run", judged.run, "--store", judged.store, *options)
        assert done.wait() == 0, done.stderr
        assert f"{forged.digest[:16]}.json: it is signed with key" in done.stderr
        assert judged.runs.read().best == best
        assert [EvaluationSummary.from_json(text).round for text in judged.runs.evaluated()] == [1, 2]


def test_a_lone_record_that_a_site_has_signed_is_left_out(judged):
    record = record_of(judged, 2)
    forged = made_up(judged, 2, 1)
    record.unlink()
    refused = judged.done("flavor", "results", judged.run, "--round", 2, "--store", judged.store)
    assert refused.wait() == 1
    assert "which has signed no round" in refused.stderr
    judged.redis.flushall()
    done = judged.done("flavor", "recover", "--run", judged.run, "--store", judged.store, "--untrusted")
    assert f"{forged.digest[:16]}.json: it is signed with key" in done.stderr
    assert [EvaluationSummary.from_json(text).round for text in judged.runs.evaluated()] == [1]


def test_a_site_that_only_judges_and_has_another_key_is_named(bench):
    coordinator = bench.serve("--evaluate", "every", rounds=1, clients=1)
    bench.aggregator()
    site = judge(bench, "v3")
    bench.logged("client.joined", client="v3")
    bench.edge("c1", bench.trainer())
    assert coordinator.wait() == 0, coordinator.stderr
    key = EvaluationManifest.parse(record_of(bench, 1).read_bytes(), "").public_key

    def judged_with_another_key(name: str) -> None:
        nonlocal site
        site.send(signal.SIGTERM)
        site.wait()
        shutil.rmtree(bench.folder / "v3")
        if name == "enrolled":
            replace_key(bench.runs, "v3", "")
        else:
            bench.redis.hdel(bench.runs.keys.public_keys, "v3")
        site = judge(bench, "v3")
        site.until("this site stays")
        done = bench.done("flavor", "evaluate", bench.run, "--store", bench.store)
        assert done.wait() == 0, done.stderr

    judged_with_another_key("enrolled")
    found, _ = verified(bench, "--trust", key)
    assert found["problems"] == []
    (notice,) = (each["what"] for each in found["notices"] if "v3: " in each["what"])
    assert "with key" in notice
    assert notice.endswith("an operator enrolled it anew")
    (problem,) = verified(bench)[0]["problems"]
    assert "which --trust AGGREGATOR believes" in problem["what"]

    judged_with_another_key("changed in Redis")
    (problem,) = verified(bench, "--trust", key)[0]["problems"]
    assert "-2-manifest-" in problem["path"]
    assert "v3: its result is signed with key" in problem["what"]
    assert "--trust 'v3 ed25519:" in problem["what"]
    shown = json.loads(
        bench.done("flavor", "results", bench.run, "--json", "--store", bench.store, "--trust", key).stdout
    )
    assert shown["evaluation"] == 1


def test_objects_that_no_record_names_are_named(judged):
    folder = record_of(judged, 1).parent
    stray = folder / "0001-0-result-c9-0123456789abcdef.json"
    stray.write_text("{}")
    found, _ = verified(judged)
    assert any(stray.name in each["path"] and "was changed" in each["what"] for each in found["problems"])
    assert any(stray.name in each["path"] and "no record of an evaluation" in each["what"] for each in found["notices"])


def test_a_run_that_is_rebuilt_has_its_evaluations_and_its_best_model(judged, subtests):
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
        assert (one.missing.count, one.missing) == (one.expected - one.sites, other.missing)
        assert (one.best_before, one.comparison) == (other.best_before, other.comparison)
    assert rebuilt[1].best_before == 1
    again, first = json.loads(judged.done("flavor", "results", judged.run, "--json").stdout), json.loads(table)
    assert {**again, "closed_ms": 0} == {**first, "closed_ms": 0}
    with subtests.test("a site changes its own result afterwards"):
        site_changes_its_result(judged, view.best)
    assert judged.done("flavor", "rm", judged.run, "--objects", "--store", judged.store).wait() == 0
    assert judged.redis.keys(f"flavor:{{{judged.run}}}*") == []
    assert not [path for path in judged.store.rglob("*") if path.is_file() and judged.run in path.parts]


def site_changes_its_result(judged, best: BestModel) -> None:
    """It costs that site's values alone: the record, what was merged, and the best model stay."""

    def of_best(*args: object) -> dict:
        return json.loads(judged.done("flavor", "results", judged.run, "--round", "best", "--json", *args).stdout)

    before = of_best("--store", judged.store)
    (result,) = judged.store.rglob(f"*{best.round:04d}-0-result-c1-*.json")
    overwrite(result, "{}")
    found = of_best("--store", judged.store)
    assert "the bytes are not those that were recorded" in found["unread"]["c1"]
    assert (found["merged"], found["examples"]) == (before["merged"], before["examples"])
    assert found["sites"] == {**before["sites"], "c1": {"examples": 100, "metrics": {}, "not_finite": {}}}
    shown = found["metrics"]["accuracy"]
    assert shown == {**before["metrics"]["accuracy"], "lowest": None, "highest": None, "worst": None, "unknown": 1}
    lines = judged.done("flavor", "results", judged.run, "--round", "best", "--store", judged.store).stdout
    assert "without the values of c1, which are in what is merged: object " in lines

    known = [EvaluationSummary.from_json(text) for text in judged.runs.evaluated()]
    judged.redis.flushall()
    done = judged.done("flavor", "recover", "--run", judged.run, "--store", judged.store, "--untrusted")
    assert done.wait() == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "cannot be read" in line)
    assert line.startswith(f"what c1 has measured of the model of round {best.round} cannot be read: object ")
    assert judged.runs.read().best.round == best.round
    rebuilt = [EvaluationSummary.from_json(text) for text in judged.runs.evaluated()]
    for one, other in zip(rebuilt, known, strict=True):
        spread = {} if one.round == best.round else other.spread
        assert (one.metrics, one.few, one.sites, one.examples) == (
            other.metrics,
            other.few,
            other.sites,
            other.examples,
        )
        assert (one.spread, one.lacking) == (spread, other.lacking)
    assert of_best()["merged"] == before["merged"]


def test_a_model_without_a_record_of_its_evaluation_is_named(judged):
    """An evaluation that has failed leaves none, so that no store tells it from one that was removed."""
    record_of(judged, 1).unlink()
    judged.redis.flushall()
    done = judged.done("flavor", "recover", "--run", judged.run, "--store", judged.store, "--untrusted")
    assert done.wait() == 0, done.stderr
    said = "no record says that the model of round 1 had a result: an evaluation without one leaves no record"
    assert said in done.stderr


def test_a_record_that_is_not_believed_is_not_rebuilt(judged):
    record = record_of(judged, 1)
    manifest = EvaluationManifest.parse(record.read_bytes(), "")
    overwrite(record, manifest.model_copy(update={"best_round": 2}).to_bytes().decode())
    judged.redis.flushall()
    done = judged.done("flavor", "recover", "--run", judged.run, "--store", judged.store, "--untrusted")
    assert done.wait() == 0, done.stderr
    assert f"{record.name}: it was changed" in done.stderr
    assert "no record says" not in done.stderr
    assert [EvaluationSummary.from_json(text).round for text in judged.runs.evaluated()] == [2]
    assert "whose evaluation cannot be read: none is the best now" in done.stderr
    assert judged.runs.read().best is None
