"""A goal of `--stop-when` is not reached by values that lack a site, whichever process decides.

Neither is it without a site that is gone: c5 only judges, is killed after round 1, and counts until it is revoked.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path

from flavor.records.evaluation import EvaluationSummary

EVALUATOR = Path(__file__).with_name("toy_evaluator.py")
NAN, INF = float("nan"), float("inf")
RULES = ("loss<=0.5", "worst/accuracy>=0.5", "score>=0.7", "pooled/accuracy>=0.75")


def metrics(loss: float, share: float) -> dict[str, object]:
    """The metrics of a site that classifies this share of 20 examples right."""
    right = round(20 * share)
    counts = {"count/multiclass/confusion": [right, 20 - right, 0, 0]}
    return {"loss": loss, "accuracy": share, "score": share, **counts}


GOOD = metrics(0.4, 0.9)
C3 = [
    metrics(3.5, 0.0),
    {"loss": INF, "accuracy": NAN},
    {"loss": NAN, "accuracy": NAN},
    {"loss": NAN, "score": 0.9},
    GOOD,
]
C4 = {"x": 1}
"""A site without labels: it has no part in any rule."""
SITES = {"c1": [GOOD] * 6, "c2": [GOOD] * 6, "c3": [*C3, GOOD], "c4": [C4] * 6}
AWAY = (
    "c5 was not there to judge the model, and has reported {} before: the rule counts again once it is back, "
    "or without it after `flavor revoke`"
)


def judge(bench, table: Path):
    """The site c5."""
    command = shlex.join([sys.executable, str(EVALUATOR), "--table", str(table)])
    words = ["--run", bench.run, "--client", "c5", "--store", bench.store, "--workspace", bench.folder / "c5"]
    return bench.start("flavor-fv", *words, "-m", command)


def edges(bench, table: Path, *, until_c5_is_gone: bool = False):
    command = shlex.join(
        [sys.executable, str(EVALUATOR), "--table", str(table), "--hold", "--only", "c1", "--in-round", "3"]
    )
    env = {"TEST_BUS": bench.url}
    holds = {"c2": ["--hold", "--at", 2]} if until_c5_is_gone else {}
    return [
        bench.edge(site, bench.trainer("--rounds", "endless", *holds.get(site, ())), "-e", command, env=env)
        for site in SITES
    ]


def finish(coordinator, sites) -> None:
    assert coordinator.wait() == 0, coordinator.stderr
    for edge in sites:
        assert edge.wait() == 0, edge.stderr


def test_a_site_whose_value_is_nan_infinite_or_missing_keeps_a_goal_from_being_reached(bench, tmp_path):
    """Its coordinator is killed, and its Redis lost, while the site lacks them all; it is good in round 5 alone."""
    table = tmp_path / "table.json"
    table.write_text(json.dumps({site: dict(enumerate(of, 1)) for site, of in (*SITES.items(), ("c5", [GOOD]))}))
    rules = [word for rule in RULES for word in ("--stop-when", rule)]
    words = ["--heartbeat-timeout-s", 1.5, "--on-quorum-lost", "wait", *rules]
    first = bench.serve(*words, rounds=3, clients=4)
    bench.aggregator()
    c5 = judge(bench, table)
    bench.logged("client.joined", client="c5")
    sites = edges(bench, table, until_c5_is_gone=True)
    bench.held("c2")
    bench.logged("evaluation.closed", round=1)
    c5.send(signal.SIGKILL)
    bench.logged("client.lost", client="c5")
    bench.release("c2")
    bench.held("c1")
    first.send(signal.SIGKILL)
    second = bench.serve(*words, rounds=3, clients=4)
    bench.release("c1")
    finish(second, sites)
    assert (bench.runs.read().round, bench.runs.read().is_met) == (3, False)
    reason = bench.logged("evaluation.closed", round=2)["reason"]
    told = [
        "--stop-when 'loss<=0.5' does not count, though loss is 0.4: loss is not a finite number at c3 (inf)",
        "--stop-when 'worst/accuracy>=0.5' does not count, though worst/accuracy is 0.9: "
        "accuracy is not a finite number at c3 (NaN)",
        "--stop-when 'score>=0.7' does not count, though score is 0.9: c3 does not report score, and has before",
        "--stop-when 'pooled/accuracy>=0.75' does not count, though pooled/accuracy is 0.9: "
        "c3 does not report pooled/accuracy, and has before",
    ]
    for begin, name in zip(told, ("loss", "accuracy", "score", "pooled/accuracy"), strict=True):
        line = f"{begin}; {AWAY.format(name)}"
        assert line in reason
        assert first.stderr.count(line) == 1, "the coordinator says it as well, once"
    before, reported = bench.runs.evaluated(), bench.runs.reported()
    assert reported["c3"] == ("accuracy", "loss", "pooled/accuracy", "score")
    assert reported["c3"] == reported["c5"]
    assert "c4" not in reported

    bench.redis.flushall()
    done = bench.done("flavor", "recover", "--run", bench.run, "--store", bench.store, "--untrusted")
    assert done.wait() == 0, done.stderr
    lacking = [
        [EvaluationSummary.from_json(text).lacking for text in each] for each in (before, bench.runs.evaluated())
    ]
    assert lacking[0] == lacking[1]
    assert bench.runs.reported() == reported
    third = bench.start("flavor", "resume", bench.run, "--rounds", 5)
    bench.logged("run.resumed")  # a site of a run that is over ends
    finish(third, edges(bench, table))
    assert (bench.runs.read().round, bench.runs.read().is_met) == (5, False)
    told = f"--stop-when 'loss<=0.5' does not count, though loss is 0.4: {AWAY.format('loss')}"
    assert told in bench.logged("evaluation.closed", round=5)["reason"]
    told = f"--stop-when 'score>=0.7' does not count, though score is 0.9: {AWAY.format('score')}"
    assert all(told in bench.logged("evaluation.closed", round=each)["reason"] for each in (4, 5))
    assert third.stderr.count(told) == 1, "it is the same reason after both rounds"

    revoked = bench.done("flavor", "revoke", bench.run, "c5")
    assert revoked.wait() == 0, revoked.stderr
    assert "it had no token, and takes part again if it is started again" in revoked.stderr
    fourth = bench.start("flavor", "resume", bench.run, "--rounds", 9)
    bench.eventually("the run goes on", lambda: not bench.runs.read().state.ended)
    finish(fourth, edges(bench, table))
    assert (bench.runs.read().round, bench.runs.read().is_met) == (6, True)
    assert "of the model of round 6" in bench.runs.read().reason
    assert bench.done("flavor", "revoke", bench.run, "c4").wait() == 0, "it has ended with the run"
    assert "is enrolled" in bench.done("flavor", "revoke", bench.run, "c7").stderr
