"""People see evaluations: `flavor results`, and what `flavor status` and `flavor log` say of them.

The evaluators are those of `test_evaluation.py`: the accuracy of client i is the mean weight by 100, plus i / 1000.
"""

from __future__ import annotations

import json

import pytest

from flavor.ledger.keys import SigningKey
from tests.integration.test_evaluation import STEP, finish, start

WITHOUT = '"its evaluator ended (exit code 3)"'


def described(bench, *args: str) -> dict:
    return json.loads(bench.done("flavor", "results", bench.run, *args, "--json").stdout)


def failed(bench, *args: str):
    process = bench.done("flavor", "results", bench.run, *args)
    assert process.wait() == 1, process.stdout
    return process


def mean(rounds: int, *clients: int) -> float:
    return rounds * STEP / 100 + sum(clients) / len(clients) / 1000


def test_an_evaluation_is_shown_as_a_table_from_redis_and_from_its_signed_record(bench):
    """c3 has an evaluator that fails, and c4 has none."""
    flags = ["--fail", "exit", "--only", "c3"]
    options = ["--evaluate", "every", "--select", "accuracy:max", "--require-signatures"]
    coordinator, edges = start(bench, *options, flags=flags, without=["c4"], clients=("c1", "c2", "c3", "c4"))
    finish(coordinator, edges)
    done = bench.done("flavor", "results", bench.run)
    lines = done.stdout.splitlines()
    each = {row.split()[0]: row.split()[1:] for row in lines if row.startswith(("c", "SITE"))}
    found = described(bench)
    value = found["sites"]["c1"]["metrics"]["accuracy"]  # a round adds (1 + 4 + 9 + 16) / (1 + 2 + 3 + 4) = 3
    assert value == pytest.approx(2 * 3 / 100 + 1 / 1000)
    assert lines[0].startswith("the global model of round 2, judged by 2 of 3 sites, 300 examples, ")
    assert f"without c3: {WITHOUT}" in lines
    assert "without an evaluator: c4" in lines
    assert "the best judged model by --select accuracy:max is that of round 2, this one" in lines
    assert each["SITE"] == ["EXAMPLES", "accuracy", "one"]
    assert each["c1"] == ["100", f"{value:.6g}", "null"]
    assert each["c2"] == ["200", f"{value + 1 / 1000:.6g}", "null"]
    assert each["c3"] == ["-", "-", "-"]
    rows = {row.split("]")[0].strip("["): row.split("]")[1].split() for row in lines if row.startswith("[")}
    assert rows["plain mean"] == [f"{value + 0.5 / 1000:.6g}", "-"]
    assert rows["weighted mean"] == [f"{value + 2 / 3 / 1000:.6g}", "-"]
    assert (rows["lowest"], rows["highest"]) == ([f"{value:.6g}", "-"], [f"{value + 1 / 1000:.6g}", "-"])
    assert rows["worst site"] == ["c1", "-"]
    assert "pooled" not in rows
    assert (found["round"], found["best_round"], found["signed_by"]) == (2, 2, None)
    assert found["metrics"]["accuracy"]["better"] == "larger"
    assert described(bench, "--round", "1")["sites"]["c1"]["metrics"]["accuracy"] == pytest.approx(3 / 100 + 1 / 1000)

    for name in ("accuracy", "accuracy (weighted)", "worst/accuracy", "pooled/accuracy"):
        one = bench.done("flavor", "results", bench.run, "--metric", name)
        assert one.wait() == 0, one.stderr
    assert bench.done("flavor", "results", bench.run, "--metric", "pooled/acc").wait() == 1

    from_store = described(bench, "--round", "best", "--store", f"file://{bench.store}")
    assert from_store["signed_by"].startswith("ed25519:")
    same = ("round", "sites", "missing", "metrics", "merged", "expected", "model", "examples")
    assert {name: from_store[name] for name in same} == {name: found[name] for name in same}
    first = bench.done("flavor", "results", bench.run, "--round", 1, "--store", bench.store)
    assert "the best judged model by --select accuracy:max is that of round 2, another one" in first.stdout
    assert described(bench, "--round", "1", "--store", bench.store)["best_round"] == 2
    trusted = bench.done(
        "flavor", "results", bench.run, "--store", f"file://{bench.store}", "--trust", from_store["signed_by"]
    )
    assert "not checked" not in trusted.stderr
    assert "checked against the record that is signed with key" in trusted.stdout


def test_what_was_changed_in_the_store_is_not_shown(bench):
    coordinator, edges = start(bench, rounds=1)
    finish(coordinator, edges)
    store = f"file://{bench.store}"
    other = failed(bench, "--store", store, "--trust", str(SigningKey.generate().public))
    assert "which --trust does not name" in other.stderr
    (result,) = bench.store.rglob("*-result-c1-*.json")
    result.chmod(0o600)
    result.write_text(result.read_text().replace("0.0", "0.9"))
    changed = bench.done("flavor", "results", bench.run, "--store", store)
    assert changed.wait() == 0, changed.stderr
    assert "without the values of c1" in changed.stdout
    assert result.name in changed.stdout
    assert "0.9" not in changed.stdout.partition("[plain mean]")[0].partition("SITE")[2]
    (manifest,) = bench.store.rglob("*-manifest-*.json")
    manifest.chmod(0o600)
    manifest.write_text(manifest.read_text().replace('"num_examples":100', '"num_examples":999'))
    forged = failed(bench, "--store", store)
    assert manifest.name in forged.stderr


def test_no_model_was_judged(bench):
    coordinator, edges = start(bench, rounds=1, without=["c1", "c2"])
    finish(coordinator, edges)
    assert "no model of run" in failed(bench).stderr
    store = f"file://{bench.store}"
    assert "no model of run" in failed(bench, "--store", store).stderr
    assert "has no best round" in failed(bench, "--round", "best").stderr
    status = bench.done("flavor", "status", bench.run)
    assert "judged" not in status.stdout
    other = bench.done("flavor", "results", "nosuch", "--store", store)
    assert (other.wait(), "there is no run 'nosuch' in the store" in other.stderr) == (1, True), other.stderr


def test_a_result_folder_of_serve_is_read_also_where_the_variable_names_a_store(bench, tmp_path):
    out = tmp_path / "out"
    coordinator, edges = start(bench, "--out", out, rounds=1)
    finish(coordinator, edges)
    shown = bench.done("flavor", "results", out, env={"FLAVOR_STORE": str(bench.store)})
    assert shown.wait() == 0, shown.stderr
    assert shown.stdout == bench.done("flavor", "results", out).stdout
    named = bench.done("flavor", "results", out, "--store", f"file://{bench.store}")
    assert named.wait() == 2, "it has no record of its run, which --store needs"


def test_status_says_who_judges_and_then_what_came_of_it(bench):
    flags = ["--hold", "--only", "c2"]
    options = ["--evaluate", "every", "--select", "worst/accuracy:max"]
    coordinator, edges = start(bench, *options, flags=flags, rounds=1)
    bench.held("c2")
    bench.logged("run.waiting", saying="1 of 2 results handed in, waiting for c2")
    status = bench.done("flavor", "status", bench.run)
    assert "judging: the model of round 1: c1 has handed in, c2 is awaited" in status.stdout
    (is_open,) = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)["evaluating"]
    assert (is_open["in"], is_open["awaited"], is_open["merging"]) == (["c1"], ["c2"], False)
    bench.release("c2")
    finish(coordinator, edges)
    status = bench.done("flavor", "status", bench.run).stdout
    value = mean(1, 1)
    assert (
        f"judged: the model of round 1 by 2 sites, plain means: accuracy {mean(1, 1, 2):.4g} (worst: c1, {value:.4g})"
        in status
    )
    assert f"best judged model: that of round 1, worst/accuracy {value:.4g} by 2 sites" in status
    measured = f"2 results, 300 examples: accuracy {mean(1, 1, 2):.4g} (plain mean), worst/accuracy {value:.4g}"
    assert measured in bench.done("flavor", "log", bench.run).stdout
    assert f"{measured}; the best so far (--select worst/accuracy:max)" in coordinator.stderr
    found = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    assert found["evaluating"] == []
    assert found["evaluation"]["metrics"]["accuracy"]["plain_mean"] == pytest.approx(mean(1, 1, 2))
    assert found["selected"]["round"] == 1
