"""Sites judge global models between rounds, by a command of their own.

The toy trainers add i to each weight of client i, with 10 i examples: for c1 and c2, a round adds 5/3. The toy
evaluators of `toy_evaluator.py` have 100 i examples, and their accuracy is the mean weight by 100, plus i / 1000.
"""

from __future__ import annotations

import json
import pickle
import shlex
import signal
import sys
from pathlib import Path

import pytest

from flavor.ledger.archive import Archive
from flavor.ledger.evaluation import read_manifest
from flavor.records.evaluation import AUTOMATIC, EvaluationSummary
from flavor.records.info import parse_info
from flavor.records.states import EvaluationState
from flavor.store.local import LocalStore
from flavor.store.paths import evaluations_folder, result_prefix

EVALUATOR = Path(__file__).with_name("toy_evaluator.py")
STEP = 5 / 3


def evaluator(*flags: object) -> str:
    return shlex.join([sys.executable, str(EVALUATOR), *map(str, flags)])


def start(bench, *serve, flags=(), trainer=(), without=(), rounds=2, clients=("c1", "c2"), options=()):
    coordinator = bench.serve("--heartbeat-timeout-s", 1, *serve, rounds=rounds, clients=len(clients))
    bench.aggregator()
    edges = {
        client: bench.edge(
            client,
            bench.trainer(*trainer),
            *([] if client in without else ["-e", evaluator(*flags)]),
            *options,
            env={"TEST_BUS": bench.url},
        )
        for client in clients
    }
    return coordinator, edges


def summaries(bench) -> list[EvaluationSummary]:
    return [EvaluationSummary.from_json(text) for text in bench.runs.evaluated()]


def accuracies(*clients: int, rounds: int) -> dict[str, float]:
    """The means of what these clients measure of the model of this round, plain and weighted by their examples."""
    each = {i: rounds * STEP / 100 + i / 1000 for i in clients}
    weighted = sum(i * value for i, value in each.items()) / sum(clients)
    return {"accuracy": sum(each.values()) / len(each), "accuracy (weighted)": weighted}


def finish(coordinator, edges) -> None:
    assert coordinator.wait() == 0, coordinator.stderr
    for client, edge in edges.items():
        assert edge.wait() == 0, f"{client}: {edge.stderr}"


@pytest.mark.parametrize(
    ("mode", "judged"), [("every", [1, 2, 3]), ("2", [2, 3]), ("final", [3]), ("off", [])], ids=str
)
def test_the_model_of_a_round_is_judged_before_the_next_one_and_the_last_one_too(bench, mode, judged):
    coordinator, edges = start(bench, "--evaluate", mode, rounds=3)
    finish(coordinator, edges)
    found = summaries(bench)
    assert [each.round for each in found] == judged
    for each in found:
        assert each.metrics == pytest.approx(accuracies(1, 2, rounds=each.round))
        assert (each.sites, each.expected, each.examples) == (2, 2, 300)
        assert each.spread["accuracy"] == pytest.approx(tuple(each.round * STEP / 100 + i / 1000 for i in (1, 2)))
    events = [(entry["event"], entry.get("round")) for entry in bench.log()]
    steps = [("evaluation.opened", str(number)) for number in judged]
    for number, following in zip(judged, [*steps[1:], ("run.finished", None)], strict=bool(judged)):
        closed = events.index(("evaluation.closed", str(number)))
        assert events.index(("round.closed", str(number))) < events.index(("evaluation.opened", str(number))) < closed
        assert closed < events.index(following)
        if number < 3:  # results are merged beside the next round, which no site trains before it has judged the model
            merging_ms = bench.runs.read_evaluation(number, AUTOMATIC).merging_ms
            assert merging_ms <= bench.runs.read_round(number + 1).opened_ms
    assert bench.runs.evaluating() == []


def test_a_run_is_evaluated_at_its_end_by_the_sites_that_can_and_the_others_are_named(bench):
    coordinator, edges = start(bench, without=["c2"])
    finish(coordinator, edges)
    (only,) = summaries(bench)
    assert only.metrics == pytest.approx(accuracies(1, rounds=2))
    assert "judged by c1; without an evaluator: c2" in bench.logged("evaluation.opened", round=2)["reason"]


@pytest.mark.parametrize("metric", ["accuracy", "accuracy (weighted)"])
def test_no_site_keeps_a_model_the_best_by_what_it_claims_and_by_its_absence(bench, metric):
    three = ("c1", "c2", "c3")
    flags = ("--only", "c3", "--claim", 1e300)
    coordinator, edges = start(bench, "--select", f"{metric}:max", flags=flags, rounds=3, clients=three)
    finish(coordinator, edges)
    best = bench.runs.read_own().best
    assert best is not None
    assert (best.round, best.sites) == (3, 2)
    told = {entry["round"]: entry["reason"] for entry in bench.log() if entry["event"] == "run.best"}
    assert list(told) == ["1", "2", "3"]
    assert f"which 3 sites had judged: by the 2 sites that judged both models, {metric} is 0.04" in told["2"]
    manifest = bench.runs.read_evaluation(3, AUTOMATIC).manifest
    assert read_manifest(Archive(LocalStore(bench.store), bench.runs.run), manifest).best_round == 3


@pytest.mark.parametrize(
    "metric", ["accuracy:min", "accuracy (weighted):min", "worst/accuracy:min", "pooled/recall:max"]
)
def test_no_site_makes_a_model_the_best_by_its_absence_before(bench, metric):
    """More sites judge the second model, and those that have judged both say that it is no better."""
    flags = ("--only", "c3", "--fail", "exit", "--in-round", 1, "--bins", 10)
    clients = ("c1", "c2", "c3")
    coordinator, edges = start(bench, "--select", metric, flags=flags, clients=clients)
    finish(coordinator, edges)
    best = bench.runs.read_own().best
    assert best is not None
    assert (best.round, best.sites) == (1, 2)
    if not metric.startswith("pooled/"):  # which is 0.5 of any of these sites
        reason = bench.logged("evaluation.closed", round=2)["reason"]
        assert f"round 1 stays the best by {metric[:-4]}: by the 2 sites that judged both models" in reason


def test_lost_results_of_the_best_model_keep_no_later_evaluation_from_its_result(bench):
    """They are asked for because other sites judge the second model, and are gone for good."""
    gone = ["--only", "c3", "--fail", "exit", "--in-round", 2, "--hold"]
    coordinator, edges = start(bench, "--select", "accuracy:max", flags=gone, clients=("c1", "c2", "c3"))
    bench.held("c3")
    for result in bench.runs.read_evaluation(1, AUTOMATIC).accepted.values():
        (Path(bench.store) / result.result.info.path).unlink()
    bench.release("c3")
    finish(coordinator, edges)
    best = bench.runs.read_own().best
    assert (best.round, best.sites) == (1, 3)
    assert "is not compared with that of round 1" in bench.logged("evaluation.closed", round=2)["reason"]


def test_a_value_of_too_few_sites_that_judged_both_is_not_compared(bench):
    flags = ("--only", "c2", "--fail", "exit", "--in-round", 2)
    coordinator, edges = start(bench, "--select", "accuracy:max", flags=flags)
    finish(coordinator, edges)
    best = bench.runs.read_own().best
    assert best is not None
    assert (best.round, best.sites) == (1, 2)
    reason = bench.logged("evaluation.closed", round=2)["reason"]
    assert "accuracy of 1 site is not compared with that of round 1, of 2 sites: too few sites" in reason


def test_counts_of_evaluators_are_pooled_and_what_does_not_go_together_is_told(bench):
    coordinator, edges = start(bench, "--evaluate", "final", flags=("--bins", 10))
    finish(coordinator, edges)
    (summary,) = summaries(bench)
    assert summary.metrics["pooled/recall"] == 0.5
    assert "pooled/auc" not in summary.metrics
    assert not [name for name in summary.metrics if name.startswith("count/")]
    reason = bench.logged("evaluation.closed", round=2)["reason"]
    assert "count/binary/negatives is not merged: the sites report lists of different lengths (10, 20)" in reason
    assert "same bins or classes (c1: a list of 10; c2: a list of 20)" in reason


def test_no_site_has_an_evaluator(bench):
    coordinator, edges = start(bench, "--evaluate", "every", without=["c1", "c2"])
    finish(coordinator, edges)
    assert not [entry for entry in bench.log() if entry["event"].startswith("evaluation.")]


def test_who_has_measured_what_on_which_model_is_signed(bench):
    coordinator, edges = start(bench, "--require-signatures")
    finish(coordinator, edges)
    view, archive = bench.runs.read_evaluation(2, AUTOMATIC), Archive(LocalStore(bench.store), bench.run)
    assert view is not None
    assert view.manifest is not None
    manifest = read_manifest(archive, view.manifest)
    run = bench.runs.read()
    assert manifest.is_signed()
    assert manifest.run_id == run.run_id
    assert manifest.model_digest == run.global_model.model.digest
    assert [judge.client for judge in manifest.judges] == ["c1", "c2"]
    for judge in manifest.judges:
        assert bench.runs.public_keys()[judge.client] == judge.public_key
        assert manifest.statement(judge).is_signed(judge.public_key, judge.signature)
        info = parse_info(archive.read(judge.info_path) or b"", where="")
        assert info["metadata"]["datasetSize"] == judge.num_examples
    merged = json.loads(archive.read(manifest.merged_path) or b"")
    assert merged["metadata"]["clients"] == ["c1", "c2"]
    assert {name: merged["metrics"][name] for name in accuracies(1, 2, rounds=2)} == pytest.approx(
        accuracies(1, 2, rounds=2)
    )


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("exit", '"its evaluator ended (exit code 3)"'),
        ("silent", '"its evaluator ended with exit code 0 and has written no result"'),
        ("info", '"its evaluator ended (exit code 1)"'),
    ],
)
def test_an_evaluator_that_fails_is_missing_from_that_evaluation_alone(bench, fail, said):
    coordinator, edges = start(bench, "--evaluate", "every", flags=["--fail", fail, "--only", "c2"])
    finish(coordinator, edges)
    assert [(each.round, each.sites) for each in summaries(bench)] == [(1, 1), (2, 1)]
    assert f"without c2: {said}" in bench.logged("evaluation.closed", round=1)["reason"]
    assert "could not be judged" in edges["c2"].stderr
    assert bench.runs.read_round(2).contributors == ("c1", "c2")
    assert not [entry for entry in bench.log() if "patient" in entry.get("reason", "")]
    verdict = bench.redis.hgetall(bench.runs.keys.client("c2").evaluation_verdict)
    assert (verdict["accepted"], verdict["reason"]) == ("0", said)


def test_all_evaluators_fail(bench):
    coordinator, edges = start(bench, flags=["--fail", "exit"])
    finish(coordinator, edges)
    assert summaries(bench) == []
    reason = bench.logged("evaluation.failed", round=2)["reason"]
    assert "no result counts" in reason
    view = bench.runs.read_evaluation(2, AUTOMATIC)
    assert (view.state, view.attempt) == (EvaluationState.FAILED, 1)


def test_an_evaluator_that_hangs_is_left_out_at_the_deadline_and_ended(bench):
    flags = ["--hold", "--only", "c2"]
    coordinator, edges = start(bench, "--evaluate", "every", "--evaluation-timeout-s", 1, flags=flags, rounds=1)
    bench.held("c2")
    finish(coordinator, edges)
    reason = bench.logged("evaluation.closed", round=1)["reason"]
    assert "without c2: it handed in no result in time" in reason
    assert coordinator.stderr.count("of 2 results handed in, waiting for") == 1, "once it has waited for long"
    assert coordinator.stderr.count(reason) == 1
    assert not [command for command in bench.survivors().values() if "toy_evaluator" in command]


def test_a_site_that_dies_while_it_judges_is_not_waited_for(bench):
    flags = ["--hold", "--only", "c2"]
    coordinator, edges = start(bench, "--evaluate", "every", "--quorum", 1, flags=flags, rounds=1)
    bench.held("c2")
    edges["c2"].send(signal.SIGKILL)
    assert coordinator.wait() == 0, coordinator.stderr
    assert [each.sites for each in summaries(bench)] == [1]


def test_a_site_that_is_started_again_judges_the_model_that_it_was_judging(bench):
    flags = ["--hold", "--only", "c2"]
    serve = ["--evaluate", "1", "--heartbeat-timeout-s", 30]
    coordinator, edges = start(bench, *serve, flags=flags, trainer=["--rounds", "endless"])
    bench.held("c2")
    edges["c2"].send(signal.SIGTERM)
    edges["c2"].wait()
    again = bench.edge("c2", bench.trainer("--rounds", "endless"), "-e", evaluator())
    finish(coordinator, {"c1": edges["c1"], "c2": again})
    assert [each.sites for each in summaries(bench)] == [2, 2]


def test_the_run_says_that_a_model_is_judged_and_by_whom_it_still_is(bench):
    coordinator, edges = start(bench, "--evaluate", "every", flags=["--hold", "--only", "c2"], rounds=1)
    bench.held("c2")
    status = bench.done("flavor", "status", bench.run, "--json")
    assert "judged by c1, c2" in json.loads(status.stdout)["waits_for"]
    bench.logged("run.waiting", saying="evaluation of the model of round 1: 1 of 2 results handed in, waiting for c2")
    status = bench.done("flavor", "status", bench.run, "--json")
    assert "waiting for c2" in json.loads(status.stdout)["waits_for"]
    bench.release("c2")
    finish(coordinator, edges)


def test_a_run_that_is_stopped_gives_its_evaluation_up(bench):
    coordinator, edges = start(bench, "--evaluate", "every", flags=["--hold", "--only", "c2"], rounds=1)
    bench.held("c2")
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    assert coordinator.wait() == 8
    assert bench.runs.read_evaluation(1, AUTOMATIC).state is EvaluationState.FAILED
    for edge in edges.values():
        edge.wait()
    assert not [command for command in bench.survivors().values() if "toy_evaluator" in command]


def test_results_that_are_handed_in_are_merged_yet_when_a_run_is_stopped(bench):
    """The aggregator stands still while the second round is trained beside the merge."""
    coordinator = bench.serve("--heartbeat-timeout-s", 1, "--evaluate", "every", rounds=3, clients=1)
    aggregator = bench.aggregator()
    judge = evaluator("--hold", "--in-round", 1)
    edge = bench.edge("c1", bench.trainer("--hold", "--at", 2), "-e", judge, env={"TEST_BUS": bench.url})
    bench.held("c1")
    aggregator.send(signal.SIGSTOP)
    bench.release("c1")
    bench.logged("round.opened", round=2)
    assert bench.runs.read_evaluation(1, AUTOMATIC).state is EvaluationState.MERGING
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    aggregator.send(signal.SIGCONT)
    assert coordinator.wait() == 8
    assert edge.wait() == 8
    assert [each.round for each in summaries(bench)] == [1]
    assert not [entry for entry in bench.log() if entry["event"] == "evaluation.skipped"]


def test_a_model_whose_evaluation_a_stop_has_cut_off_is_judged_after_resume(bench):
    coordinator, edges = start(bench, "--evaluate", "every", flags=["--hold", "--in-round", 1], clients=("c1",))
    bench.held("c1")
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    assert (coordinator.wait(), edges["c1"].wait()) == (8, 8)
    assert "the run ended before its result" in bench.logged("evaluation.skipped", round=1)["reason"]
    coordinator = bench.start("flavor", "resume", bench.run)
    coordinator.until("the model of round 1 is judged anew: the run ended before the result")
    finish(coordinator, {"c1": bench.edge("c1", bench.trainer(), "-e", evaluator())})
    assert [each.round for each in summaries(bench)] == [1, 2]


@pytest.mark.parametrize("is_killed", [False, True], ids=["coordinator alive", "coordinator killed before"])
def test_the_last_model_is_judged_after_resume_where_a_stop_has_cut_that_off(bench, is_killed):
    """All rounds are closed, and no model was judged before (`--evaluate final`)."""
    coordinator, edges = start(bench, flags=["--hold"], rounds=1, clients=("c1",))
    bench.held("c1")
    if is_killed:
        coordinator.send(signal.SIGKILL)
        coordinator.wait()
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    assert edges["c1"].wait() == 8
    assert is_killed or coordinator.wait() == 8
    assert "the run ended before its result" in bench.logged("evaluation.skipped", round=1)["reason"]
    assert "judging" not in bench.done("flavor", "status", bench.run).stdout
    coordinator = bench.start("flavor", "resume", bench.run)
    coordinator.until("the model of round 1 is judged anew: the run ended before the result")
    coordinator.until("no site has come back yet: start `flavor-fl` or `flavor-fv` again at c1")
    coordinator.send(signal.SIGSTOP)
    edge = bench.edge("c1", bench.trainer("--hold", "--at", 0), "-e", evaluator())
    bench.held("c1")
    coordinator.send(signal.SIGCONT)  # what it hears of first is a site whose trainer is not ready yet
    coordinator.until("its global model is judged by c1")
    bench.release("c1")
    finish(coordinator, {"c1": edge})
    assert [each.round for each in summaries(bench)] == [1], coordinator.stderr
    assert bench.done("flavor", "resume", bench.run).wait() == 1, "there is nothing left to do"


def test_a_result_of_another_model_does_not_count(bench):
    """A site that lies about what it has judged: its result is signed, and of another digest."""
    coordinator, _ = start(bench, "--evaluate", "every", flags=["--hold", "--only", "c2"], rounds=1)
    bench.held("c2")
    key = bench.runs.keys.client("c2").result(1, AUTOMATIC)
    bench.redis.hset(key, mapping={"info_path": "x", "info_digest": "0", "num_examples": "7", "model": "f" * 64})
    bench.redis.publish(key, "1")
    assert coordinator.wait() == 0, coordinator.stderr
    assert "and " in (reason := bench.logged("evaluation.closed", round=1)["reason"])
    assert "without c2: it is of a model with SHA-256 'ffffffffffff'" in reason


def test_a_digest_that_is_a_path_makes_no_folders(bench):
    """It would become a part of the name to which the site's result is moved."""
    coordinator, _ = start(bench, "--evaluate", "every", flags=["--hold", "--only", "c2"], rounds=1)
    bench.held("c2")
    key, digest = bench.runs.keys.client("c2").result(1, AUTOMATIC), "a/b/c/d" + "0" * 57
    path = f"{result_prefix(bench.run, 1, AUTOMATIC, 'c2')}00.json"
    (bench.store / path).write_text("{}")
    model = bench.runs.read_evaluation(1, AUTOMATIC).model.model.digest
    handed_in = {"info_path": path, "info_digest": digest, "num_examples": "7", "model": model}
    bench.redis.hset(key, mapping=handed_in)
    bench.redis.publish(key, "1")
    assert coordinator.wait() == 0, coordinator.stderr
    reason = bench.logged("evaluation.closed", round=1)["reason"]
    assert f"without c2: info_digest '{digest}' is no SHA-256 in hexadecimal digits" in reason
    folder = bench.store / evaluations_folder(bench.run)
    assert not [each for each in folder.iterdir() if each.is_dir()]
    assert (bench.store / path).exists(), "it was not moved"


def test_an_evaluator_has_no_events(bench, tmp_path):
    script = tmp_path / "evaluate.py"
    script.write_text("from flavor.cook.utils import WaitEvent\nWaitEvent('TrainStarted')\n")
    coordinator = bench.serve("--heartbeat-timeout-s", 1, rounds=1, clients=1)
    bench.aggregator()
    edge = bench.edge("c1", bench.trainer(), "-e", f"{sys.executable} {script}")
    finish(coordinator, {"c1": edge})
    assert "an evaluator is run once for each model and has no events" in edge.stderr


def test_the_best_model_is_kept_named_and_fetched(bench, tmp_path):
    """The toy model moves away from 0 in each round, so the first one is the best of three by `min`."""
    serve = ["--select", "accuracy:min", "--keep-globals", 2, "--out", tmp_path / "out"]
    coordinator, edges = start(bench, *serve, rounds=5)
    finish(coordinator, edges)
    best = bench.runs.read().best
    assert (best.round, best.sites, best.value) == (1, 2, pytest.approx(accuracies(1, 2, rounds=1)["accuracy"]))
    assert "the best so far by accuracy" in bench.logged("run.best", round=1)["reason"]
    assert [entry["round"] for entry in bench.log() if entry["event"] == "run.best"] == ["1"]
    model = tmp_path / "best.pkl"
    got = bench.done("flavor", "get", bench.run, "--round", "best", "-o", model, "--store", bench.store)
    assert got.wait() == 0, got.stderr
    with model.open("rb") as file:
        weights = pickle.load(file)["state_dict"]["w"]
    assert weights == pytest.approx(STEP)
    kept = next((tmp_path / "out").glob("best_model.*"))
    assert kept.read_bytes() == model.read_bytes()
    gone = bench.done("flavor", "get", bench.run, "--round", 2, "-o", tmp_path / "2.pkl", "--store", bench.store)
    assert gone.wait() == 1
    view, archive = bench.runs.read_evaluation(5, AUTOMATIC), Archive(LocalStore(bench.store), bench.run)
    assert read_manifest(archive, view.manifest).best_round == 1


def test_a_run_without_a_best_model_says_why(bench):
    coordinator, edges = start(bench, "--select", "acuracy:max", rounds=1)
    finish(coordinator, edges)
    assert (
        "--select: there is no metric 'acuracy': there is only accuracy" in bench.logged("evaluation.closed")["reason"]
    )
    got = bench.done("flavor", "get", bench.run, "--round", "best", "--store", bench.store)
    assert got.wait() == 1
    assert "has no best round: --select: there is no metric 'acuracy': there is only accuracy" in got.stderr


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (["--stop-when", "worst/accuracy>=0.03"], "worst/accuracy of the model of round 2 is 0.0343333"),
        (["--select", "accuracy:min", "--stop-after-no-gain", 1], "accuracy was best in round 1"),
    ],
    ids=["a goal", "no gain"],
)
def test_a_run_that_is_good_enough_finishes_as_planned(bench, rule, reason):
    coordinator, edges = start(bench, *rule, rounds=9, trainer=["--rounds", "endless"])
    finish(coordinator, edges)
    run = bench.runs.read()
    assert (run.state, run.round, run.is_met) == ("finished", 2, True)
    assert reason in bench.logged("run.finished")["reason"]
    more = bench.done("flavor", "extend", bench.run, "--rounds", 12)
    assert more.wait() == 0, more.stderr
    assert "ended because it had reached its goal, and ends again at once with the same rules" in more.stderr
    assert f"`flavor resume {bench.run} --rounds 12` with another --stop-when" in more.stderr
    assert (bench.runs.read().round, bench.runs.read().rounds) == (2, 12)
    other = "worst/accuracy>=9" if "--stop-when" in rule else 5
    on = bench.done("flavor", "resume", bench.run, "--rounds", 12, rule[-2], other, "--detach")
    assert (on.wait(), "goes on after round 2" in on.stderr + on.stdout) == (0, True), on.stderr


def test_a_run_of_which_a_site_is_gone_for_good_ends_without_a_gain_as_well(bench):
    """The accuracy rises in each round: by `min`, the first model stays the best."""
    trainer = ["--rounds", "endless", "--only", "c3", "--fail", "exit3", "--at", 2]
    serve = ["--select", "accuracy:min", "--stop-after-no-gain", 2, "--quorum", 2]
    coordinator, edges = start(bench, *serve, rounds=9, trainer=trainer, clients=("c1", "c2", "c3"))
    assert edges.pop("c3").wait() != 0
    finish(coordinator, edges)
    run = bench.runs.read()
    assert (run.state, run.round, run.is_met) == ("finished", 3, True)
    assert "accuracy was best in round 1" in bench.logged("run.finished")["reason"]
    first, second, third = summaries(bench)
    assert ((first.sites, first.best_before), second.best_before, third.best_before) == ((3, 0), 1, 1)
    of_three, of_two = 14 / 6 / 100, 0.0015  # what three sites add in round 1; what c1 and c2 have beside the weights
    assert third.comparison.beside == pytest.approx((of_three + 2 * STEP / 100 + of_two, of_three + of_two, 2))
    on = bench.done("flavor", "resume", bench.run, "--rounds", 9)
    assert on.wait() == 0, on.stderr
    assert bench.runs.read().round == 3, "a coordinator that is started again decides the same"


def test_a_goal_that_one_site_keeps_from_being_known_is_not_reached(bench):
    """The mean of the sites that are left is good enough; that of all is not known."""
    flags = ["--fail", "exit", "--only", "c1"]
    coordinator, edges = start(bench, "--stop-when", "accuracy>=0.01", flags=flags, rounds=2)
    finish(coordinator, edges)
    assert bench.runs.read().round == 2
    assert not bench.runs.read().is_met
    why = "does not count, though accuracy is"
    logged = [bench.logged("evaluation.closed", round=round_)["reason"].count(why) for round_ in (1, 2)]
    assert logged == [1, 1], "the log has it of each round"
    assert coordinator.stderr.count(why) == 1, "a terminal has a reason once"
    assert coordinator.stderr.count(": c1 has no result") == 1
    assert coordinator.stderr.count("; without c1: ") == 2, "once for each round"
