"""`flavor evaluate`: sites judge a model because somebody asks for it."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from flavor.coordinator.asked_evaluation import OWN_OF_NOW
from flavor.policy.exposure import NOT_ALLOWED
from flavor.protocol import SPEAKS
from flavor.records.states import EvaluationState
from flavor.records.subject import Subject, SubjectKind
from tests.integration.test_evaluation import STEP, accuracies, evaluator, finish, start, summaries
from tests.integration.test_judging_site import judge


@pytest.fixture
def idle(bench):
    """A run after its first round, which waits for c3: its script has ended. c1 and c2 wait as well, and can judge.

    Its flags of evaluators are those of `bench.flags`.
    """
    serve = ["--evaluate", "off", "--on-quorum-lost", "wait"]
    flags = getattr(bench, "flags", ())
    started = start(
        bench, *serve, flags=flags, trainer=["--rounds", "c3:1"], without=["c3"], clients=("c1", "c2", "c3")
    )
    bench.logged("client.left", client="c3")
    bench.logged("round.closed", round=1)
    yield started
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    for edge in started[1].values():
        edge.wait()


@pytest.fixture
def held(bench):
    """As `idle`, where c2's evaluator stands still."""
    bench.flags = ("--hold", "--only", "c2")


def evaluate(bench, *words: object):
    return bench.start("flavor", "evaluate", bench.run, "--store", bench.store, *words)


def asked(bench, *words: object) -> dict:
    done = evaluate(bench, *words, "--json")
    assert done.wait() == 0, done.stderr
    return json.loads(done.stdout)


def test_a_model_of_any_round_is_judged_while_the_run_goes_on(bench):
    """Each site judges between its rounds; the run's own evaluation of the last model stands beside it."""
    trainer = ["--hold", "--at", 4, "--only", "c2", "--own", 5]
    coordinator, edges = start(bench, "--local", "b", rounds=4, trainer=trainer)
    bench.held("c2")
    bench.logged("round.opened", round=4)
    first = evaluate(bench, "--round", 1, "--json")
    first.until("c1, c2 judge the model of round 1")
    assert bench.logged("evaluation.opened", round=1, evaluation=1)["reason"].endswith(OWN_OF_NOW)
    bench.release("c2")
    assert first.wait() == 0, first.stderr
    found = json.loads(first.stdout)
    assert (found["round"], found["evaluation"]) == (1, 1)
    assert {site: each["examples"] for site, each in found["sites"].items()} == {"c1": 100, "c2": 200}
    expected = accuracies(1, 2, rounds=1)
    assert found["metrics"]["accuracy"]["plain_mean"] == pytest.approx(expected["accuracy"])
    assert found["metrics"]["accuracy"]["weighted_mean"] == pytest.approx(expected["accuracy (weighted)"])
    assert found["metrics"]["accuracy"]["worst"] == "c1"
    finish(coordinator, edges)
    asked_for = "with the tensors that this site does not share as they are now"
    assert all(edge.stderr.count(asked_for) == 1 for edge in edges.values())
    for words, is_told in ((["--round", 1], True), ([], False)):
        shown = bench.done("flavor", "results", bench.run, "--store", bench.store, *words)
        assert shown.wait() == 0, shown.stderr
        assert ("with its own ones of that time, which may be those of a later round" in shown.stderr) is is_told
    assert [(each.round, each.number) for each in summaries(bench)] in ([(1, 1), (4, 0)], [(4, 0), (1, 1)])
    shown = bench.done("flavor", "results", bench.run, "--round", 1)
    assert "the global model of round 1, judged by 2 sites" in shown.stdout, shown.stderr
    assert "with its own ones of that time" in shown.stderr
    verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert verified.wait() == 0, verified.stdout + verified.stderr


def other_model(path: Path) -> Path:
    """Write a model that no round has made: each of its weights is 50."""
    state = {"w": np.full((6, 1), 50, np.float32), "b": np.zeros(4, np.float32)}
    with path.open("wb") as file:
        pickle.dump({"state_dict": state}, file)
    return path


def values(found: dict) -> dict[str, float]:
    """The accuracy that each site has measured."""
    return {site: each["metrics"]["accuracy"] for site, each in found["sites"].items()}


def test_after_the_end_the_sites_judge_that_stayed_and_those_that_come(bench, tmp_path):
    """By the lowest accuracy the first round is the best, so that no two of these models are the same."""
    coordinator = bench.serve("--select", "accuracy:min", rounds=3, clients=2)
    bench.aggregator()
    stays = judge(bench, "v3")
    bench.logged("client.joined", client="v3")
    edges = {client: bench.edge(client, bench.trainer()) for client in ("c1", "c2")}
    finish(coordinator, edges)
    stays.until("this site stays")
    assert values(asked(bench)) == pytest.approx({"v3": 3 * STEP / 100 + 0.003})
    comes = judge(bench, "v4")
    comes.until("this site stays")
    both = {"v3": 0.003, "v4": 0.004}
    best = asked(bench, "--round", "best")
    assert best["round"] == 1
    assert best["model"] == bench.runs.read_round(1).model.digest
    assert values(best) == pytest.approx({site: STEP / 100 + own for site, own in both.items()})
    assert best["metrics"]["accuracy"]["weighted_mean"] == pytest.approx(STEP / 100 + (3 * 0.003 + 4 * 0.004) / 7)
    found = asked(bench, "--model", other_model(tmp_path / "other.pkl"))
    assert values(found) == pytest.approx({site: 0.5 + own for site, own in both.items()})
    stays.send(signal.SIGTERM)
    assert stays.wait() == 143
    assert values(asked(bench, "--round", 2)) == pytest.approx({"v4": 2 * STEP / 100 + 0.004})
    assert [(each.round, each.number) for each in summaries(bench)][3:] == [(3, 1), (1, 1), (0, 1), (2, 1)]
    best_now = bench.runs.read_own().best
    assert best_now is not None
    assert best_now.round == 1, "what somebody asks for decides nothing"
    verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert verified.wait() == 0, verified.stdout + verified.stderr


def test_after_the_end_no_model_is_judged_without_a_site_that_stays(bench):
    finish(*start(bench, "--evaluate", "off", rounds=1))
    done = evaluate(bench)
    assert done.wait() == 1
    assert "has no site with an evaluator now" in done.stderr
    assert bench.runs.evaluating() == []
    keys, redis = bench.runs.keys.client("v9"), bench.runs.redis
    bench.runs.pin_key("v9", f"ed25519:{'1' * 64}")
    redis.hset(keys.hash, mapping={"state": "ready", **SPEAKS, "round": "0", "public_key": f"ed25519:{'2' * 64}"})
    redis.set(keys.lease, "x", px=60_000)
    done = evaluate(bench)
    assert done.wait() == 1
    assert "has no site with an evaluator now; v9 is not admitted: its key is" in done.stderr


def test_a_model_unlike_the_runs_is_told_of_before_sites_are_asked(bench, idle, tmp_path):
    model = tmp_path / "odd.pkl"
    model.write_bytes(pickle.dumps({"state_dict": {"v": np.zeros(2, np.float32)}}))
    done = evaluate(bench, "--model", model)
    assert done.wait() == 1
    first, *_, last = done.stderr.splitlines()
    lacks = "".join(f"tensor {name!r} is missing; the run's model has it; " for name in "wb")
    differs = f"{lacks}tensor 'v' is not in the run's model"
    assert first == f"Warning: --model {model} is not like the run's model: {differs}"
    why = 'no result counts: c1: "its evaluator ended (exit code 1)"; c2: "its evaluator ended (exit code 1)"'
    judged = bench.logged("evaluation.opened", saying="SHA-256")["reason"]
    (digest,) = re.findall(r"SHA-256 ([0-9a-f]{12})…", judged)
    assert last == f"Error: the evaluation of a model from outside (SHA-256 {digest}…) has no result: {why}"
    _, edges = idle
    edges["c1"].until("a model that no round has made could not be judged: the evaluator ended (exit code 1)")


def test_a_model_that_never_came_from_the_run_is_judged_by_named_sites(bench, idle, tmp_path):
    model = other_model(tmp_path / "other.pkl")
    (empty := tmp_path / "not-mounted").mkdir()
    nowhere = bench.start("flavor", "evaluate", bench.run, "--store", empty, "--model", model)
    assert nowhere.wait() != 0
    assert nowhere.stderr.splitlines()[-1].endswith("run.json is not there: is the share mounted?"), nowhere.stderr
    assert not [*empty.iterdir()]
    found = asked(bench, "--model", model, "--clients", "c1")
    assert (found["round"], list(found["sites"])) == (0, ["c1"])
    assert found["metrics"]["accuracy"]["plain_mean"] == pytest.approx(0.5 + 0.001)
    assert bench.runs.read().global_model.model.digest != found["model"]
    again = evaluate(bench, "--model", model, "--clients", "c1")
    assert again.wait() == 0, again.stderr
    assert "a model from outside, judged by 1 site" in again.stdout
    what = f"a model from outside (SHA-256 {found['model'][:12]}…)"
    assert f"c1 judges {what}, because `flavor evaluate` asks for it" in again.stderr
    assert bench.logged("evaluation.closed", saying="from outside")["reason"].startswith(f"{what}: 1 result, ")
    from_store = json.loads(bench.done("flavor", "results", bench.run, "--json", "--store", bench.store).stdout)
    assert from_store["subject"] == found["subject"] == {"kind": "outside", "round": 0, "site": ""}
    assert again.stdout.splitlines()[-1] == f"`flavor results {bench.run} --evaluation 2` shows it again"
    apart = {"best_round": None, "signed_by": None, "reports": None, "not_judged": []}
    first = bench.done("flavor", "results", bench.run, "--evaluation", 1, "--json")
    assert json.loads(first.stdout) == {**found, **apart}
    recorded = bench.done("flavor", "results", bench.run, "--evaluation", 1, "--json", "--store", bench.store)
    assert json.loads(recorded.stdout)["opened_ms"] == found["opened_ms"] < from_store["opened_ms"]
    for place in ([], ["--store", bench.store]):
        none = bench.done("flavor", "results", bench.run, "--evaluation", 3, *place)
        assert none.wait() == 1
        said = f"run '{bench.run}' has no evaluation 3 of a model that no round has made: there are 1, 2"
        assert said in none.stderr
    verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert verified.wait() == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--clients", "c1,c9"], 2, "--clients: c9 cannot judge a model now; those that can: c1, c2"),
        (["--round", 7], 1, "has no model of round 7: rounds 1 to 1 are closed"),
        (["--round", "best"], 1, "has no best round: it was begun without --select"),
        (["--round", 1, "--model", __file__], 2, "--model and --round exclude each other"),
        (["--model", __file__], 2, "--model"),
    ],
)
def test_what_cannot_be_judged(bench, idle, words, code, said):
    done = evaluate(bench, *words)
    assert (done.wait(), said in done.stderr) == (code, True), done.stderr
    assert bench.runs.evaluating() == []


def test_a_run_without_evaluators(bench):
    coordinator, edges = start(bench, rounds=1, without=["c1", "c2"], trainer=["--hold", "--at", 1, "--only", "c2"])
    bench.held("c2")
    nothing = evaluate(bench)
    assert (nothing.wait(), "has no model of round 1: no round is closed yet" in nothing.stderr) == (1, True)
    bench.release("c2")
    finish(coordinator, edges)


def test_one_who_asks_is_alone_and_gives_up_when_interrupted(bench, held, idle):
    first = evaluate(bench, "--round", 1)
    bench.held("c2")
    second = evaluate(bench)
    assert second.wait() == 1
    assert second.stderr.rstrip().endswith(": wait for its end, or stop that one")
    assert "an evaluation that was asked for of run" in second.stderr
    assert "is already running as process" in second.stderr
    first.send(signal.SIGINT)
    assert first.wait() == 130
    assert bench.runs.evaluating() == []
    assert bench.runs.read_evaluation(1, 1).state is EvaluationState.FAILED
    bench.eventually(
        "the evaluator is stopped",
        lambda: (
            not [
                command
                for command in bench.survivors().values()
                if "toy_evaluator.py --hold" in command and "flavor_fl" not in command
            ]
        ),
    )


def test_what_a_killed_one_has_asked_for_is_given_up_by_the_next(bench, held, idle):
    first = evaluate(bench, "--round", 1)
    bench.held("c2")
    first.send(signal.SIGKILL)
    first.wait()
    bench.redis.delete(bench.runs.keys.evaluator)  # as if its lease had run out
    second = evaluate(bench, "--round", 1, "--clients", "c1", "--json")
    assert second.wait() == 0, second.stderr
    assert bench.runs.read_evaluation(1, 1).state is EvaluationState.FAILED
    assert json.loads(second.stdout)["evaluation"] == 2


@pytest.fixture
def over(bench):
    """A run that has ended, and the site v3, whose evaluator stands still."""
    coordinator = bench.serve("--evaluate", "off", rounds=1, clients=1)
    bench.aggregator()
    finish(coordinator, {"c1": bench.edge("c1", bench.trainer())})
    site = judge(bench, "v3", flags=["--hold"])
    site.until("this site stays")
    return site


def test_a_site_stops_at_the_deadline_where_no_process_is_left_that_ends_the_evaluation(bench, over):
    first = evaluate(bench, "--timeout-s", 3)
    bench.held("v3")
    first.send(signal.SIGKILL)
    first.wait()
    over.until("the time of the evaluation has passed: its evaluator is stopped")
    running = [command for command in bench.survivors().values() if "toy_evaluator.py --hold" in command]
    assert not [command for command in running if "flavor_fv" not in command]
    bench.redis.delete(bench.runs.keys.evaluator)  # as if its lease had run out
    status = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    assert status["evaluating"] == []
    assert status["clients"]["v3"]["phase"] != "judging"


def test_one_who_asks_says_what_redis_has_lost(bench, over):
    """The evaluation alone, as a server has that came back with older data; and then the run."""
    asking, keys = evaluate(bench), bench.runs.keys
    bench.held("v3")
    bench.redis.delete(keys.evaluator, keys.evaluation(1, 1), keys.asked, keys.evaluating)
    assert asking.wait() == 1
    assert (
        "no longer has the evaluation of the model of round 1: the server came back with older data. Ask again\n"
        in (asking.stderr)
    )
    asking = evaluate(bench)
    asking.until("v3 judges the model of round 1")
    assert bench.done("flavor", "rm", bench.run).wait() == 0
    assert asking.wait() == 1
    assert f"run {bench.run!r} is no longer on Redis" in asking.stderr
    assert "it was removed (`flavor rm`)" in asking.stderr


def test_a_site_with_trust_judges_no_model_that_no_aggregator_has_signed(bench, tmp_path):
    key = tmp_path / "aggregator.key"
    coordinator = bench.serve(
        *("--heartbeat-timeout-s", 1, "--evaluate", "off", "--on-quorum-lost", "wait"), rounds=2, clients=3
    )
    bench.aggregator("--key", key)
    bench.eventually("the key is there", lambda: key.with_suffix(".key.pub").exists())
    trainer = bench.trainer("--rounds", "c3:1")
    edges = [
        bench.edge("c1", trainer, "-e", evaluator(), "--trust", f"{key}.pub"),
        bench.edge("c2", trainer, "-e", evaluator()),
        bench.edge("c3", trainer),
    ]
    bench.logged("client.left", client="c3")
    bench.logged("round.closed", round=1)
    assert list(asked(bench, "--round", 1)["sites"]) == ["c1", "c2"]
    model = tmp_path / "other.pkl"
    with model.open("wb") as file:
        pickle.dump({"state_dict": {"w": np.ones((6, 1), np.float32)}}, file)
    asking = evaluate(bench, "--model", model, "--json")
    assert asking.wait() == 0, asking.stderr
    found = json.loads(asking.stdout)
    assert list(found["sites"]) == ["c2"]
    assert "does not allow" in found["missing"]["c1"]
    trusted = f"--trust sha256:{found['model']}"
    assert trusted in asking.stderr, "for the sites that trust it"
    said = "is asked to judge a model that no round of the run has made"
    bench.eventually("the site says so", lambda: said in edges[0].stderr and trusted in edges[0].stderr)
    edges.append(judge(bench, "v1", "--trust", f"{key}.pub", *trusted.split(), "--until-end"))
    edges.append(judge(bench, "v2", "--no-outside-models", "--until-end"))
    for name in ("v1", "v2"):
        bench.logged("client.joined", client=name)
    found = asked(bench, "--model", model)
    assert list(found["sites"]) == ["c2", "v1"], "the same model has the same digest"
    why = "it judges only models that a round of the run has made (--no-outside-models)"
    assert found["missing"]["v2"].strip('"') == f"it does not take part as this run asks: {why}"
    bench.eventually("its user is told", lambda: "which it declines: start without --no-outs" in edges[-1].stderr)
    warned = (
        f"judges it (SHA-256 {found['model'][:12]}…), because the operator asks for it; such a model can be made so"
    )
    bench.eventually("its user is told", lambda: warned in edges[-2].stderr)
    assert list(asked(bench, "--round", 1, "--clients", "v2")["sites"]) == ["v2"]
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    assert coordinator.wait() == 8
    for edge in edges:
        edge.wait()


@pytest.fixture
def crossing(bench):
    """Begin a run of five sites that waits after round 1: c1 and c2 allow `--cross`. Give the edges by name."""

    @contextlib.contextmanager
    def begin(*serve, flags=()):
        options = ("--heartbeat-timeout-s", 1, "--evaluate", "off", "--on-quorum-lost", "wait", *serve)
        coordinator = bench.serve(*options, rounds=2, clients=5)
        bench.aggregator()
        trainer = bench.trainer("--rounds", "c4:1")
        allow = ("-e", evaluator(), "--allow-cross")
        edges = {
            "c1": bench.edge("c1", trainer, "-e", evaluator(*flags), "--allow-cross", env={"TEST_BUS": bench.url}),
            "c2": bench.edge("c2", trainer, *allow),
            "c3": bench.edge("c3", trainer, "-e", evaluator()),
            "c4": bench.edge("c4", trainer),
            "c5": bench.edge("c5", trainer),
        }
        bench.logged("client.left", client="c4")
        bench.logged("round.closed", round=1)
        yield edges
        assert bench.done("flavor", "stop", bench.run).wait() == 0
        assert coordinator.wait() == 8
        for edge in edges.values():
            edge.wait()

    return begin


def test_sites_that_allow_it_judge_each_others_models(bench, crossing):
    """After round 1 the models are 1, 2 and 3 in each weight; the accuracy is that by 100, plus i / 1000 at site i."""
    with crossing():
        found = asked(bench, "--cross")
        assert list(found["models"]) == ["c1", "c2"]
        assert sorted(found["missing"]) == ["c3", "c4", "c5"]
        models = {**found["models"], "": found["global"]}
        for owner, value in (("c1", 1), ("c2", 2), ("", (1 + 4 + 9 + 16 + 25) / 15)):
            judged = models[owner]["sites"]
            assert sorted(judged) == ["c1", "c2"], owner
            for i in (1, 2):
                assert judged[f"c{i}"]["metrics"]["accuracy"] == pytest.approx(value / 100 + i / 1000)
        assert bench.runs.read_evaluation(0, 1).subject == Subject(SubjectKind.UPDATE, 1, "c1")
        named = bench.redis.hgetall(bench.runs.keys.client("c2").evaluation_task(0, 1))
        assert "c1" not in "".join(named.values()), "no task names the owner of its model"
        shown = evaluate(bench, "--cross", "--metric", "accuracy")
        assert shown.wait() == 0, shown.stderr
        assert shown.stdout.splitlines()[1].split() == ["JUDGE", "global", "model", "c1", "c2"]
        assert "without the model of c3: other sites judge a site's update only if it allows them to" in shown.stdout
        newest = json.loads(bench.done("flavor", "results", bench.run, "--json").stdout)
        assert newest["round"] == 1, "no site's update is the newest model that was judged"
        of_c2 = {"kind": "update", "round": 1, "site": "c2"}
        assert found["models"]["c2"]["subject"] == of_c2
        assert found["global"]["subject"] == {"kind": "global", "round": 1, "site": ""}
        closed = [entry["reason"] for entry in bench.log() if entry["event"] == "evaluation.closed"]
        assert [reason.partition(": 2 results")[0] for reason in closed[1:3]] == [
            "the update of c1 in round 1",
            "the update of c2 in round 1",
        ]
        (record,) = bench.store.rglob("0000-2-manifest-*.json")
        assert json.loads(record.read_text())["subject"] == of_c2
        from_store = json.loads(bench.done("flavor", "results", bench.run, "--json", "--store", bench.store).stdout)
        assert (from_store["round"], from_store["subject"]["kind"]) == (1, "global")
        verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
        assert verified.wait() == 0, verified.stdout + verified.stderr
    subjects = {each: bench.runs.read_evaluation(0, each).subject for each in (1, 2, 3, 4)}
    bench.redis.flushall()
    done = bench.done("flavor", "recover", "--run", bench.run, "--store", bench.store, "--untrusted")
    assert done.wait() == 0, done.stderr
    assert {each: bench.runs.read_evaluation(0, each).subject for each in (1, 2, 3, 4)} == subjects
    again = json.loads(bench.done("flavor", "results", bench.run, "--json").stdout)
    apart = {"closed_ms": 0, "skipped": []}  # a record says when it was about to be closed
    assert {**again, **apart} == {**newest, **apart}
    status = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    assert status["evaluation"]["round"] == 1


def test_sites_that_change_their_mind_while_a_call_runs_or_between_two(bench, crossing):
    """c2 takes its word back while c1 judges the global model.

    The next call gives the updates of c1 and c2 to others. With that of c3, those of c4 and c5 would follow. All are
    differences to the weights that the run began from.
    """
    beginning = bench.work / "beginning.pkl"
    tensors = {"w": np.ones((3, 2), np.float32), "b": np.zeros(4, np.float32)}
    beginning.write_bytes(pickle.dumps({"state_dict": tensors}))

    def allows(name: str, is_so: bool) -> bool:
        status, left_ms = bench.runs.clients([name])[name]
        return left_ms > 0 and status.allows_cross == is_so

    def changed(name: str, *words: str) -> None:
        edges[name].send(signal.SIGTERM)
        edges[name].wait()
        edges[name] = bench.edge(name, bench.trainer(), "-e", evaluator(), *words)
        bench.eventually(f"{name} has changed its mind", partial(allows, name, bool(words)))

    with crossing("--compress", "int8", "--init-model", beginning, flags=["--hold", "--in-round", 1]) as edges:
        first = bench.start("flavor", "evaluate", bench.run, "--store", bench.store, "--cross", "--json")
        bench.held("c1")
        bench.eventually("c2 has judged", lambda: "c2" in bench.runs.results(1, 1, ["c2"]))
        changed("c2")
        bench.release("c1")
        assert first.wait() == 0, first.stderr
        found = json.loads(first.stdout)
        assert (found["models"], found["missing"]["c2"]) == ({}, NOT_ALLOWED)
        assert found["missing"]["c1"] == "no other site is there now that allows it and has an evaluator"
        assert bench.runs.read_evaluation(0, 1) is None, "c2 has taken its word back: no other site gets its update"
        changed("c2", "--allow-cross")
        again = bench.start("flavor", "evaluate", bench.run, "--store", bench.store, "--cross", "--json")
        bench.held("c1")
        bench.release("c1")
        assert again.wait() == 0, again.stderr
        assert list(json.loads(again.stdout)["models"]) == ["c1", "c2"]
        changed("c1")
        changed("c3", "--allow-cross")
        refused = evaluate(bench, "--cross", "--round", 1)
        assert refused.wait() == 1
        assert "c4, c5 run without --allow-cross" in refused.stderr
        assert "that of c1 was given to other sites before" in refused.stderr
        assert bench.runs.read_evaluation(0, 3) is None


def test_a_rule_that_is_no_mean_needs_the_word_of_all_sites(bench, crossing):
    with crossing("--aggregator", "median"):
        refused = evaluate(bench, "--cross")
        assert refused.wait() == 1
        said = "c3, c4, c5 run without --allow-cross, and median may show parts of a single update"
        assert f"--cross: round 1: {said}" in refused.stderr
        assert bench.runs.read_evaluation(1, 1) is None
