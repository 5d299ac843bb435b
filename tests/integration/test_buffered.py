"""Asynchronous rounds: real processes, held and released by the test, against a replay of the closed form."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from aggregators.staleness import parse_staleness
from flavor.checkpoints import TensorFile
from flavor.ledger.archive import Archive
from flavor.ledger.audit import audit
from flavor.ledger.manifest import Manifest
from flavor.records.evaluation import AUTOMATIC
from flavor.store.open import open_store

MODE = "async:buffer=2,staleness=polynomial:0.5,max_staleness=10"


def manifests(bench) -> list[Manifest]:
    archive = Archive(open_store(str(bench.store)), bench.run)
    return [archive.manifest(number) for number in range(1, bench.runs.read().round + 1)]


def weights(bench, manifest: Manifest) -> np.ndarray:
    file = TensorFile.open(open_store(str(bench.store)).local(manifest.global_model.path))
    return np.array(file.tensor("w"), np.float64)


def who(manifest: Manifest) -> dict[str, int]:
    """Each contributor of a round, and the round of its task."""
    return {each.client: manifest.task_round(each) for each in manifest.contributors}


def replayed(bench, rule: str, closed: list[Manifest]) -> list[np.ndarray]:
    """The global models in float64: each client adds its number to every weight of its base."""
    factor, models = parse_staleness(rule).factor, [np.zeros((3, 2))]
    for manifest in closed:
        total = sum(each.num_examples for each in manifest.contributors)
        step = sum(
            each.num_examples * factor(manifest.round - manifest.task_round(each)) * int(each.client[-1])
            for each in manifest.contributors
        )
        models.append(models[-1] + step / total)
    return models[1:]


def test_a_slow_site_counts_when_it_comes_and_the_rounds_do_not_wait(bench):
    coordinator = bench.serve("--mode", MODE, "--out", "out", rounds=6, clients=3)
    bench.aggregator()
    bench.edge("edge-1", bench.trainer("--hold", "--at", 5))
    bench.edge("edge-2", bench.trainer())
    bench.edge("edge-3", bench.trainer("--hold", "--at", 2))
    bench.held("edge-3")
    bench.held("edge-1")  # in round 5, which the two others have to close
    assert bench.runs.read_round(5).since == {"edge-3": 2}
    told = json.loads(bench.done("flavor", "status", bench.run, "--json", "--redis-url", bench.url).stdout)
    assert (told["closes_early"], told["needed"], told["expected"]) == (True, 2, 3)
    assert told["clients"]["edge-3"]["staleness"] == "trains from the model of round 1, 3 rounds ago"
    assert (told["clients"]["edge-1"]["staleness"], told["clients"]["edge-1"]["task_round"]) == ("", None)
    bench.release("edge-3")
    assert coordinator.wait() == 0
    closed = manifests(bench)
    assert [who(each) for each in closed] == [
        {"edge-1": 1, "edge-2": 1, "edge-3": 1},
        {"edge-1": 2, "edge-2": 2},
        {"edge-1": 3, "edge-2": 3},
        {"edge-1": 4, "edge-2": 4},
        {"edge-2": 5, "edge-3": 2},
        {"edge-2": 6, "edge-3": 6},
    ]
    for manifest, expected in zip(closed, replayed(bench, "polynomial:0.5", closed), strict=True):
        np.testing.assert_allclose(weights(bench, manifest), expected, rtol=1e-5)
    assert audit(Archive(open_store(str(bench.store)), bench.run)).problems == []
    shown_by_the_commands(bench)


def shown_by_the_commands(bench) -> None:
    """What the log, the results, verify, credits and recover know of the stale update."""
    accepted = bench.logged("update.accepted", client="edge-3", round=5)["reason"]
    assert accepted.endswith(" examples; task of round 2 (staleness 3): its change counts 0.5")
    assert "task" not in bench.logged("update.accepted", client="edge-2", round=5)["reason"]
    assert bench.logged("round.closed", round=5)["reason"].endswith(
        "; with the task of an earlier round: edge-3 (round 2)"
    )
    sites = json.loads((bench.work / "out/summary.json").read_text())["rounds"][4]["sites"]
    assert [(each["site"], each["task_round"], each["staleness"]) for each in sites] == [
        ("edge-2", 5, 0),
        ("edge-3", 2, 3),
    ]
    on_server = ("--redis-url", bench.url)
    table = bench.done("flavor", "verify", bench.run, "--store", bench.store).stdout
    assert "edge-3 (task of round 2)" in table
    credit = json.loads(bench.done("flavor", "credits", bench.run, "--json", *on_server).stdout)
    assert credit["credits"] == {"edge-1": 40, "edge-2": 120, "edge-3": 90}, "a stale update's examples count in full"
    assert [each.get("staleness") for each in credit["rounds"]] == [None, None, None, None, {"edge-3": 3}, None]
    by_round = bench.done("flavor", "credits", bench.run, "--by-round", *on_server).stdout
    assert "staleness" in by_round
    bench.redis.delete(*bench.redis.scan_iter(f"{bench.runs.keys.prefix}*"))
    recovered = bench.done("flavor", "recover", "--run", bench.run, "--untrusted", "--store", bench.store, *on_server)
    assert recovered.wait() == 0, recovered.stderr
    again = bench.done("flavor", "credits", bench.run, "--json", "--store", bench.store, *on_server).stdout
    assert json.loads(again) == credit, "the manifests have it all"


def test_with_all_sites_and_no_stale_update_it_is_the_synchronous_run_bit_for_bit(bench_at, server):
    models = []
    for mode in (["sync"], ["async:buffer=3"], ["sync:slow=async", "--quorum", 2]):
        bench = bench_at(server)
        coordinator = bench.serve("--mode", *mode, "--aggregator", "diloco", rounds=4, clients=3)
        bench.aggregator()
        for number in (1, 2, 3):
            bench.edge(f"edge-{number}", bench.trainer())
        assert coordinator.wait() == 0
        models.append([each.global_model.digest for each in manifests(bench)])
        assert all(not bench.runs.read_round(number).since for number in range(1, 5))
    assert models[0] == models[1] == models[2]


def test_a_site_that_is_killed_and_comes_back_does_its_task_again(bench):
    coordinator = bench.serve("--mode", MODE, "--heartbeat-timeout-s", 2, rounds=4, clients=3)
    bench.aggregator()
    bench.edge("edge-1", bench.trainer("--hold", "--at", 4))
    bench.edge("edge-2", bench.trainer())
    slow = bench.edge("edge-3", bench.trainer("--hold", "--at", 2))
    bench.held("edge-3")
    bench.held("edge-1")
    slow.send(signal.SIGKILL)
    slow.wait()
    bench.logged("client.lost", client="edge-3")
    bench.edge("edge-3", bench.trainer())
    assert coordinator.wait() == 0
    assert who(manifests(bench)[3]) == {"edge-2": 4, "edge-3": 2}, "the task that it had, again"


def test_a_task_that_is_too_old_counts_no_more_and_its_site_gets_the_newest_model(bench):
    coordinator = bench.serve("--mode", "async:buffer=2,max_staleness=1", rounds=8, clients=3)
    bench.aggregator()
    bench.edge("edge-1", bench.trainer("--hold", "--at", 8))
    bench.edge("edge-2", bench.trainer())
    slow = bench.edge("edge-3", bench.trainer("--hold", "--at", 2))
    bench.held("edge-3")
    bench.held("edge-1")
    opened = bench.logged("round.opened", round=4)["reason"]
    assert "past the maximum staleness of 1 round: edge-3 (since round 2, 2 rounds)" in opened
    why = "its last 3 tasks were given up, each past the maximum staleness of 1 round: nothing that it trains counts"
    assert bench.logged("client.too_slow", client="edge-3")["reason"].startswith(why)
    told = json.loads(bench.done("flavor", "status", bench.run, "--json", "--redis-url", bench.url).stdout)
    assert told["clients"]["edge-3"]["staleness"] == "its last 3 tasks were given up as too old"
    assert told["clients"]["edge-1"]["staleness"] == ""
    bench.release("edge-3")
    assert coordinator.wait() == 0
    last = manifests(bench)[7]
    assert who(last) == {"edge-2": 8, "edge-3": 8}
    slow.until("as an update counts at most 1 round after its task")


@pytest.mark.parametrize("compress", ["bf16", "int8"])
def test_a_compressed_stale_update_is_a_difference_to_its_own_base(bench, compress):
    coordinator = bench.serve("--mode", MODE, "--compress", compress, rounds=4, clients=3)
    bench.aggregator()
    bench.edge("edge-1", bench.trainer("--hold", "--at", 4))
    bench.edge("edge-2", bench.trainer())
    bench.edge("edge-3", bench.trainer("--hold", "--at", 2))
    bench.held("edge-3")
    bench.held("edge-1")
    bench.release("edge-3")
    assert coordinator.wait() == 0
    closed = manifests(bench)
    assert who(closed[3]) == {"edge-2": 4, "edge-3": 2}
    for manifest, expected in zip(closed, replayed(bench, "polynomial:0.5", closed), strict=True):
        np.testing.assert_allclose(weights(bench, manifest), expected, rtol=2e-2)
    assert audit(Archive(open_store(str(bench.store)), bench.run)).problems == []


def test_an_evaluation_asks_the_sites_that_do_not_train_on_and_the_last_one_all(bench):
    """The slow site keeps no other site from going on, and judges the last model once it has handed in."""
    command = f"{sys.executable} {Path(__file__).with_name('toy_evaluator.py')}"
    coordinator = bench.serve("--mode", MODE, "--evaluate", "every", rounds=3, clients=3)
    bench.aggregator()
    bench.edge("edge-1", bench.trainer(), "-e", command)
    bench.edge("edge-2", bench.trainer(), "-e", command)
    bench.edge("edge-3", bench.trainer("--hold", "--at", 2), "-e", command)
    bench.logged("evaluation.opened", round=3)
    bench.release("edge-3")
    assert coordinator.wait() == 0
    opened = [
        entry["reason"].partition("judged by ")[2] for entry in bench.log() if entry["event"] == "evaluation.opened"
    ]
    everyone = "edge-1, edge-2, edge-3"
    assert opened == [everyone, "edge-1, edge-2; not asked, because they train on: edge-3", everyone]
    judged = [bench.runs.read_evaluation(number, AUTOMATIC) for number in (1, 2, 3)]
    assert [sorted(each.accepted) for each in judged] == [
        everyone.split(", "),
        ["edge-1", "edge-2"],
        everyone.split(", "),
    ]
    shown_of_who_trains_on(bench)
    bench.redis.delete(*bench.redis.scan_iter(f"{bench.runs.keys.prefix}*"))
    again = ("--untrusted", "--store", bench.store, "--redis-url", bench.url)
    assert bench.done("flavor", "recover", "--run", bench.run, *again).wait() == 0
    shown_of_who_trains_on(bench)


def shown_of_who_trains_on(bench) -> None:
    """The site that was not asked stands among those without a result, and nowhere else."""
    shown = bench.done("flavor", "results", bench.run, "--round", 2, "--redis-url", bench.url, "--store", bench.store)
    assert "without edge-3: it was not asked, because it trains on" in shown.stdout
    last = bench.done("flavor", "results", bench.run, "--round", 3, "--redis-url", bench.url, "--store", bench.store)
    assert "without edge-3" not in last.stdout
    assert audit(Archive(open_store(str(bench.store)), bench.run)).problems == []


def test_a_run_that_was_stopped_goes_on_with_the_tasks_that_its_sites_had(bench):
    words = ("--mode", MODE, "--on-quorum-lost", "wait")
    bench.serve(*words, rounds=4, clients=3)
    bench.aggregator()
    bench.edge("edge-1", bench.trainer("--hold", "--at", 4))
    bench.edge("edge-2", bench.trainer())
    bench.edge("edge-3", bench.trainer("--hold", "--at", 2))
    bench.held("edge-3")
    bench.held("edge-1")
    bench.logged("update.accepted", client="edge-2", round=4)
    bench.done("flavor", "stop", bench.run)
    coordinator = bench.start("flavor", "resume", bench.run, "--store", bench.store)
    bench.edge("edge-3", bench.trainer())
    assert coordinator.wait() == 0
    assert who(manifests(bench)[3]) == {"edge-2": 4, "edge-3": 2}
    assert audit(Archive(open_store(str(bench.store)), bench.run)).problems == []


def test_a_finished_run_is_extended_and_its_slow_site_goes_on_with_its_task_from_a_signed_model(bench, tmp_path):
    """A site with `--trust` checks the model of its earlier task, which is not the newest one, against the records."""
    coordinator = bench.serve("--mode", MODE, rounds=3, clients=3)
    key, public = tmp_path / "aggregator.key", tmp_path / "aggregator.key.pub"
    bench.aggregator("--key", key)
    bench.eventually("the key is there", public.exists)
    trusted = ("--trust", public)
    sites = [
        bench.edge("edge-1", bench.trainer(), *trusted),
        bench.edge("edge-2", bench.trainer(), *trusted),
        bench.edge("edge-3", bench.trainer("--hold", "--at", 2), *trusted),
    ]
    bench.held("edge-3")
    assert coordinator.wait() == 0
    for site in sites:
        site.wait()
    more = bench.start("flavor", "extend", bench.run, "--rounds", 5)
    more.until("goes on after round 3")
    bench.edge("edge-1", bench.trainer("--rounds", "endless", "--hold", "--at", 4), *trusted)
    bench.edge("edge-2", bench.trainer("--rounds", "endless"), *trusted)
    bench.edge("edge-3", bench.trainer("--rounds", "endless"), *trusted)
    assert more.wait() == 0
    closed = manifests(bench)
    assert len(closed) == 5
    assert who(closed[3]) == {"edge-2": 4, "edge-3": 2}
    for manifest, expected in zip(closed, replayed(bench, "polynomial:0.5", closed), strict=True):
        np.testing.assert_allclose(weights(bench, manifest), expected, rtol=1e-5)
    assert audit(Archive(open_store(str(bench.store)), bench.run)).problems == []


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("async:buffer=3", "buffer 3 is more than min_clients 2"),
        ("async:buffer=1,staleness=linear", "unknown staleness rule 'linear'"),
    ],
)
def test_a_mode_that_cannot_be_is_refused_before_anything_begins(bench, mode, why):
    coordinator = bench.serve("--mode", mode)
    assert coordinator.wait() == 2
    assert why in coordinator.stderr
    assert len(coordinator.stderr.strip().splitlines()) <= 2
