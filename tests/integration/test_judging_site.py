"""A site that judges models and trains nothing: `flavor-fv`. No round waits for it, expects it or counts it.

The toy evaluators of `toy_evaluator.py` have 100 i examples; i is the number at the end of a client's name.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path

import pytest

from flavor.records.evaluation import AUTOMATIC, EvaluationSummary
from flavor.records.states import EvaluationState

EVALUATOR = Path(__file__).with_name("toy_evaluator.py")


def evaluator(*flags: object) -> str:
    return shlex.join([sys.executable, str(EVALUATOR), *map(str, flags)])


def judge(bench, client, *options, flags=(), env=None):
    """Start a site that only judges models."""
    words = ["--run", bench.run, "--client", client, "-m", evaluator(*flags), "--workspace", bench.folder / client]
    named = {"FLAVOR_STORE": str(bench.store), "TEST_BUS": bench.url, **(env or {})}
    return bench.start("flavor-fv", *words, *options, env=named)


def summaries(bench) -> list[EvaluationSummary]:
    return [EvaluationSummary.from_json(text) for text in bench.runs.evaluated()]


def test_it_judges_the_models_that_others_train_and_stays_after_the_end(bench):
    coordinator = bench.serve("--evaluate", "every", rounds=2, clients=1)
    bench.aggregator()
    site = judge(bench, "v3")
    bench.logged("client.joined", saying="it judges models, and trains none")
    edge = bench.edge("c1", bench.trainer())
    assert coordinator.wait() == 0, coordinator.stderr
    assert edge.wait() == 0, edge.stderr
    assert [(each.round, each.sites, each.expected, each.examples) for each in summaries(bench)] == [
        (1, 1, 1, 300),
        (2, 1, 1, 300),
    ]
    for number in (1, 2):
        assert bench.runs.read_round(number).expected == ("c1",)
    site.until("this site stays")
    keys = bench.runs.keys.client("v3")
    assert bench.redis.exists(keys.lease)
    damaged = {"global_path": "x", "global_digest": "y", "global_size": "9" * 30, "deadline_ms": "soon"}
    bench.redis.hset(keys.evaluation_task(2, 7), mapping=damaged)
    bench.redis.hset(keys.evaluations, "2 7", 1)
    bench.redis.publish(keys.evaluations, "1")
    refused = bench.eventually("this one is refused", lambda: bench.redis.hgetall(keys.result(2, 7)))
    assert refused["refused"] == "a record on Redis, such as its task, cannot be read"
    site.until("could not be judged: the task")
    site.send(signal.SIGTERM)
    assert site.wait() == 143, site.stderr


def test_it_is_none_of_the_sites_that_a_run_needs(bench):
    coordinator = bench.serve("--evaluate", "every", rounds=1, clients=2)
    bench.aggregator()
    judge(bench, "v3")
    bench.logged("client.joined", client="v3")
    bench.edge("c1", bench.trainer())
    bench.logged("run.waiting", saying="1 of at least 2 clients is ready; waiting for 1 more site to join")
    status = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    assert "trains none" in status["clients"]["v3"]["reason"]
    bench.edge("c2", bench.trainer())
    assert coordinator.wait() == 0, coordinator.stderr
    assert bench.runs.read_round(1).expected == ("c1", "c2")
    assert [each.sites for each in summaries(bench)] == [1]


def test_it_does_not_keep_a_run_alive_whose_trainers_are_gone(bench):
    coordinator = bench.serve("--heartbeat-timeout-s", 1, rounds=2, clients=1)
    bench.aggregator()
    judge(bench, "v3")
    bench.logged("client.joined", client="v3")
    edge = bench.edge("c1", bench.trainer("--rounds", 1))
    assert edge.wait() == 7, edge.stderr
    assert coordinator.wait() == 7, coordinator.stderr


def test_it_ends_with_the_run_where_it_is_told_to(bench):
    coordinator = bench.serve(rounds=1, clients=1)
    bench.aggregator()
    site = judge(bench, "v3", "--until-end")
    bench.logged("client.joined", client="v3")
    bench.edge("c1", bench.trainer())
    assert coordinator.wait() == 0, coordinator.stderr
    assert site.wait() == 0, site.stderr
    assert [each.sites for each in summaries(bench)] == [1]


def test_it_finds_the_model_and_writes_where_its_image_says(bench, tmp_path):
    """An image of the ancestor names its folders in its environment."""
    names = {"WEIGHT_PATH": tmp_path / "weight" / "model.ckpt", "OUTPUT_PATH": tmp_path / "output"}
    prepare = shlex.join([sys.executable, "-c", "import os; print('prepared', os.environ['INPUT_PATH'])"])
    coordinator = bench.serve(rounds=1, clients=1)
    bench.aggregator()
    site = judge(bench, "v3", "--until-end", "-p", prepare, env={name: str(path) for name, path in names.items()})
    bench.logged("client.joined", client="v3")
    bench.edge("c1", bench.trainer())
    assert coordinator.wait() == 0, coordinator.stderr
    assert site.wait() == 0, site.stderr
    assert "prepared " in site.stdout
    assert names["WEIGHT_PATH"].is_file()
    assert (names["OUTPUT_PATH"] / "seen").read_text() == "1"


def test_a_preprocess_command_that_fails_is_the_end_of_it(bench):
    bench.serve(rounds=1, clients=1)
    site = judge(bench, "v3", "-p", shlex.join([sys.executable, "-c", "raise SystemExit(4)"]))
    assert site.wait() == 5
    assert "the preprocess command" in site.stderr
    assert "exit code 4" in bench.logged("client.lost", client="v3")["reason"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_an_evaluation_goes_on_without_one_that_is_gone(bench, how):
    coordinator = bench.serve("--heartbeat-timeout-s", 1, "--evaluate", "every", rounds=2, clients=1)
    bench.aggregator()
    site = judge(bench, "v3", flags=["--hold", "--only", "v3"])
    bench.logged("client.joined", client="v3")
    edge = bench.edge("c1", bench.trainer(), "-e", evaluator())
    bench.held("v3")
    site.send(how)
    assert coordinator.wait() == 0, coordinator.stderr
    assert edge.wait() == 0, edge.stderr
    assert [(each.round, each.sites) for each in summaries(bench)] == [(1, 1), (2, 1)]
    assert bench.runs.read_evaluation(1, AUTOMATIC).state is EvaluationState.CLOSED
    site.wait()
    assert not [command for command in bench.survivors().values() if "toy_evaluator" in command]


def test_one_that_comes_after_the_end_stays_too(bench):
    coordinator = bench.serve(rounds=1, clients=1)
    bench.aggregator()
    bench.edge("c1", bench.trainer())
    assert coordinator.wait() == 0, coordinator.stderr
    late = judge(bench, "v3")
    late.until("this site stays")
    leaving = judge(bench, "v4", "--until-end")
    assert leaving.wait() == 1
    assert "is over" in leaving.stderr
    late.send(signal.SIGINT)
    assert late.wait() == 130
