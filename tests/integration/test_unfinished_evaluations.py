"""Evaluations are driven to their end: those that a coordinator before has left open, and that of the last model."""

from __future__ import annotations

import signal

from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.records.states import EvaluationState, RunState
from tests.integration.test_central import go, judges
from tests.integration.test_evaluation import evaluator, finish, start, summaries

ENDLESS = ("--rounds", "endless")


def test_an_evaluation_that_a_coordinator_has_left_open_ends_also_where_others_are_not_wanted_any_more(bench):
    """That of round 1 is awaited, though each second model is judged by then; that of round 2 is skipped."""
    flags = ["--hold", "--in-round", 1, "--only", "c1"]
    coordinator, edges = start(bench, "--evaluate", "every", rounds=3, flags=flags, trainer=ENDLESS)
    for mode, judged in ((2, 1), ("off", 2)):
        bench.held("c1")
        coordinator.send(signal.SIGKILL)
        coordinator.wait()
        bench.runs.end(RunState.STOPPED, "enough")  # `flavor stop` was killed before it had ended the evaluation
        for edge in edges.values():
            edge.wait()
        assert bench.runs.evaluating() == [(judged, AUTOMATIC)]
        coordinator = bench.start("flavor", "resume", bench.run, "--evaluate", mode)
        flags = ["--hold", "--in-round", judged + 1, "--only", "c1"]
        env = {"TEST_BUS": bench.url}
        edges = {c: bench.edge(c, bench.trainer(*ENDLESS), "-e", evaluator(*flags), env=env) for c in ("c1", "c2")}
    finish(coordinator, edges)
    assert bench.runs.evaluating() == []
    assert [(each.round, each.sites) for each in summaries(bench)] == [(1, 2)]
    assert bench.runs.read_evaluation(2, AUTOMATIC).state is EvaluationState.FAILED
    assert bench.logged("evaluation.skipped", round=2)["reason"] == "no model is judged any more (--evaluate off)"


def test_the_last_model_is_judged_by_the_sites_where_a_rule_on_the_operators_own_data_ends_the_run(bench):
    """The rule is met by the model of round 2 while c2 trains in round 3, whose model nothing else would judge."""
    rule = ("--evaluate", 2, "--stop-when", "central/accuracy>=0.001")
    held = ("--hold", "--at", 3, "--only", "c2")
    coordinator = bench.serve("--heartbeat-timeout-s", 1, *rule, rounds=6)
    judges(bench, "--hold", "--in-round", 2)
    env = {"TEST_BUS": bench.url}
    edges = {c: bench.edge(c, bench.trainer(*ENDLESS, *held), "-e", evaluator(), env=env) for c in ("c1", "c2")}
    bench.held("c2")
    go(bench)
    bench.logged("evaluation.closed", round=2, evaluation=CENTRAL)
    bench.release("c2")
    finish(coordinator, edges)
    assert bench.runs.read().is_met
    assert sorted((each.round, each.number) for each in summaries(bench)) == [
        (2, 0),
        (2, CENTRAL),
        (3, 0),
        (3, CENTRAL),
    ]
