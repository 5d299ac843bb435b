"""`flavor run` says which evaluations have no result and which rules no value, and refuses what can never have one."""

from __future__ import annotations

import json
import re
import shlex
import sys

import pytest

from tests.integration.test_central import evaluator as central
from tests.integration.test_evaluation import evaluator

OWN = {"FLAVOR_REDIS_URL": None}
"""The variables of a local run that has a server of its own."""
SECRET = "the evaluator ended (exit code 3): the secret of patient 7"
"""What the log of a site says, which this user may read."""


def local(bench, out, *options, env=None, **others):
    words = ["-m", bench.trainer(), "--edges", 2, "--rounds", 2, "--run", bench.run, "--out", out]
    return bench.done("flavor", "run", *words, *options, env=env or OWN, **others)


def lines_with(text: str, stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if text in line]


def test_evaluations_without_a_result_are_told_of_once_and_at_the_end(bench, tmp_path):
    out = tmp_path / "out"
    done = local(bench, out, "-e", evaluator("--fail", "exit"), "--evaluate", "every", "--json")
    assert done.wait() == 0, done.stderr
    (failed,) = json.loads(done.stdout)["not_judged"]
    why = 'no result counts: edge-1: "its evaluator ended (exit code 3)"; edge-2: "its evaluator ended (exit code 3)"'
    last = f"evaluation of the model of round 2: {why}"
    assert failed == {"round": 2, "reason": last, "is_central": False, "sites": ["edge-1", "edge-2"]}
    asked = bench.done("flavor", "results", out, env=OWN)
    assert f"no model of run {str(out)!r} has been judged: {last}" in asked.stderr
    of_round = bench.done("flavor", "results", out, "--round", 1, env=OWN)
    assert f"has been judged: {last.replace('round 2', 'round 1')}" in of_round.stderr
    again = bench.done("flavor", "run", "--resume", out, "--rounds", 4, env=OWN)
    assert again.wait() == 0, again.stderr
    log = f"edge-1: {SECRET}; its log: {out / 'logs' / 'edge-1.log'}"
    during, end = lines_with("no result counts", again.stderr)
    assert during == f"evaluation of the model of round 3: {why}; {log}"
    assert end == f"judged:        nothing: evaluation of the model of round 4: {why}; {log}"


def test_an_evaluation_without_one_site_names_it_with_its_log(bench, tmp_path):
    out = tmp_path / "out"
    done = local(bench, out, "-e", evaluator("--fail", "exit", "--only", "edge-2"), "--evaluate", "every")
    assert done.wait() == 0, done.stderr
    why = (
        f'without edge-2: "its evaluator ended (exit code 3)"; edge-2: {SECRET}; its log: {out / "logs" / "edge-2.log"}'
    )
    judged = lines_with("  judged in ", done.stderr)
    assert [line.startswith(f"model of round {round_}  ") for round_, line in enumerate(judged, 1)] == [True, True]
    assert all(re.search(r" s: accuracy 0\.0\d+ by 1 of 2 sites$", line) for line in judged), judged
    during, end = lines_with("without edge-2", done.stderr)
    assert during.startswith("evaluation of the model of round 1: 1 result, 100 examples: accuracy 0.0")
    assert during.endswith(why)
    assert end == f"               {why}"


def test_an_evaluation_on_the_operators_data_without_a_result_is_told_of(bench, tmp_path):
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    evaluators = ["--central-evaluate", central("--fail", "exit"), "--evaluate-input", data, "-e", evaluator()]
    done = local(bench, out, *evaluators)
    assert done.wait() == 0, done.stderr
    during, end = lines_with("on the operator's own data", done.stderr)
    why = "the model of round 2 on the operator's own data: its evaluator ended (exit code 3)"
    assert during == f"{why}; aggregator: {SECRET}; its log: {out / 'logs' / 'aggregator.log'}"
    assert end == f"               {during}", "below the line about the sites"


def test_rules_without_a_value_are_told_of_once_and_at_the_end(bench, tmp_path):
    out = tmp_path / "out"
    done = local(bench, out, "-e", evaluator(), "--select", "acuracy:max", "--stop-when", "acuracy>0.1")
    assert done.wait() == 0, done.stderr
    there = "there is no metric 'acuracy': there is only accuracy"
    during, best, goal = lines_with("there is no metric", done.stderr)
    assert during.startswith("evaluation of the model of round 1: 2 results, 300 examples: accuracy 0.0")
    assert during.endswith(f"; --select: {there}; --stop-when: {there}")
    assert best == f"best judged:   none: --select: {there}"
    assert goal == f"no value:      --stop-when: {there}"
    for words in (["get", out], ["results", out], ["run", "-m", "true", "--edges", 1, "--from-run", out]):
        option = "--from-round" if words[0] == "run" else "--round"
        refused = bench.done("flavor", *words, option, "best", env=OWN)
        assert refused.wait() != 0
        assert "there is only accuracy" in refused.stderr, words
        assert words[0] == "results" or f"has no best round: --select: {there}" in refused.stderr


def test_a_rule_of_a_run_without_evaluators_on_a_server_of_the_users_is_told_of_at_the_end(bench, tmp_path):
    done = local(bench, tmp_path / "out", "--select", "accuracy:max", env={"FLAVOR_REDIS_URL": bench.url})
    assert done.wait() == 0, done.stderr
    assert "best judged:   none: --select: no evaluation of its metric has had a result" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--select", "a:max"], "--select a:max: this run has no evaluator that measures a: pass -e CMD"),
        (["--stop-when", "a>1"], "--stop-when 'a>1': this run has no evaluator that measures a: pass -e CMD"),
        (["--select", "a:max", "--stop-after-no-gain", 2], "--select a:max: this run has no evaluator that measures a"),
        (["--evaluate", "every"], "--evaluate every: this run has no evaluator: pass -e CMD, or --central-evaluate"),
        (
            ["-e", sys.executable, "--select", "central/a:max"],
            "measures central/a: pass --central-evaluate CMD with --evaluate-input DIR; names of metrics of -e have no",
        ),
        (
            ["--central-evaluate", sys.executable, "--evaluate-input", "/", "--select", "a:max"],
            "measures a: pass -e CMD; names of metrics of --central-evaluate begin with central/",
        ),
        (
            ["-e", sys.executable, "--stop-when", "a"],
            "in quotes: without them, > makes a shell write a file (given: 'a')\n",
        ),
        (["-e", sys.executable, "--stop-when", "a=1"], "are needed, e.g. \"accuracy>=0.95\" (given: 'a=1')\n"),
    ],
    ids=lambda each: shlex.join(map(str, each)) if isinstance(each, list) else "",
)
def test_settings_that_can_have_no_effect_are_refused_at_the_start(bench, tmp_path, options, said):
    out = tmp_path / "out"
    done = local(bench, out, *options)
    assert done.wait() == 2
    assert said in done.stderr
    assert not out.exists()


def test_a_rule_that_a_run_without_evaluators_is_resumed_with_is_refused(bench, tmp_path):
    out = tmp_path / "out"
    assert local(bench, out).wait() == 0
    again = bench.done("flavor", "run", "--resume", out, "--rounds", 3, "--stop-when", "a>1", env=OWN)
    assert again.wait() == 2
    assert "--stop-when 'a>1': this run has no evaluator that measures a: pass -e CMD" in again.stderr
    plain = bench.done("flavor", "run", "--resume", out, "--rounds", 3, env=OWN)
    assert plain.wait() == 0, plain.stderr
