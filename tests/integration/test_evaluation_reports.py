"""An evaluator writes result.json: it travels signed, is inspected, kept beside the result, and read by all who look.

The toy evaluators of `toy_evaluator.py` report the accuracy of `test_evaluation.py` in a table.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from pathlib import Path

import pytest

from flavor.ledger.keys import SigningKey
from flavor.ledger.statement import EvaluationStatement
from flavor.records.evaluation import AUTOMATIC, EvaluationSummary, Result
from flavor.records.info import MAX_BYTES, completed, parse_info
from flavor.records.objects import ObjectRef
from flavor.results.folder import ResultFolder
from flavor.results.reports import image_in, reports_in
from flavor.store.local import LocalStore
from flavor.store.paths import handed_report, result_prefix, taken_report
from flavor.view.history import History
from tests.infos import png
from workers.reports import take_report

EVALUATOR = Path(__file__).with_name("toy_evaluator.py")
INFO = completed({"metadata": {"datasetSize": 5}, "metrics": {"a": 0.5}}, 1)


def evaluator(*flags: object) -> str:
    return shlex.join([sys.executable, str(EVALUATOR), "--report", *map(str, flags)])


def run(bench, *flags, rounds=1):
    """Run it to its end: c1 trains and judges, and v2 only judges."""
    coordinator = bench.serve("--evaluate", "every", "--require-signatures", rounds=rounds, clients=1)
    bench.aggregator()
    words = ["--run", bench.run, "--client", "v2", "-m", evaluator(*flags), "--workspace", bench.folder / "v2"]
    env = {"FLAVOR_STORE": str(bench.store), "TEST_BUS": bench.url}
    sites = {"v2": bench.start("flavor-fv", *words, "--until-end", env=env)}
    bench.logged("client.joined", client="v2")
    sites["c1"] = bench.edge("c1", bench.trainer(), "-e", evaluator(*flags))
    assert coordinator.wait() == 0, coordinator.stderr
    for name, site in sites.items():
        assert site.wait() == 0, f"{name}: {site.stderr}"
    return sites


def summaries(bench) -> list[EvaluationSummary]:
    return [EvaluationSummary.from_json(text) for text in bench.runs.evaluated()]


def infos(bench, store, round_):
    accepted = bench.runs.read_evaluation(round_, AUTOMATIC).accepted
    return {
        name: parse_info(store.read(each.result.info, most=MAX_BYTES), where=name) for name, each in accepted.items()
    }


def test_what_sites_report_is_a_metric_and_is_read_by_site_and_merged(bench):
    run(bench, rounds=2)
    assert [each.sites for each in summaries(bench)] == [2, 2]
    store, place = LocalStore(bench.store), {"run": bench.run, "round_": 1, "number": AUTOMATIC}
    found = reports_in(store, infos(bench, store, 1), **place)
    assert (list(found.sites), found.missing) == (["c1", "v2"], {})
    values = {name: report.tables[0].values[0] for name, report in found.sites.items()}
    assert summaries(bench)[0].metrics["Overall/accuracy"] == pytest.approx(sum(values.values()) / 2)
    assert summaries(bench)[0].examples == 300
    merged = found.merged
    assert merged["bars"][0]["values"] == [pytest.approx(0.15)]
    assert merged["heatmaps"][0]["values"] == [[3, 2], [4, 6]]
    assert [each["kind"] for each in merged["apart"]] == ["plots", "images"]
    for name, size in (("c1", 1), ("v2", 2)):
        (image,) = found.sites[name].images
        assert image_in(store, image, **place, site=name) == png(size, 2)
    json.dumps(found.to_plain(), allow_nan=False)
    shown = History(bench.runs, store).reports(1, AUTOMATIC)
    assert (shown["sites"], shown["unsigned"], shown["is_complete"]) == (["c1", "v2"], "", True)
    assert shown["merged"]["heatmaps"][0]["values"] == [[3, 2], [4, 6]]
    digest = found.sites["v2"].images[0].digest
    assert History(bench.runs, store).report_image(1, AUTOMATIC, "v2", digest) == (png(2, 2), "image/png")
    words = ("flavor", "results", bench.run, "--round", "1", "--store", bench.store)
    assert json.loads(bench.done(*words, "--json").stdout)["reports"] == found.to_plain()
    assert "c1, v2 reported tables, plots or images" in bench.done(*words).stdout
    folder = ResultFolder(bench.folder / "out", print)
    folder.end(bench.runs, store)
    from_folder = json.loads(bench.done("flavor", "results", bench.folder / "out", "--round", "1", "--json").stdout)
    assert from_folder["reports"] == found.to_plain()
    assert not [path for path in store.list(f"runs/{bench.run}/clients/v2/") if "report" in path or "image" in path]

    (report,) = bench.store.glob(f"runs/{bench.run}/evaluations/0001-0-report-c1-*.json")
    report.chmod(0o600)
    report.write_bytes(report.read_bytes().replace(b"accuracy", b"accurate"))
    changed = bench.done(*words)
    assert changed.wait() == 0
    assert "v2 reported tables, plots or images" in changed.stdout
    (why,) = [line for line in changed.stderr.splitlines() if "tables, plots and images of c1" in line]
    assert f"0001-0-report-c1-{report.stem[-16:]}.json" in why
    told = json.loads(bench.done(*words, "--json").stdout)["reports"]
    assert (list(told["sites"]), list(told["missing"])) == (["v2"], ["c1"])
    said = list[str]()
    other = ResultFolder(bench.folder / "other", said.append)
    other.end(bench.runs, store)
    assert [line for line in said if "it lacks what c1 reported beside its metrics" in line]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("../local/model.ckpt", "must be the name of a file within $OUTPUT_PATH"),
        ("secret", "it is neither a PNG nor a JPEG image"),
        ("nothing.png", "there is no such file"),
    ],
)
def test_what_cannot_be_used_costs_that_result_alone_and_is_told_to_its_site(bench, image, said):
    sites = run(bench, "--image", image, "--only", "v2")
    (summary,) = summaries(bench)
    assert (summary.sites, summary.expected) == (1, 2)
    assert "results.images[0].filename" in sites["v2"].stderr
    assert said in sites["v2"].stderr
    reason = bench.logged("evaluation.closed", round=1)["reason"]
    assert 'without v2: "its result.json, or an image that it names, cannot be used"' in reason
    assert "patient" not in reason


def test_an_evaluator_that_writes_nothing_is_not_taken_for_the_one_before(bench):
    """The result.json of round 1 lies there when the evaluator of round 2 writes none."""
    script = bench.folder / "once.py"
    script.write_text(
        "import os, runpy\n"
        "if os.environ['FLAVOR_ROUND'] == '1':\n"
        f"    runpy.run_path({str(EVALUATOR)!r}, run_name='__main__')\n"
    )
    coordinator = bench.serve("--evaluate", "every", rounds=2, clients=1)
    bench.aggregator()
    edge = bench.edge("c1", bench.trainer(), "-e", shlex.join([sys.executable, str(script), "--report"]))
    assert coordinator.wait() == 0, coordinator.stderr
    assert edge.wait() == 0
    assert [each.round for each in summaries(bench)] == [1]
    assert "the evaluator has written no result: call SaveInfoJson" in edge.stderr


def of_tables(size, **tables):
    """A report whose only values are these, in a table without a title."""
    table = {"title": "", "labels": list(tables), "values": list(tables.values())}
    return {"metadata": {"datasetSize": size}, "results": {"tables": [table]}}


def put(store, path, data):
    digest = hashlib.sha256(data).hexdigest()
    with store.stage() as staged:
        staged.write_bytes(data)
        store.put(ObjectRef(path, digest), staged)
    return digest


def lie(bench, report, digest=None) -> Result:
    """The result of c2 with this report, signed by its key: what no edge of ours would hand in."""
    store, view = LocalStore(bench.store), bench.runs.read()
    data = report if isinstance(report, bytes) else json.dumps(report).encode()
    named = digest or hashlib.sha256(data).hexdigest()
    if named.isalnum():
        put(store, handed_report(bench.run, 1, AUTOMATIC, "c2", named), data)
    info = json.dumps({**INFO, "metadata": {**INFO["metadata"], "reportDigest": named}}).encode()
    path = f"{result_prefix(bench.run, 1, AUTOMATIC, 'c2')}{hashlib.sha256(info).hexdigest()[:16]}.json"
    info_digest = put(store, path, info)
    model = view.global_model.model.digest
    statement = EvaluationStatement(bench.run, view.run_id, 1, AUTOMATIC, "c2", model, 5, info_digest)
    key = SigningKey.load_or_create(bench.folder / "c2" / "client.key", "c2")
    return statement.signed(key, Result(ObjectRef(path, info_digest), 5, model))


@pytest.mark.parametrize(
    ("report", "digest", "said"),
    [
        (b"{", None, "result.json: not complete JSON"),
        (of_tables(6), None, "metadata.datasetSize is 6, and 5 in info.json"),
        (of_tables(5, a=1), None, "a table says that 'a' is 1, and info.json that it is 0.5"),
        (of_tables(5, b=1), None, "info.json lacks 'b' of its tables"),
        (of_tables(5, a=0.5), "f" * 64, "SHA-256"),
        (of_tables(5, a=0.5), "../../x", "metadata.reportDigest is no SHA-256"),
    ],
    ids=["no JSON", "another size", "another value", "a value more", "another digest", "no digest"],
)
def test_a_site_that_lies_is_left_out(bench, report, digest, said):
    assert said in left_out(bench, lambda: lie(bench, report, digest).to_hash())


@pytest.mark.parametrize(
    ("number", "said"), [(str(2**62), "no number that can be read"), ("6", "6")], ids=["a huge one", "another one"]
)
def test_a_site_that_hands_in_another_size_is_told_which(bench, number, said):
    reason = left_out(bench, lambda: lie(bench, of_tables(5, a=0.5)).to_hash() | {"num_examples": number})
    assert f"without c2: datasetSize is 5 in its info.json, and {said} was handed in beside it" in reason


def left_out(bench, handed_in) -> str:
    """Have c2 hand this in, and return the reason of the evaluation, which goes on without it."""
    coordinator = bench.serve("--evaluate", "every", rounds=1, clients=2)
    bench.aggregator()
    for name, flags in (("c1", []), ("c2", ["--hold"])):
        bench.edge(name, bench.trainer(), "-e", evaluator(*flags), env={"TEST_BUS": bench.url})
    bench.held("c2")
    key = bench.runs.keys.client("c2").result(1, AUTOMATIC)
    bench.redis.hset(key, mapping=handed_in())
    bench.redis.publish(key, "1")
    assert coordinator.wait() == 0, coordinator.stderr
    assert [each.sites for each in summaries(bench)] == [1]
    reason: str = bench.logged("evaluation.closed", round=1)["reason"]
    return reason


def test_a_report_that_was_taken_before_is_taken_again(tmp_path):
    """A worker that is killed after it has taken the report leaves the rest to another one."""
    store, data = LocalStore(tmp_path / "store", create=True), json.dumps(of_tables(5)).encode()
    place = ("r", 1, 0, "a", hashlib.sha256(data).hexdigest())
    put(store, handed_report(*place), data)
    info = {"metadata": {"datasetSize": 5, "reportDigest": place[-1]}, "metrics": {}}
    found = [take_report(store, info, run="r", round_=1, number=0, client="a") for _ in range(2)]
    assert found[0] == found[1]
    assert store.list("runs/r/evaluations/") == [taken_report(*place)]


class TestRecords:
    """`flavor verify` accounts for reports and images, by the digests that the sites have signed."""

    def verified(self, bench, store, env=None):
        done = bench.done("flavor", "verify", bench.run, "--store", store, "--json", env=env)
        found = json.loads(done.stdout)
        told = [*found["problems"], *found["notices"]]
        return {
            Path(each["path"]).name: each["what"] for each in told if "result" in each["path"] or "-0-" in each["path"]
        }

    def test_what_was_changed_or_removed_is_named(self, bench):
        run(bench)
        assert self.verified(bench, bench.store) == {}
        (report,) = bench.store.rglob("*-0-report-c1-*.json")
        (image,) = bench.store.rglob("*-0-image-v2-*.png")
        report.chmod(0o600)
        report.write_text(report.read_text().replace("accuracy", "exactness"))
        image.unlink()
        said = self.verified(bench, bench.store)
        assert "the report of c1 of the evaluation was changed" in said.pop(report.name)
        assert said.pop(image.name) == "missing: an image of v2 of the evaluation"
        (hidden,) = bench.store.rglob("*-0-image-c1-*.png")
        assert "no record of an evaluation names it" in said.pop(hidden.name), "its report is another one now"
        assert said == {}

    def test_in_a_bucket(self, bench, s3):
        """An aggregator leaves objects of a bucket where their sites have put them."""
        url = f"s3://{s3.bucket()}/fed"
        env = {**s3.environment(), "FLAVOR_STORE": url, "FLAVOR_STORE_CACHE": str(bench.folder / "cache")}
        words = ["--run", bench.run, "--rounds", 1, "--min-clients", 1, "--queue", bench.run]
        coordinator = bench.start("flavor", "serve", *words, env=env)
        bench.start("flavor-agg", "--queue", bench.run, env=env).until("listens")
        edge = bench.edge("c1", bench.trainer(), "-e", evaluator(), env=env)
        assert coordinator.wait(60) == 0, coordinator.stderr
        assert edge.wait() == 0, edge.stderr
        assert [each.sites for each in summaries(bench)] == [1]
        assert self.verified(bench, url, env) == {}
        results = bench.done("flavor", "results", bench.run, "--store", url, "--json", env=env)
        assert results.wait() == 0, results.stderr
        assert "Overall/accuracy" in json.loads(results.stdout)["metrics"]
