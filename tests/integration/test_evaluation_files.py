"""What a result folder has of evaluations. The evaluators are those of `test_evaluation.py`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.integration.test_evaluation import STEP, evaluator, finish, start


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def value(round_: int, *clients: int) -> float:
    return round_ * STEP / 100 + sum(clients) / len(clients) / 1000


def test_a_run_leaves_its_evaluations_and_says_which_model_is_the_best(bench, tmp_path):
    out = tmp_path / "out"
    flags = ["--fail", "exit", "--only", "edge-3"]
    words = ["-m", bench.trainer(), "-e", evaluator(*flags), "--edges", 3, "--rounds", 2, "--run", bench.run]
    done = bench.done("flavor", "run", *words, "--out", out, "--select", "accuracy:min", plotted=True)
    assert done.wait() == 0, done.stderr
    step = 14 / 6
    low = step / 100 + 1 / 1000
    newest, best = 2 * step / 100 + 1.5 / 1000, low + 0.5 / 1000
    assert f"judged:        accuracy {newest:.4g} (plain mean) by 2 of 3 sites, round 2" in done.stderr
    assert f"best judged:   the model of round 1, accuracy {best:.4g} (plain mean) by 2 sites, by --sel" in done.stderr
    assert "metrics:       what scripts report in round N is of the model of round N-1, unless " in done.stderr
    every = rows(out / "evaluations.csv")
    assert [(each["round"], each["evaluation"], each["sites"], each["expected"]) for each in every] == [
        ("1", "0", "2", "3"),
        ("2", "0", "2", "3"),
    ]
    assert every[0]["missing"] == "edge-3"
    assert float(every[0]["accuracy"]) == pytest.approx(low + 0.5 / 1000)
    assert float(every[0]["accuracy (weighted)"]) == pytest.approx(low + 2 / 3 / 1000)
    assert float(every[0]["accuracy (lowest)"]) == pytest.approx(low)
    assert float(every[0]["accuracy (highest)"]) == pytest.approx(low + 1 / 1000)
    of_sites = [(each["round"], each["site"], each["examples"]) for each in rows(out / "evaluations-sites.csv")]
    assert of_sites == [("1", "edge-1", "100"), ("1", "edge-2", "200"), ("2", "edge-1", "100"), ("2", "edge-2", "200")]
    merged = json.loads((out / "evaluations" / "round-0001.json").read_text())
    assert merged["metadata"]["clients"] == ["edge-1", "edge-2"]
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["best"]["round"], summary["evaluation"]["round"]) == (1, 2)
    assert (out / "metrics.png").stat().st_size > 0

    from_folder = bench.done("flavor", "results", out, "--json")
    best = json.loads(bench.done("flavor", "results", out, "--round", "best", "--json").stdout)
    found = json.loads(from_folder.stdout)
    assert (found["round"], best["round"], found["best_round"]) == (2, 1, 1)
    assert found == {**summary["evaluation"], "best_round": 1, "signed_by": None, "reports": None, "not_judged": []}
    of_store = json.loads(bench.done("flavor", "results", out, "--trust", key(out), "--json").stdout)
    assert {**of_store, "signed_by": None, "not_judged": [], "closed_ms": found["closed_ms"]} == found
    before = {path: path.stat().st_mtime_ns for path in (out / "evaluations").iterdir()}
    again = bench.done("flavor", "run", "--resume", out, "--rounds", 3)
    assert again.wait() == 0, again.stderr
    assert [each["round"] for each in rows(out / "evaluations.csv")] == ["1", "2", "3"]
    assert {path: path.stat().st_mtime_ns for path in before if path.name.startswith("round-")} == {
        path: time for path, time in before.items() if path.name.startswith("round-")
    }


def key(out: Path) -> str:
    (manifest, *_) = sorted(out.rglob("*-manifest-*.json"))
    return json.loads(manifest.read_text())["public_key"]


def test_a_run_without_an_evaluation_has_no_files_of_any(bench, tmp_path):
    out = tmp_path / "out"
    coordinator, edges = start(bench, "--out", out, without=["c1", "c2"], rounds=1)
    finish(coordinator, edges)
    assert not [path for path in out.iterdir() if "evaluation" in path.name]
    assert json.loads((out / "summary.json").read_text())["evaluation"] is None


def test_a_coordinator_writes_them_as_well(bench, tmp_path):
    out = tmp_path / "out"
    coordinator, edges = start(bench, "--out", out, "--stop-when", "accuracy>=9")
    finish(coordinator, edges)
    assert json.loads((out / "evaluations" / "rules.json").read_text()) == {"metrics": ["accuracy"]}
    assert [float(each["accuracy"]) for each in rows(out / "evaluations.csv")] == pytest.approx(
        [value(1, 1, 2), value(2, 1, 2)]
    )
    assert "best.json" not in {path.name for path in (out / "evaluations").iterdir()}
    refused = bench.done("flavor", "results", out, "--round", "best")
    assert refused.wait() == 1
    assert "has no best model" in refused.stderr
    (out / "evaluations" / "round-0002-sites.json").write_text("{}")
    assert "is no evaluation of a result folder" in bench.done("flavor", "results", out).stderr
