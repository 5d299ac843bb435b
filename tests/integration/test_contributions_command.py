"""`flavor contributions` on real runs.

The toy trainers of clients 1, 2 and 3 add 1, 2 and 3 to each weight, with 10, 20 and 30 examples: a round adds 14/6,
and without client 1, 2 or 3 it adds 13/5, 10/4 or 5/3. The toy evaluator's accuracy is the mean weight by 100, plus
0.001.
"""

from __future__ import annotations

import json
import signal

import pytest

from flavor.errors import DamagedRecord
from flavor.view.board import Board
from tests.integration.test_evaluation import evaluator, finish, start

ADDED = 14 / 6
WITHOUT = {"c1": 13 / 5, "c2": 10 / 4, "c3": 5 / 3}


def failed(bench, *args: object, code: int = 1):
    process = bench.done("flavor", "contributions", bench.run, *args)
    assert process.wait() == code, process.stdout
    return process


@pytest.mark.parametrize("compress", ["none", "int8"])
def test_sites_are_left_out_of_the_rounds_that_are_kept(bench, compress):
    options = ["--evaluate", "off", "--compress", compress, "--require-signatures"]
    finish(*start(bench, *options, clients=tuple(WITHOUT), rounds=3, trainer=["--elements", 5000]))
    args = ["-e", evaluator(), "--metric", "accuracy:max"]
    found = json.loads(bench.done("flavor", "contributions", bench.run, *args, "--json").stdout)
    assert [each["round"] for each in found["rounds"]] == [2, 3]
    assert [site["client"] for site in found["sites"]] == ["c1", "c2", "c3"]
    assert found["metric"] == "accuracy:max"
    assert found["run_id"] == bench.runs.read().run_id
    loose = {"rel": 1e-4, "abs": 1e-6} if compress == "none" else {"rel": 0.02, "abs": 2e-4}
    for each in found["rounds"]:
        before = (each["round"] - 1) * ADDED
        assert each["model"] == bench.runs.read_round(each["round"]).model.digest
        assert each["value"] == pytest.approx((before + ADDED) / 100 + 0.001, **loose)
        for client, part in each["sites"].items():
            assert part["cosine"] == pytest.approx(1, **loose)
            assert part["norm_ratio"] == pytest.approx(int(client[1]) / ADDED, **loose)
            assert part["without"] == pytest.approx((before + WITHOUT[client]) / 100 + 0.001, **loose)
            assert part["contribution"] == pytest.approx((ADDED - WITHOUT[client]) / 100, **loose)

    store = f"file://{bench.store}"
    with Board(bench.url, runs=[bench.run]) as board:
        shown = board.contributions(bench.run)["result"]
        assert {name: shown[name] for name in ("at_ms", "metric")} == {
            name: found[name] for name in ("at_ms", "metric")
        }
        assert (shown["rounds"], shown["left_out"], shown["lacking"]) == ([2, 3], 0, {})
        assert shown["sites"] == found["sites"]
    args[-1] = "accuracy"  # whose name says that larger values are better
    table = bench.done("flavor", "contributions", bench.run, *args, "--store", store, "--rounds", 1)
    lines = table.stdout.splitlines()
    assert lines[0] == f"the updates of round 3 of run {bench.run}"
    assert lines[1].startswith("round 3: aggregated again, all updates give the recorded model (SHA-256 ")
    assert [line.split()[0] for line in lines if line.startswith("c")] == ["c1", "c2", "c3"]
    assert lines[-1].startswith("How to read: a contribution says how much better accuracy is with the site")
    assert "not checked: whose key the records are signed with" in table.stderr


def test_cosines_need_no_evaluation_and_pruned_rounds_are_told(bench):
    finish(*start(bench, "--evaluate", "off", rounds=4))
    shown = bench.done("flavor", "contributions", bench.run, "--rounds", 9).stdout.splitlines()
    assert shown[:2] == [
        f"the updates of rounds 2, 3, 4 of run {bench.run}",
        "round 1 is not among them: the update of c1 is pruned (--keep-rounds 2)",
    ]
    assert shown[2].split() == ["SITE", "ROUNDS", "EXAMPLES", "COSINE", "NORM"]
    assert [row.split()[:4] for row in shown[3:5]] == [["c1", "3", "10", "1"], ["c2", "3", "20", "1"]]
    assert shown[5].startswith("How to read: a cosine near 1")


def test_what_is_wrong_is_one_line(bench):
    finish(*start(bench, "--evaluate", "off", rounds=1))
    assert "pass -e CMD or --by-sites" in failed(bench, "--metric", "accuracy:max", code=2).stderr
    assert "the run has no --select" in failed(bench, "-e", evaluator(), code=2).stderr
    assert "--metric 'oddity'" in failed(bench, "-e", evaluator(), "--metric", "oddity", code=2).stderr
    assert (
        "--input nowhere: there is no such folder"
        in failed(bench, "-e", evaluator(), "--input", "nowhere", code=2).stderr
    )
    lacking = failed(bench, "-e", evaluator(), "--metric", "loss:min").stderr
    assert "--metric loss:min: there is no metric 'loss': there is only accuracy" in lacking
    ended = failed(bench, "-e", evaluator("--fail", "exit"), "--metric", "accuracy:max").stderr
    assert "the command of -e ended (exit code 3): the secret of patient 7" in ended
    for process in (lacking, ended):
        assert len(process.splitlines()) == 1


def test_the_command_gets_the_settings_that_every_site_takes(bench):
    options = ["--evaluate", "off", "--set", "LR=0.1", "--set", "REGION=eu"]
    finish(*start(bench, *options, rounds=1, options=["--allow-set", "REGION"]))
    script = bench.folder / "judge.py"
    script.write_text(
        "import os\n"
        "from flavor.cook.utils import SaveInfoJson\n"
        "metrics = {'m': float(os.environ['LR']), 'unseen': float('REGION' not in os.environ)}\n"
        "SaveInfoJson({'metadata': {'datasetSize': 1}, 'metrics': metrics})\n"
    )
    for metric, value in (("m:max", 0.1), ("unseen:max", 1)):
        done = bench.done("flavor", "contributions", bench.run, "-e", f"python {script}", "--metric", metric, "--json")
        assert json.loads(done.stdout)["rounds"][0]["value"] == value
        assert "the command of -e does not get REGION, which the run sets by --set" in done.stderr


def test_an_interrupted_command_leaves_no_evaluator_behind(bench):
    finish(*start(bench, "--evaluate", "off", rounds=1))
    command = evaluator("--hold")
    process = bench.start(
        "flavor", "contributions", bench.run, "-e", command, "--metric", "accuracy:max", env={"TEST_BUS": bench.url}
    )
    bench.held("operator")
    process.send(signal.SIGTERM)
    assert process.wait() == 143
    assert not [line for line in bench.survivors().values() if "toy_evaluator" in line]


def test_the_page_shows_the_newest_result_of_this_run_alone(bench):
    finish(*start(bench, "--evaluate", "off", rounds=1))
    with Board(bench.url, runs=[bench.run]) as board:
        assert board.contributions(bench.run) == {"result": None}
        bench.done("flavor", "contributions", bench.run)
        assert board.contributions(bench.run)["result"]["metric"] is None
        key = bench.runs.keys.contributions
        bench.redis.hset(key, "result", '{"sites": [7]}')
        with pytest.raises(DamagedRecord, match="result of flavor contributions"):
            board.contributions(bench.run)
        bench.redis.hset(key, "run_id", "0" * 32)
        assert board.contributions(bench.run) == {"result": None}
    assert not bench.runs.put_contributions("0" * 32, "{}")
    other = bench.redis.hget(bench.runs.keys.state, "run_id")
    bench.redis.hset(bench.runs.keys.state, "run_id", "0" * 32)
    store = f"file://{bench.store}"
    told = bench.done("flavor", "contributions", bench.run, "--store", store).stderr
    assert f"`flavor ui` does not show this result: Redis has no run '{bench.run}' with the id {other}" in told
