"""An aggregator judges global models on the operator's own data, beside the rounds.

The toy trainers add i to each weight of client i, with 10 i examples: for c1 and c2, a round adds 5/3. The toy
evaluator has 100 examples here, and its accuracy is the mean weight by 100, plus 1 / 1000.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flavor.ledger.archive import Archive
from flavor.ledger.evaluation import read_manifest
from flavor.ledger.evaluations import EvaluationRecord, Signed, merged_problem, read_records
from flavor.records.evaluation import AUTOMATIC, CENTRAL, BestModel, EvaluationSummary
from flavor.records.states import EvaluationState
from flavor.results.folder import ResultFolder
from flavor.store.local import LocalStore
from flavor.store.paths import evaluations_folder
from flavor.view.history import History

EVALUATOR = Path(__file__).with_name("toy_evaluator.py")
STEP = 5 / 3
NAN = float("nan")
NAME = "central/accuracy"


def evaluator(*flags: object) -> str:
    return shlex.join([sys.executable, str(EVALUATOR), *map(str, flags)])


def judges(bench, *flags: object, options=(), env=None):
    """An aggregator that judges models, too."""
    data = bench.folder / "data"
    data.mkdir(exist_ok=True)
    words = ["-e", evaluator(*flags), "--evaluate-input", data, "--workspace", bench.folder / "agg", *options]
    named = {"TEST_BUS": bench.url, **(env or {})}
    return bench.aggregator(*words, *("--env", "TEST_BUS"), env=named)


def edges(bench, *options: object, trainer=(), hold=()):
    """Two sites; the first one holds in the first round of `hold`, and the second one in the second."""
    found = []
    for number, client in enumerate(("c1", "c2")):
        holds = ["--hold", "--at", hold[number]] if number < len(hold) else []
        found.append(bench.edge(client, bench.trainer(*trainer, *holds), *options, env={"TEST_BUS": bench.url}))
    return found


def judged_before_the_next_round(bench) -> None:
    """The sites of `edges(hold=[2, 3])` go on with rounds 2 and 3 once the model of the round before is judged."""
    for closed, client in ((1, "c1"), (2, "c2")):
        bench.held(client)
        bench.logged("evaluation.closed", round=closed)
        bench.release(client)


def finish(*processes) -> None:
    for process in processes:
        assert process.wait() == 0, process.stderr


def central(bench) -> list[EvaluationSummary]:
    found = [EvaluationSummary.from_json(text) for text in bench.runs.evaluated()]
    return [each for each in found if each.number == CENTRAL]


def accuracy(round_: int) -> float:
    return round_ * STEP / 100 + 1 / 1000


def here(bench) -> None:
    """Wait until the evaluator holds."""
    assert bench.redis.blpop([f"test:{bench.run}:central:here"], 20), bench.log()


def go(bench, times: int = 1) -> None:
    bench.redis.rpush(f"test:{bench.run}:central:go", *["1"] * times)


@pytest.mark.parametrize(
    ("mode", "judged"), [("every", [1, 2, 3]), ("2", [2, 3]), ("final", [3]), ("off", [])], ids=str
)
def test_models_are_judged_on_the_operators_data(bench, mode, judged):
    coordinator = bench.serve("--evaluate", mode, rounds=3)
    judges(bench)
    sites = edges(bench, hold=[2, 3])
    for closed, client in ((1, "c1"), (2, "c2")):  # the evaluator is never behind
        bench.held(client)
        if closed in judged:
            bench.logged("evaluation.closed", round=closed)
        bench.release(client)
    finish(coordinator, *sites)
    found = central(bench)
    assert [each.round for each in found] == judged
    for each in found:
        assert each.metrics == {NAME: pytest.approx(accuracy(each.round))}
        assert each.examples == 100
    assert bench.runs.evaluating() == []


def test_the_record_says_on_what_it_was_judged_and_is_signed(bench):
    coordinator = bench.serve(rounds=1)
    judges(bench)
    finish(coordinator, *edges(bench))
    view, archive = bench.runs.read_evaluation(1, CENTRAL), Archive(LocalStore(bench.store), bench.run)
    assert view.state is EvaluationState.CLOSED
    manifest = read_manifest(archive, view.manifest)
    assert manifest.is_signed()
    assert (manifest.central, manifest.judges, manifest.expected) == (100, (), ())
    assert manifest.model_digest == bench.runs.read().global_model.model.digest
    shown = History(bench.runs, archive.store).reports(1, CENTRAL)
    assert (shown["public_key"], shown["unsigned"], shown["is_complete"]) == (manifest.public_key, "", True)
    assert merged_problem(archive, manifest) == ""
    paths = archive.store.list(evaluations_folder(bench.run))
    (record,) = [record for _, record in read_records(archive, paths, Signed(bench.runs.read().run_id))]
    assert isinstance(record, EvaluationRecord)
    assert record.problems == ()
    merged = json.loads(archive.read(manifest.merged_path))
    assert merged["metrics"] == {NAME: pytest.approx(accuracy(1))}
    reason = bench.logged("evaluation.closed", round=1)["reason"]
    assert reason.startswith("on the operator's own data, 100 examples: central/accuracy 0.017")


def test_the_next_round_does_not_wait_and_what_was_skipped_is_told(bench):
    coordinator = bench.serve("--evaluate", "every", rounds=4)
    judges(bench, "--hold")
    sites = edges(bench, hold=[2])
    here(bench)  # round 1's model is being judged
    bench.held("c1")
    bench.release("c1")  # rounds 2 to 4 go on beside it
    bench.logged("evaluation.opened", round=4)
    assert central(bench) == []
    go(bench, 9)
    finish(coordinator, *sites)
    assert [each.round for each in central(bench)] == [1, 4]
    assert [each.metrics[NAME] for each in central(bench)] == pytest.approx([accuracy(1), accuracy(4)])
    skipped = [entry for entry in bench.log() if entry["event"] == "evaluation.skipped"]
    assert [entry["round"] for entry in skipped] == ["2", "3"]
    for entry in skipped:
        assert "skipped, because the worker that judges models is behind" in entry["reason"]


def test_an_evaluator_may_write_tables_instead(bench):
    coordinator = bench.serve("--evaluate", "final", rounds=1)
    judges(bench, "--report")
    finish(coordinator, *edges(bench))
    (found,) = central(bench)
    assert found.examples == 100
    assert pytest.approx(accuracy(1)) in found.metrics.values()
    assert all(name.startswith("central/") for name in found.metrics)


def test_a_run_without_such_a_worker_says_nothing(bench):
    coordinator = bench.serve("--evaluate", "every", rounds=2)
    bench.aggregator()
    finish(coordinator, *edges(bench))
    assert not [entry for entry in bench.log() if entry["event"].startswith("evaluation.")]
    assert "judge" not in coordinator.stderr


def test_the_end_of_a_run_whose_rule_needs_it_waits_for_such_a_worker(bench):
    coordinator = bench.serve("--select", f"{NAME}:max", rounds=2)
    bench.aggregator()
    sites = edges(bench)
    waiting = bench.logged("run.waiting", saying="judges models")
    assert waiting["reason"] == (
        f"the model of round 2 on the operator's own data: no worker on queue '{bench.run}' judges models: start one "
        "with `flavor-agg -e`. The run ends without its result after 60 s"
    )
    judges(bench)
    finish(coordinator, *sites)
    assert [(each.round, each.metrics[NAME]) for each in central(bench)] == [(2, pytest.approx(accuracy(2)))]
    assert bench.runs.read().best.round == 2


def test_another_worker_leaves_such_jobs_to_the_one_that_can(bench):
    coordinator = bench.serve("--evaluate", "final", rounds=2)
    bench.aggregator()
    judges(bench)
    bench.aggregator()
    finish(coordinator, *edges(bench))
    assert [each.metrics[NAME] for each in central(bench)] == pytest.approx([accuracy(2)])


def test_sites_and_the_operator_judge_the_same_model(bench):
    coordinator = bench.serve("--evaluate", "final", rounds=1)
    judges(bench)
    finish(coordinator, *edges(bench, "-e", evaluator()))
    found = {each.number: each for each in map(EvaluationSummary.from_json, bench.runs.evaluated())}
    assert found.keys() == {AUTOMATIC, CENTRAL}
    assert found[AUTOMATIC].metrics["accuracy"] == pytest.approx(STEP / 100 + 1.5 / 1000)
    assert NAME not in found[AUTOMATIC].metrics
    assert found[CENTRAL].metrics == {NAME: pytest.approx(accuracy(1))}


def test_a_run_ends_when_the_operators_data_says_that_it_is_good_enough(bench, tmp_path):
    """The model of the next round, by which the run has its goal late, is worse again."""
    rule, table = f"{NAME}>=0.034", tmp_path / "table.json"
    values = {round_: {"accuracy": value} for round_, value in ((1, 0.01), (2, 0.04), (3, 0.02))}
    table.write_text(json.dumps({"central": values}))
    coordinator = bench.serve("--select", f"{NAME}:min", "--stop-when", rule, rounds=9)
    judges(bench, "--table", table)
    sites = edges(bench, trainer=["--rounds", "endless"], hold=[2, 3])
    judged_before_the_next_round(bench)
    finish(coordinator, *sites)
    view = bench.runs.read()
    assert (view.best.round, view.best.value) == (1, 0.01)
    assert view.round == 3
    assert "central/accuracy of the model of round 2 is 0.04 (--stop-when" in view.reason
    assert "there is no metric" not in "".join(entry.get("reason", "") for entry in bench.log())
    goal = {"rule": rule, "name": NAME, "value": 0.04, "round": 2, "lost": ""}
    assert ResultFolder(tmp_path / "out", print).known(bench.runs).goal == goal


def test_a_model_whose_metric_is_nan_on_the_operators_data_is_no_gain(bench, tmp_path):
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"central": {1: {"accuracy": 0.5}, 2: {"accuracy": NAN}, 3: {"accuracy": 0.9}}}))
    coordinator = bench.serve("--select", f"{NAME}:max", "--stop-after-no-gain", 1, rounds=9)
    judges(bench, "--table", table)
    sites = edges(bench, trainer=["--rounds", "endless"], hold=[2, 3])
    judged_before_the_next_round(bench)
    finish(coordinator, *sites)
    view = bench.runs.read()
    assert (view.round, view.is_met) == (3, True)
    assert view.reason == (
        "central/accuracy was best in round 1, 0.5, and has not got better in 1 evaluation (--stop-after-no-gain 1); "
        "judged after that, the model of round 3 is the best by central/accuracy: 0.9"
    )
    told = bench.logged("evaluation.closed", round=2)["reason"]
    assert "--select: central/accuracy is not a finite number on the operator's own data" in told
    before = central(bench)
    bench.redis.flushall()
    again = bench.done("flavor", "recover", "--run", bench.run, "--store", bench.store, "--untrusted")
    assert again.wait() == 0, again.stderr
    assert [each.lacking for each in central(bench)] == [each.lacking for each in before]
    assert before[1].lacking[NAME].not_finite.count == 1


def test_a_model_that_may_become_the_best_stays_while_it_is_judged(bench):
    coordinator = bench.serve("--select", f"{NAME}:min", "--keep-globals", 2, rounds=6)
    judges(bench, "--hold")
    sites = edges(bench, hold=[2])
    here(bench)  # round 1's model is being judged
    bench.held("c1")
    bench.release("c1")
    bench.logged("evaluation.opened", round=6)
    models = bench.store / "runs" / bench.run / "global"
    bench.eventually("old models are removed", lambda: not list(models.glob("0002-model-*")))
    go(bench, 2)
    finish(coordinator, *sites)
    assert bench.runs.read().best.round == 1
    assert list(models.glob("0001-model-*"))


def test_a_site_cannot_report_what_only_the_operator_can(bench):
    coordinator = bench.serve("--evaluate", "final", rounds=1)
    bench.aggregator()
    finish(coordinator, *edges(bench, "-e", evaluator("--named", NAME)))
    (summary,) = [EvaluationSummary.from_json(text) for text in bench.runs.evaluated()]
    assert summary.number == AUTOMATIC
    assert NAME not in summary.metrics
    reason = bench.logged("evaluation.closed", round=1)["reason"]
    assert "central/accuracy is not merged" in reason


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("exit", "its evaluator ended (exit code 3)"),
        ("silent", "the evaluator has written no result"),
    ],
)
def test_an_evaluator_that_fails_costs_the_run_nothing(bench, fail, said):
    coordinator = bench.serve("--evaluate", "final", rounds=1)
    worker = judges(bench, "--fail", fail)
    finish(coordinator, *edges(bench))
    assert central(bench) == []
    reason = bench.logged("evaluation.failed", round=1)["reason"]
    assert said in reason
    assert "patient 7" not in json.dumps(bench.log())
    if fail == "exit":
        assert "the secret of patient 7" in worker.stderr  # which stays on the operator's machine


def test_an_evaluator_that_hangs_is_stopped(bench):
    coordinator = bench.serve("--evaluate", "final", "--evaluation-timeout-s", 2, rounds=1)
    judges(bench, "--hold")
    finish(coordinator, *edges(bench))
    assert central(bench) == []
    reason = bench.logged("evaluation.failed", round=1)["reason"]
    assert "(--evaluation-timeout-s)" in reason


def test_a_worker_that_is_told_to_end_leaves_the_model_to_another(bench):
    coordinator = bench.serve("--evaluate", "final", rounds=1)
    bench.aggregator()
    first = judges(bench, "--hold")
    sites = edges(bench)
    here(bench)
    judges(bench)
    first.send(signal.SIGTERM)
    assert first.wait() == 0, first.stderr
    finish(coordinator, *sites)
    assert [each.metrics[NAME] for each in central(bench)] == pytest.approx([accuracy(1)])
    assert bench.runs.read_evaluation(1, CENTRAL).attempt == 1


def test_people_see_what_the_operators_data_says(bench, tmp_path):
    coordinator = bench.serve("--evaluate", "final", "--select", f"{NAME}:max", rounds=1)
    judges(bench)
    finish(coordinator, *edges(bench, "-e", evaluator()))
    status = bench.done("flavor", "status", bench.run).stdout
    assert "judged: the model of round 1 by 2 sites, plain means: accuracy 0.01817" in status
    assert "judged: the model of round 1 on the operator's own data, 100 examples: central/accuracy 0.01767" in status
    assert "best judged model: that of round 1, central/accuracy 0.01767 on the operator's own data" in status
    (described,) = [json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)["central"]]
    assert (described["round"], described["examples"]) == (1, 100)
    assert described["metrics"] == {NAME: pytest.approx(accuracy(1))}
    for options in ([], ["--store", bench.store]):
        shown = bench.done("flavor", "results", bench.run, *options).stdout
        assert "judged by 2 sites" in shown
        assert "on the operator's own data, 100 examples: central/accuracy 0.0176667" in shown
    verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert verified.wait() == 0, verified.stderr + verified.stdout
    before = central(bench)
    bench.redis.flushall()
    again = bench.done("flavor", "recover", "--run", bench.run, "--store", bench.store, "--untrusted")
    assert again.wait() == 0, again.stderr
    assert [replace(each, closed_ms=before[0].closed_ms) for each in central(bench)] == before
    assert bench.runs.read().best == BestModel(1, before[0].metrics[NAME], 1)


def test_a_local_run_judges_on_data_of_its_own(bench, tmp_path):
    out, data = tmp_path / "out", tmp_path / "held-out"
    data.mkdir()
    words = ["-m", bench.trainer(), "--edges", 2, "--rounds", 2, "--run", bench.run, "--out", out]
    done = bench.done("flavor", "run", *words, "--central-evaluate", evaluator(), "--evaluate-input", data)
    assert done.wait() == 0, done.stderr
    value = f"central/accuracy {accuracy(2):.4g} on the operator's own data, round 2"
    assert f"judged:        {value}" in done.stderr
    shown = bench.done("flavor", "results", out)
    assert "the global model of round 2, judged on the operator's own data, 100 examples" in shown.stdout
    assert "[central]" in shown.stdout
    (row,) = [line for line in (out / "evaluations.csv").read_text().splitlines() if line.startswith("2,central,")]
    assert float(row.split(",")[-1]) == pytest.approx(accuracy(2))
    again = bench.done("flavor", "run", "--resume", out, "--rounds", 3)
    assert again.wait() == 0, again.stderr
    assert f"central/accuracy {accuracy(3):.4g} on the operator's own data, round 3" in again.stderr


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        ("flavor-agg", ["-e", "true"], "-e: name the folder of your own data, on which models are judged"),
        ("flavor-agg", ["--evaluate-input", "/"], "--evaluate-input is for an evaluator of your own"),
        ("flavor", ["run", "-m", "true", "--edges", 1, "--evaluate-input", "/"], "pass --central-evaluate CMD as well"),
    ],
)
def test_options_that_go_together_are_asked_for(bench, tmp_path, program, words, said):
    done = bench.done(program, *words)
    assert done.wait() == 2
    assert said in done.stderr


def test_who_asks_for_an_evaluation_leaves_that_of_the_operator_alone(bench):
    coordinator = bench.serve("--evaluate", "final", rounds=1)
    judges(bench, "--hold")
    sites = edges(bench, "-e", evaluator(), trainer=["--rounds", "endless"])
    here(bench)
    bench.logged("evaluation.closed", round=1)  # by the sites
    asked = bench.done("flavor", "evaluate", bench.run)
    go(bench)
    finish(coordinator, *sites)
    assert asked.wait() == 0, asked.stderr
    assert [each.metrics[NAME] for each in central(bench)] == pytest.approx([accuracy(1)])
