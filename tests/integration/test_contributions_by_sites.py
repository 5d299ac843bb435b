"""`flavor contributions --by-sites`: sites judge the models of a run without one site after another.

The toy trainers of `toy_trainer.py` add i to each weight of client i, with 10 i examples. The toy evaluators are steep:
the accuracy of client i is i times the mean weight by 100, plus i / 1000.
"""

from __future__ import annotations

import json
import signal

import pytest

from flavor.records.states import EvaluationState
from flavor.store.paths import global_folder
from flavor.view.board import Board
from tests.integration.test_evaluation import evaluator, finish
from tests.integration.test_judging_site import judge

FOUR = (1, 2, 3, 4)
METRIC = ("--metric", "accuracy:max")


def added(*clients: int) -> float:
    """What a round of these clients adds to each weight: their mean, weighted by their examples."""
    return sum(i * i for i in clients) / sum(clients)


def gain(left: int, judges: tuple[int, ...]) -> float:
    """How much better a round's model is with one of four clients, on average at these judges."""
    difference = added(*FOUR) - added(*(i for i in FOUR if i != left))
    return sum(i * difference / 100 for i in judges) / len(judges)


def by_sites(bench, *words: object, env=None):
    return bench.start("flavor", "contributions", bench.run, "--by-sites", *words, env=env)


def found_by(bench, *words: object) -> dict:
    done = by_sites(bench, *METRIC, "--json", *words)
    assert done.wait() == 0, done.stderr
    return json.loads(done.stdout)


def models_in_store(bench) -> list[str]:
    """The models that no round has made."""
    folder = bench.store / global_folder(bench.run)
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("0000-"))


@pytest.fixture
def idle(bench):
    """A run after its second round, which waits for c4: its script has ended. c1, c2 and c3 wait, and can judge.

    All sites allow it. The flags of their evaluators are those of `bench.flags`.
    """
    serve = ("--heartbeat-timeout-s", 1, "--evaluate", "off", "--on-quorum-lost", "wait")
    coordinator = bench.serve(*serve, rounds=3, clients=4)
    bench.aggregator()
    trainer, flags = bench.trainer("--rounds", "c4:2"), getattr(bench, "flags", ())
    env = {"TEST_BUS": bench.url}
    edges = [
        bench.edge(f"c{i}", trainer, "--allow-cross", *(["-e", evaluator("--steep", *flags)] if i < 4 else []), env=env)
        for i in FOUR
    ]
    bench.logged("client.left", client="c4")
    bench.logged("round.closed", round=2)
    yield
    if not bench.runs.read().state.ended:
        assert bench.done("flavor", "stop", bench.run).wait() == 0
    assert coordinator.wait() == 8
    for edge in edges:
        edge.wait()


def test_sites_judge_while_the_run_goes_on_and_their_own_word_stands_apart(bench, idle):
    found = found_by(bench)
    assert (found["by_sites"], found["metric"]) == (True, "accuracy:max")
    assert [each["round"] for each in found["rounds"]] == [1, 2]
    three = (1, 2, 3)
    for each in found["rounds"]:
        mean = each["round"] * added(*FOUR)
        assert each["value"] == pytest.approx(sum(i * mean / 100 + i / 1000 for i in three) / 3)
        for i in FOUR:
            part, others = each["sites"][f"c{i}"], tuple(j for j in three if j != i)
            assert sorted(part["judges"]) == ["c1", "c2", "c3"]
            assert part["contribution"] == pytest.approx(gain(i, others), abs=1e-7)
            assert part["with_it"] == pytest.approx(sum(j * mean / 100 + j / 1000 for j in others) / len(others))
            assert part["without"] == pytest.approx(part["with_it"] - part["contribution"])
            for j in three:
                assert part["judges"][f"c{j}"]["contribution"] == pytest.approx(gain(i, (j,)), abs=1e-7)
    assert [site["client"] for site in found["sites"]] == ["c1", "c2", "c3", "c4"]
    assert bench.runs.evaluating() == []
    assert models_in_store(bench) == []

    with Board(bench.url, runs=[bench.run]) as board:
        shown = board.contributions(bench.run)["result"]
    assert shown["by_sites"]
    assert shown["sites"] == found["sites"]
    for place in ([], ["--store", bench.store]):
        newest = bench.done("flavor", "results", bench.run, *place)
        assert newest.wait() == 1
        assert f"no model of run '{bench.run}' has been judged" in newest.stderr, "by all sites"
        words = ("--round", 2, "--evaluation", 1, "--json", *place)
        whole = json.loads(bench.done("flavor", "results", bench.run, *words).stdout)
        assert whole["subject"] == {"kind": "whole", "round": 2, "site": ""}
        assert sorted(whole["sites"]) == ["c1", "c2", "c3"]
    status = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    assert status["evaluation"] is None
    records = [json.loads(path.read_text()) for path in sorted(bench.store.rglob("0000-*-manifest-*.json"))]
    assert {(each["subject"]["round"], each["subject"]["site"]) for each in records} == {
        (round_, f"c{i}") for round_ in (1, 2) for i in FOUR
    }
    assert {each["subject"]["kind"] for each in records} == {"without"}
    opened = [entry["reason"] for entry in bench.log() if entry["event"] == "evaluation.opened"]
    assert {reason.partition(", because ")[2] for reason in opened} == {"`flavor contributions --by-sites` asks for it"}
    verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert verified.wait() == 0, verified.stdout + verified.stderr

    table = by_sites(bench, "--metric", "accuracy", "--rounds", 1)
    assert table.wait() == 0, table.stderr
    assert "5 evaluations of 1 round: all sites judge" in table.stderr or "4 evaluations of 1 round" in table.stderr
    assert "the model of round 2 without c1: judged by c1, c2, c3" in table.stderr
    heads = next(line for line in table.stdout.splitlines() if line.startswith("SITE")).split("  ")
    assert [head.strip() for head in heads if head][-5:] == [
        "WITH IT",
        "WITHOUT IT",
        "CONTRIBUTION",
        "AT HOME",
        "JUDGED BY",
    ]
    (row,) = [line for line in table.stdout.splitlines() if line.startswith("c2")]
    assert row.split()[-4:] == [f"{gain(2, (1, 3)):+.4g}", f"{gain(2, (2,)):+.4g}", "c1,", "c3"]


def test_sites_judge_after_the_end_and_one_that_leaves_is_named(bench):
    """v6 judges the first model, and is killed while it judges another one. c1 has trained, and judges now."""
    coordinator = bench.serve("--heartbeat-timeout-s", 1, "--evaluate", "off", rounds=2, clients=4)
    bench.aggregator()
    edges = {f"c{i}": bench.edge(f"c{i}", bench.trainer(), "--allow-cross") for i in FOUR}
    finish(coordinator, edges)
    leaves = judge(bench, "v6", "--allow-cross", flags=["--steep", "--hold", "--only", "v6", "--in-round", 0])
    stays = [judge(bench, client, "--allow-cross", flags=["--steep"]) for client in ("c1", "v5", "v7")]
    aside = judge(bench, "v8", flags=["--steep"])
    for site in (leaves, *stays, aside):
        site.until("this site stays")
    asking = by_sites(bench, *METRIC, "--json", "--rounds", 1)
    bench.held("v6")
    leaves.send(signal.SIGKILL)
    assert asking.wait() == 0, asking.stderr
    (only,) = json.loads(asking.stdout)["rounds"]
    for i in FOUR:
        part = only["sites"][f"c{i}"]
        if part["lacking"]:  # else the model is that of the round
            assert list(part["judges"]) == ["c1", "v5", "v7"]
            assert part["contribution"] == pytest.approx(gain(i, (5, 7) if i == 1 else (1, 5, 7)), abs=1e-7)
            assert list(part["lacking"]) == ["v6"]
    assert only["sites"]["c1"]["lacking"]
    assert only["sites"]["c1"]["judges"]["c1"]["contribution"] == pytest.approx(gain(1, (1,)), abs=1e-7)
    assert "v8" not in asking.stderr, "a site that does not allow it gets no such model"
    assert models_in_store(bench) == []
    named = {name for i in FOUR for name in bench.redis.hgetall(bench.runs.keys.client(f"c{i}").evaluations)}
    assert named == set()


def test_an_interruption_gives_up_what_is_open_and_leaves_no_model_in_the_store(bench, request):
    bench.flags = ("--hold", "--only", "c2", "--in-round", 0)
    request.getfixturevalue("idle")
    first = by_sites(bench, *METRIC)
    bench.held("c2")
    assert models_in_store(bench) != []
    first.send(signal.SIGINT)
    assert first.wait() == 130
    assert bench.runs.evaluating() == []
    assert models_in_store(bench) == []

    late = found_by(bench, "--rounds", 1, "--timeout-s", 0.5)
    (only,) = late["rounds"]
    assert only["sites"]["c1"]["lacking"] == {"c2": "it handed in no result in time"}
    assert only["sites"]["c1"]["contribution"] == pytest.approx(gain(1, (3,)), abs=1e-7)
    asked = [view for number in range(1, 20) if (view := bench.runs.read_evaluation(0, number)) is not None]
    waits_ms = [view.deadline_ms - view.opened_ms for view in asked if view.state is EvaluationState.CLOSED]
    assert waits_ms == [1000 + 500 * place for place in range(len(waits_ms))], (
        "each model has its time after the others"
    )
    assert len(waits_ms) >= 3


def test_what_a_killed_one_has_asked_for_is_ended_by_the_coordinator(bench, request):
    """One of the models was judged before that: it is removed as well."""
    bench.flags = ("--hold", "--only", "c2", "--in-round", 0)
    request.getfixturevalue("idle")
    first = by_sites(bench, *METRIC)
    bench.held("c2")
    bench.release("c2")
    bench.held("c2")
    bench.logged("evaluation.closed", round=0)
    first.send(signal.SIGKILL)
    first.wait()
    assert models_in_store(bench) != []
    assert bench.runs.evaluating() != []
    bench.redis.delete(bench.runs.keys.evaluator)  # as if its lease had run out
    status = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    assert status["evaluating"] == []
    bench.eventually("no model is left", lambda: models_in_store(bench) == [])
    assert bench.runs.evaluating() == []
    assert bench.runs.placed() == []
    assert "the process that asked for it has ended" in bench.logged("evaluation.skipped", round=0)["reason"]


def test_a_run_that_ends_before_all_is_judged_leaves_what_was_judged_until_then(bench, request):
    """c2 holds the first model without a site, while c1 and c3 judge all of the first round."""
    bench.flags = ("--hold", "--only", "c2", "--in-round", 0)
    request.getfixturevalue("idle")
    asking = by_sites(bench, *METRIC, "--json")
    bench.held("c2")
    last = max(number for round_, number in bench.runs.evaluating() if round_ == 0)
    bench.eventually("c1 and c3 have judged", lambda: len(bench.runs.results(0, last, ["c1", "c3"])) == 2)
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    assert asking.wait() == 0, asking.stderr
    first, second = json.loads(asking.stdout)["rounds"]
    assert list(first["sites"]["c1"]["lacking"]) == ["c2"]
    assert first["sites"]["c1"]["contribution"] == pytest.approx(gain(1, (3,)), abs=1e-7)
    assert "has no site now that has an evaluator" in second["why_not"]
    assert models_in_store(bench) == []


def test_no_model_is_made_from_which_the_update_of_a_site_that_keeps_it_follows(bench):
    serve = ("--heartbeat-timeout-s", 1, "--evaluate", "off", "--on-quorum-lost", "wait")
    coordinator = bench.serve(*serve, rounds=2, clients=4)
    bench.aggregator()
    trainer = bench.trainer("--rounds", "c4:1")
    edges = [
        bench.edge(f"c{i}", trainer, "-e", evaluator("--steep"), *(["--allow-cross"] if i < 3 else [])) for i in FOUR
    ]
    bench.logged("client.left", client="c4")
    bench.logged("round.closed", round=1)
    refused = by_sites(bench, *METRIC)
    assert refused.wait() == 1
    assert "no site was left out: c3, c4 run without --allow-cross, and each" in refused.stdout
    crossed = bench.done("flavor", "evaluate", bench.run, "--cross")
    assert (crossed.wait(), "--cross: round 1: c3, c4 run without --allow-cross" in crossed.stderr) == (1, True), (
        crossed.stderr
    )
    assert bench.runs.evaluated() == []
    assert models_in_store(bench) == []
    for words, code, said in (
        (["--by-sites", "-e", "true"], 2, "-e and --by-sites exclude each other"),
        (["--by-sites"], 2, "the run has no --select of a metric that each site measures"),
        (["--by-sites", "--metric", "pooled/accuracy:max"], 2, "the name of a metric that each site measures"),
        (["--by-sites", "--metric", "odd"], 2, "--metric 'odd'"),
        (["--timeout-s", 3], 2, "pass --by-sites"),
    ):
        wrong = bench.done("flavor", "contributions", bench.run, *words)
        assert (wrong.wait(), said in wrong.stderr) == (code, True), wrong.stderr
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    assert coordinator.wait() == 8
    for edge in edges:
        edge.wait()
