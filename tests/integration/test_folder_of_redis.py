"""The result folder of a `flavor run --redis-url` stands for the run in every command, as that of any local run does.

No site reaches a run whose Redis server is in a result folder, once its `flavor run` has ended.
"""

from __future__ import annotations

import json

import pytest

from tests.integration.test_evaluation import evaluator

ALONE = {"FLAVOR_REDIS_URL": None}
"""Variables of a shell in which no server is named."""


def local(bench, out, env):
    words = ["-m", bench.trainer(), "--edges", 2, "--rounds", 2, "--run", bench.run, "--out", out]
    done = bench.done("flavor", "run", *words, "-e", evaluator(), "--select", "accuracy:max", env=env)
    assert done.wait() == 0, done.stderr
    return done


def test_every_command_takes_the_folder_of_a_run_on_a_redis_of_the_users(bench, tmp_path, subtests):
    out = tmp_path / "out"
    assert f"flavor get {out} --round best\n" in local(bench, out, {}).stderr
    for words, said in [
        (["get", out, "--round", "best", "-o", tmp_path / "best.pkl"], "best.pkl"),
        (["status", out], "finished"),
        (["log", out], "run.finished"),
        (["results", out, "--round", "best"], "accuracy"),
        (["credits", out], "edge-1"),
        (["export", out, "--to", "json", tmp_path / "run.json"], "run.json"),
        (["contributions", out], "edge-1"),
        (["verify", out], "2 evaluations"),
    ]:
        with subtests.test(words[0]):
            done = bench.done("flavor", *words, env=ALONE)
            assert done.wait() == 0, done.stderr
            assert said in done.stdout
    asked = bench.done("flavor", "evaluate", out, env=ALONE)
    assert f"run {bench.run!r} has no site with an evaluator now" in asked.stderr
    again = bench.done("flavor", "run", "--resume", out, "--rounds", 3, env=ALONE)
    assert again.wait() == 0, again.stderr


def test_the_folder_says_when_the_url_has_to_be_given(bench, tmp_path):
    out, url = tmp_path / "out", f"{bench.url}{'&' if '?' in bench.url else '?'}socket_timeout=20"
    done = local(bench, out, {"FLAVOR_REDIS_URL": url})
    assert f"flavor get {out} --redis-url URL --round best\n" in done.stderr
    assert json.loads((out / "federation.json").read_text())["redis_url"] == ""
    for words in (["get", out], ["run", "--resume", out, "--rounds", 3]):
        refused = bench.done("flavor", *words, env=ALONE)
        assert refused.wait() == 2
        assert "out: the run is on a Redis of yours: name it by --redis-url" in refused.stderr
    assert bench.done("flavor", "status", out, "--redis-url", bench.url, env=ALONE).wait() == 0


@pytest.mark.parametrize("words", [["evaluate"], ["contributions", "--by-sites"]], ids=" ".join)
def test_no_site_is_asked_of_a_run_that_no_site_reaches(bench, tmp_path, words):
    out = tmp_path / "out"
    local(bench, out, ALONE)
    if words == ["evaluate"]:
        outside = bench.done("flavor", "evaluate", out, "--model", __file__, env=ALONE)
        assert outside.wait() == 1
        assert f"`check-fv -m CMD --model {__file__}` judges it on this machine; " in outside.stderr
    refused = bench.done("flavor", words[0], out, *words[1:], env=ALONE)
    assert refused.wait() == 1
    assert refused.stderr.endswith("sites can judge models of a `flavor run --redis-url` at any time (flavor-fv)\n")
    assert "ended with its `flavor run`, and no other site reaches a result folder" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
