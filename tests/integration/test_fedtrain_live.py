"""Live nodes: real edges with a trainer of their own, coordinated and averaged by aumai_fedtrain."""

from __future__ import annotations

import json
import pickle
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import on_path
from warm import COLD

from aumai_fedtrain import BusUpdateProvider, DiLoCoCoordinator, FederatedNode, GlobalState, TrainingConfig
from aumai_fedtrain.outer import OuterOptimizer
from flavor.checkpoints import Format, read
from flavor.credits import CreditBook, contributions
from flavor.errors import InvalidSetting, LeaseHeld, MisuseError, RunExists, RunStopped, StateLost
from flavor.ledger.archive import Archive
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import Contributor, Manifest, Model
from flavor.records.states import RoundState, RunState
from flavor.store.open import open_store
from flavor.view.history import History, Source
from tests.conftest import Bench, Process

TRAINER = Path(__file__).with_name("fedtrain_trainer.py")
COMMAND = shlex.join([sys.executable, str(TRAINER)])
RATE, STEPS = 0.05, 4
STOPPED = RunStopped.exit_code
NESTEROV = "nesterov:lr=0.7,momentum=0.9"


def configuration(rounds: int, nodes: int = 2, name: str = "live") -> TrainingConfig:
    return TrainingConfig(
        model_name=name, learning_rate=RATE, batch_size=8, local_steps=STEPS, global_rounds=rounds, num_nodes=nodes
    )


def local(start: np.ndarray, target: float) -> np.ndarray:
    """What the trainer makes of a global model."""
    w = start.astype(np.float32)
    for _ in range(STEPS):
        w = w - np.float32(RATE) * np.float32(2) * (w - np.float32(target))
    return w


def expected(rounds: int, optimizer: str | None) -> list[np.ndarray]:
    """The global weights after each round, bit for bit.

    Averages of weights are taken in the trainers' float32; the first one starts the run, then the outer step follows in
    float64, on differences to the float32 checkpoint that the nodes were sent.
    """

    def mean(start: list[np.ndarray]) -> np.ndarray:
        a, b = (local(w, target) for w, target in zip(start, (1, 2), strict=True))
        return (a + b) * np.float32(0.5)

    theta = mean([np.full((2, 3), target + 4) for target in (1, 2)]).astype(np.float64)
    found, state = [theta], None
    for _ in range(1, rounds):
        sent = theta.astype(np.float32)
        if optimizer is None:
            theta = mean([sent, sent]).astype(np.float64)
        else:
            a, b = (sent.astype(np.float64) - local(sent, target) for target in (1, 2))
            stepped, state = OuterOptimizer(optimizer).apply(
                {"w": theta}, {"w": (a + b) * 0.5}, state, pseudogradients=True
            )
            theta = np.asarray(stepped["w"])
        found.append(theta)
    return found


def edges(bench: Bench, *names: str, takes: str = "") -> list[Process]:
    """Sites, whose users agree to the run's setting `takes`."""
    return [bench.edge(name, COMMAND, *(["--allow-set", takes] if takes else [])) for name in names]


def command(bench: Bench, rounds: int, *options: object, nodes: int = 2) -> Process:
    config = bench.work / f"train-{rounds}.json"
    config.write_text(configuration(rounds, nodes).model_dump_json())
    words = ["--config", config, "--redis-url", bench.url, "--run", bench.run, "--store", bench.store]
    return bench.start("aumai-fedtrain", "run", *words, *options)


def test_the_commands_url_is_not_in_the_process_list(bench: Bench) -> None:
    bench.redis.acl_setuser("admin", enabled=True, passwords=["+s3cr3t"], keys="*", channels="*", commands=["+@all"])
    url = bench.url.replace("unix://", "unix://admin:s3cr3t@")
    config = bench.work / "train.json"
    config.write_text(configuration(1, 1).model_dump_json())
    words = ["--config", config, "--redis-url", url, "--run", bench.run, "--store", bench.store]
    run = bench.start("aumai-fedtrain", "run", *words, env={COLD: "1"})
    bench.eventually("the run is there, so it is live", bench.runs.find)
    shown = [words for words in bench.survivors().values() if "fedtrain" in words]
    assert shown
    assert not any("s3cr3t" in words for words in shown)
    (site,) = edges(bench, "site-1")
    assert [run.wait(), site.wait()] == [0, 0]
    bench.redis.acl_deluser("admin")


def global_models(bench: Bench, rounds: int) -> list[dict[str, np.ndarray]]:
    """By the manifests: Redis has those of the newest rounds alone."""
    store = open_store(str(bench.store))
    found = []
    for number in range(1, rounds + 1):
        data = Archive(store, bench.run).data(number)
        assert data is not None, f"round {number} has no manifest"
        path = Manifest.parse(data, "").global_model.path
        found.append(dict(read(store.local(path), Format.SAFETENSORS).tensors))
    return found


@pytest.mark.parametrize("optimizer", [None, NESTEROV])
def test_edges_join_the_command_unchanged_and_train_by_its_rule(bench: Bench, optimizer: str | None) -> None:
    rounds = 6
    options = ["--outer-optimizer", optimizer] if optimizer else []
    run = command(bench, rounds, *options, "--set", "EXTRA=more", "--json")
    sites = edges(bench, "site-1", "site-2", takes="EXTRA")
    assert [process.wait() for process in (run, *sites)] == [0, 0, 0]
    for tensors, w in zip(global_models(bench, rounds), expected(rounds, optimizer), strict=True):
        # np.mean and the engine's mean may round the last bit of a float64 apart, and so that of a float32.
        np.testing.assert_array_max_ulp(tensors["layer/w"], w.astype(np.float32), maxulp=1)
        assert tensors["layer/w"].dtype == np.float32
        assert tensors["layer/h"].dtype == np.float16
    # a mask of -inf stays as it is
    assert all(tensors["mask"].tolist() == [[0, -np.inf], [0, 0]] for tensors in global_models(bench, rounds))
    # a step counter takes no part in outer steps: every node adds its steps to what it was given
    assert [int(tensors["steps"]) for tensors in global_models(bench, rounds)] == [STEPS * (i + 1) for i in range(6)]

    result = json.loads(run.stdout)
    assert (result["rounds_completed"], result["run"], result["total_samples"]) == (rounds, bench.run, rounds * 30)
    assert result["credits"] == {"site-1": 10 * rounds, "site-2": 20 * rounds}
    last = expected(rounds, optimizer)[-2].astype(np.float32)
    losses = [np.mean((local(last, target) - np.float32(target)) ** 2) for target in (1, 2)]
    assert result["final_loss"] == pytest.approx(np.mean(losses), rel=1e-4)

    for number in (1, 2):  # a late client gets the final model, in the trainer's own nesting
        place = bench.folder / f"site-{number}"
        seen = json.loads((place / "output" / "seen.json").read_text())
        want = {"LEARNING_RATE": "0.05", "BATCH_SIZE": "8", "LOCAL_STEPS": "4", "EXTRA": "more"}
        assert seen == {**want, "TOTAL_ROUNDS": f"{rounds}"}
        (final,) = (place / "global").glob("model*")
        state = pickle.loads(final.read_bytes())["state_dict"]
        np.testing.assert_array_equal(state["layer"]["w"], global_models(bench, rounds)[-1]["layer/w"])
    assert "the run sets for its trainer: BATCH_SIZE=8 EXTRA=more LEARNING_RATE=0.05 LOCAL_STEPS=4" in sites[0].stderr

    status = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    assert (status["state"], status["round"], status["round_state"]) == ("finished", rounds, "closed")
    events = [entry["event"] for entry in bench.log()]
    assert events.count("round.closed") == rounds
    assert events[-1] == "run.finished"
    assert bench.survivors() == {}


def test_credits_are_the_same_numbers_everywhere(bench: Bench) -> None:
    run = command(bench, 3)
    sites = edges(bench, "site-1", "site-2")
    assert [process.wait() for process in (run, *sites)] == [0, 0, 0]
    rows = History(bench.runs, open_store(str(bench.store))).strip()
    assert [(row.source, row.contributors, row.examples, row.attempts) for row in rows] == [
        (Source.SUMMARY, 2, 30, 1)
    ] * 3
    for row in rows:
        measured = bench.runs.measured(row.round)
        losses = [measured[site].metrics["loss"] for site in ("site-1", "site-2")]
        assert row.spread == {"loss": (min(losses), max(losses))}
        assert row.metrics["loss"] == pytest.approx(np.mean(losses))
    shown = json.loads(bench.done("flavor", "credits", bench.run, "--json").stdout)
    assert shown["credits"] == {"site-1": 30, "site-2": 60}
    assert shown["rounds"] == [{"round": i, "samples": {"site-1": 10, "site-2": 20}} for i in (1, 2, 3)]
    assert "  site-1: 30 samples\n  site-2: 60 samples" in run.stdout
    session = json.loads(bench.done("aumai-fedtrain", "status", "live", "--json").stdout)["session"]
    assert session["credits"] == shown["credits"]
    assert (session["run"], session["status"]) == (bench.run, "finished")
    table = bench.done("flavor", "credits", bench.run).stdout.split()
    assert table == [
        "client",
        "rounds",
        "examples",
        "share",
        "site-1",
        "3",
        "30",
        "33.3%",
        "site-2",
        "3",
        "60",
        "66.7%",
    ]
    rows = bench.done("flavor", "credits", bench.run, "--by-round").stdout.splitlines()
    assert [row.split() for row in rows][:3] == [
        ["client", "round", "examples"],
        ["site-1", "1", "10"],
        ["site-2", "1", "20"],
    ]
    assert len(rows) == 7

    bench.redis.delete(bench.runs.keys.verdicts(2))  # what Redis has lost stands in the store
    assert json.loads(bench.done("flavor", "credits", bench.run, "--json").stdout) == shown
    again = bench.done("flavor", "credits", bench.run, "--store", bench.store, "--json")
    assert json.loads(again.stdout) == shown
    assert CreditBook.of(contributions(bench.runs, open_store(str(bench.store)))).totals() == shown["credits"]
    absent = bench.done("flavor", "credits", "nobody")
    assert absent.wait() == 1
    assert "there is no run 'nobody'" in absent.stderr


def test_credits_of_a_run_by_flavor_serve_count_only_what_was_aggregated(bench: Bench) -> None:
    bench.serve(rounds=2, clients=2)
    bench.aggregator()
    flags = ["--only", "edge-2", "--fail", "nan", "--at", 2]
    clients = [bench.edge(name, bench.trainer(*flags)) for name in ("edge-1", "edge-2")]
    for client in clients:
        client.wait()
    shown = json.loads(bench.done("flavor", "credits", bench.run, "--json").stdout)
    assert shown["rounds"] == [{"round": 1, "samples": {"edge-1": 10, "edge-2": 20}}]
    before = bench.done("flavor", "credits", bench.run).stdout
    assert "edge-2" in before


@pytest.mark.parametrize("held_at", [1, 3, 6])
def test_a_coordinator_that_is_killed_goes_on_exactly(bench: Bench, held_at: int) -> None:
    """Killed while nodes train; they never notice, and the trajectory is the uninterrupted one."""
    rounds = 6
    options = ["--outer-optimizer", NESTEROV, "--heartbeat-timeout-s", 2, "--set", f"HOLD_AT={held_at}", "--json"]
    first = command(bench, rounds, *options)
    sites = edges(bench, "site-1", "site-2", takes="HOLD_AT")
    bench.held("site-1")
    bench.held("site-2")
    first.send(signal.SIGKILL)
    first.wait()
    bench.release("site-1")
    second = command(bench, rounds, *options)
    second.until("goes on from round")
    bench.release("site-2")
    assert [process.wait() for process in (second, *sites)] == [0, 0, 0]
    for tensors, w in zip(global_models(bench, rounds), expected(rounds, NESTEROV), strict=True):
        np.testing.assert_array_equal(tensors["layer/w"], w.astype(np.float32))
    result = json.loads(second.stdout)
    assert (result["rounds_completed"], result["total_samples"]) == (rounds, rounds * 30)
    assert [entry["event"] for entry in bench.log()].count("round.closed") == rounds
    third = command(bench, rounds, *options)
    assert third.wait() == 0  # it is finished: nothing is trained again
    assert json.loads(third.stdout) | {"duration_seconds": 0} == result | {"duration_seconds": 0}
    other = command(bench, rounds, *options, "--quorum", 1)
    assert other.wait() == 2
    assert "is there already with other settings: quorum is not set, not 1" in other.stderr


def in_python(bench: Bench, code: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """What becomes of a program of this code, in a process of its own."""
    environment = bench.env | on_path(bench.folder / "bin")
    return subprocess.run(["python", "-c", code, *words], env=environment, check=False, timeout=60)


KILLED = """
import os, signal, sys
from aumai_fedtrain import BusUpdateProvider, DiLoCoCoordinator, TrainingConfig

class Killed(DiLoCoCoordinator):
    def run_round(self, state, updates):
        if state.round_id == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run_round(state, updates)

config, run, url, store = sys.argv[1:]
provider = BusUpdateProvider(run, redis_url=url, store=store, heartbeat_timeout_s=2.0)
Killed(outer_optimizer="nesterov:lr=0.7,momentum=0.9").run_training(
    TrainingConfig.model_validate_json(config), [], provider
)
"""


def test_one_that_is_killed_while_it_averages_leaves_the_round_to_the_next(bench: Bench) -> None:
    sites = edges(bench, "site-1", "site-2")
    words = [configuration(4).model_dump_json(), bench.run, bench.url, str(bench.store)]
    killed = in_python(bench, KILLED, *words)
    assert killed.returncode == -signal.SIGKILL
    assert bench.runs.read_round(3).state is RoundState.AGGREGATING
    bench.redis.hset(bench.runs.keys.round(3), "lease_ms", "1")  # as if its lease had run out
    result = DiLoCoCoordinator(outer_optimizer=NESTEROV).run_training(configuration(4), [], provider(bench))
    assert (result.rounds_completed, result.total_samples) == (4, 120)
    for tensors, w in zip(global_models(bench, 4), expected(4, NESTEROV), strict=True):
        np.testing.assert_array_equal(tensors["layer/w"], w.astype(np.float32))
    bench.logged("round.aggregating", round=3, reason=SECOND)
    assert [site.wait() for site in sites] == [0, 0]


SECOND = "attempt 2 of 3, because: its aggregator stopped without a word"


def provider(bench: Bench, **options: Any) -> BusUpdateProvider:
    settings = {"heartbeat_timeout_s": 2.0, "store": str(bench.store), "patience_s": 10.0, **options}
    settings.setdefault("key", bench.folder / "aggregator.key")
    return BusUpdateProvider(bench.run, redis_url=bench.url, **settings)


NODES = [FederatedNode(node_id=f"site-{i}", address="") for i in (1, 2)]


def test_the_nodes_that_are_named_take_part_and_no_others(bench: Bench) -> None:
    told: list[str] = []
    clients = edges(bench, "site-3", "site-1", "site-2")
    for client in clients:
        client.until("waiting for run")
    result = DiLoCoCoordinator(weighted=True).run_training(configuration(2), NODES, provider(bench, tell=told.append))
    assert result.final_state.participating_nodes == ["site-1", "site-2"]
    assert result.final_state.credits == {"site-1": 20, "site-2": 40}
    starts = [local(np.full((2, 3), target + 4), target) for target in (1, 2)]
    w = (10 * starts[0].astype(np.float64) + 20 * starts[1]) / 30
    np.testing.assert_allclose(global_models(bench, 1)[0]["layer/w"], w, rtol=1e-6)
    assert bench.runs.members() == ["site-1", "site-2"]
    assert any("site-3 is none of this run's clients (site-1, site-2)" in line for line in told)
    assert [client.wait() for client in clients] == [0, 0, 0]


def test_a_training_that_starts_from_weights(bench: Bench, tmp_path: Path) -> None:
    """The first round is an outer step, from pre-trained weights in a file."""
    layer = {"w": np.full((2, 3), 9, np.float32), "h": np.ones(2, np.float16)}
    mask = np.array([[0, -np.inf], [0, 0]], np.float32)
    state = {"layer": layer, "mask": mask, "steps": np.int64(100)}
    path = tmp_path / "pretrained.pkl"
    path.write_bytes(pickle.dumps({"state_dict": state}))
    run = command(bench, 2, "--outer-optimizer", NESTEROV, "--init-model", path)
    sites = edges(bench, "site-1", "site-2")
    assert [process.wait() for process in (run, *sites)] == [0, 0, 0]
    theta = np.full((2, 3), 9.0)
    delta = np.mean([theta - local(theta, target) for target in (1, 2)], axis=0)
    first, second = global_models(bench, 2)
    np.testing.assert_allclose(first["layer/w"], theta - 0.7 * 1.9 * delta, rtol=1e-6)
    assert int(second["steps"]) == 108
    assert float(second["layer/h"][0]) == 1.0


def test_initial_weights_of_the_coordinator_reach_the_nodes(bench: Bench) -> None:
    """By the flat names that such a checkpoint has; as float32, which trainers save."""
    trainer = (
        "import os, pickle; from safetensors.numpy import load_file, save_file; "
        "from flavor.cook.utils import *\n"
        "SetEvent('TrainInitDone'); n = WaitEvent('TrainStarted'); "
        "w = load_file(os.environ['GLOBAL_MODEL_PATH'])['w']\n"
        "save_file({'w': w + 1}, os.environ['LOCAL_MODEL_PATH'])\n"
        "SaveInfoJson({'metadata': {'epoch': n, 'datasetSize': 1, 'importance': 1.0}, 'metrics': "
        "{f'basic/confusion_{c}': -1 for c in ('tp', 'fp', 'fn', 'tn')}})\n"
        "SetEvent('TrainFinished'); WaitEvent('TrainStarted')\n"
    )
    site = bench.edge("site-1", shlex.join([sys.executable, "-c", trainer]))
    coordinator = DiLoCoCoordinator(outer_optimizer="replace", initial_weights={"w": [0.25, 0.5]})
    result = coordinator.run_training(configuration(1, nodes=1), NODES[:1], provider(bench))
    assert [float(value) for value in result.final_state.global_weights["w"]] == [1.25, 1.5]
    assert result.final_state.avg_loss is None  # nobody measured one
    assert site.wait() == 0


def test_a_site_with_another_mask_leaves_the_round_to_the_others(bench: Bench) -> None:
    run = command(bench, 1, "--quorum", 2, "--set", "OTHER_MASK=site-2", nodes=3)
    sites = edges(bench, "site-1", "site-2", "site-3", takes="OTHER_MASK")
    assert [process.wait() for process in (run, *sites)] == [0, 0, 0, 0]
    (tensors,) = global_models(bench, 1)
    assert tensors["mask"].tolist() == [[0, -np.inf], [0, 0]]
    why = "tensor 'mask' is a constant buffer at most sites, and is another here"
    assert f"site-2: {why}" in run.stderr
    assert f"the update was refused: {why}" in sites[1].stderr, "and not that its object was changed in the store"
    assert json.loads(bench.done("flavor", "credits", bench.run, "--json").stdout)["credits"].keys() == {
        "site-1",
        "site-3",
    }


def test_a_refused_update_leaves_the_round_to_the_others(bench: Bench) -> None:
    flags = ["--only", "edge-2", "--fail", "nan", "--at", 2]
    clients = [bench.edge(name, bench.trainer(*flags)) for name in ("edge-1", "edge-2")]
    result = DiLoCoCoordinator().run_training(configuration(3), [], provider(bench, quorum=1))
    assert result.rounds_completed == 3
    assert result.final_state.credits == {"edge-1": 30, "edge-2": 40}
    refused = bench.logged("update.refused", client="edge-2", round=2)
    assert "NaN or infinite" in refused["reason"]
    # 1.5 after the first round, edge-1 alone in the second, both in the third
    assert [float(tensors["w"][0, 0]) for tensors in global_models(bench, 3)] == [1.5, 2.5, 4.0]
    assert [client.wait() for client in clients] == [0, 0]


def test_a_run_that_cannot_go_on_fails_with_its_reason(bench: Bench) -> None:
    flags = ["--only", "edge-2", "--fail", "exit3", "--at", 2]
    clients = [bench.edge(name, bench.trainer(*flags)) for name in ("edge-1", "edge-2")]
    run = command(bench, 3)
    assert run.wait() == 1
    assert '2 updates are needed and 1 can come; edge-2: "its trainer ended in round 2' in run.stderr
    assert "Error: run" in run.stderr
    session = json.loads(bench.done("aumai-fedtrain", "status", "live", "--json").stdout)["session"]
    assert (session["status"], session["round_id"]) == ("failed", 1)
    assert 'edge-2: "its trainer ended' in session["reason"]
    assert [client.wait() for client in clients] == [1, 5]


def test_trainers_that_are_done_end_the_training_early(bench: Bench) -> None:
    clients = [bench.edge(name, bench.trainer("--rounds", 2)) for name in ("edge-1", "edge-2")]
    result = DiLoCoCoordinator().run_training(configuration(9), [], provider(bench))
    assert result.rounds_completed == 2
    assert bench.runs.read().state is RunState.FINISHED
    assert [client.wait() for client in clients] == [7, 7]


def test_a_run_that_an_operator_stops(bench: Bench) -> None:
    clients = [bench.edge(name, bench.trainer("--hold", "--at", 2)) for name in ("edge-1", "edge-2")]
    run = command(bench, 5)
    bench.held("edge-1")
    assert bench.done("flavor", "stop", bench.run, "--reason", "enough").wait() == 0
    assert run.wait() == 1
    assert f"Error: run '{bench.run}' is stopped: enough" in run.stderr
    again = command(bench, 5)
    assert again.wait() == 8
    assert "is over (stopped: enough)" in again.stderr
    for client in clients:
        client.wait()
    assert bench.survivors() == {}


class Broken(DiLoCoCoordinator):
    """A coordinator whose own code fails in one round."""

    at = 2

    def run_round(self, state: GlobalState, updates: Any) -> GlobalState:
        if state.round_id + 1 == self.at:
            raise ZeroDivisionError("a bug of ours")
        return super().run_round(state, updates)


def test_an_error_of_the_averaging_side_leaves_the_run_to_be_gone_on_with(bench: Bench) -> None:
    sites = edges(bench, "site-1", "site-2")
    with pytest.raises(ZeroDivisionError):
        Broken(outer_optimizer=NESTEROV).run_training(configuration(4), [], provider(bench))
    assert not [thread for thread in threading.enumerate() if thread.name in ("coordinator", "lease-keeper")]
    failed = bench.logged("round.attempt_failed", round=2)
    assert failed["reason"] == "a bug of ours"
    assert bench.runs.read().state is RunState.RUNNING
    result = DiLoCoCoordinator(outer_optimizer=NESTEROV).run_training(configuration(4), [], provider(bench))
    assert (result.rounds_completed, result.total_samples) == (4, 120)
    for tensors, w in zip(global_models(bench, 4), expected(4, NESTEROV), strict=True):
        np.testing.assert_array_equal(tensors["layer/w"], w.astype(np.float32))
    bench.logged("round.aggregating", round=2, reason="attempt 2 of 3, because: a bug of ours")
    assert [site.wait() for site in sites] == [0, 0]


def test_a_training_that_is_left_in_the_middle_stops_its_run(bench: Bench) -> None:
    sites = edges(bench, "site-1", "site-2")
    coordinator, nodes = DiLoCoCoordinator(), NODES
    live = provider(bench)
    with live.training(configuration(5), nodes):
        state = coordinator.initialize(configuration(5), nodes)
        state = coordinator.run_round(state, live.get_updates(1, state, nodes))
        with pytest.raises(MisuseError, match="there are no updates of round 3"):
            live.distribute_state(state.model_copy(update={"round_id": 3}), nodes)
        live.distribute_state(state, nodes)
    view = bench.runs.read()
    assert (view.state, view.reason) == (RunState.STOPPED, "the training ended after round 1 of 5")
    assert [site.wait() for site in sites] == [STOPPED, STOPPED]


def test_one_coordinator_at_a_time(bench: Bench) -> None:
    clients = [bench.edge(name, bench.trainer("--hold", "--at", 1)) for name in ("edge-1", "edge-2")]
    run = command(bench, 1, "--heartbeat-timeout-s", 2)
    bench.held("edge-1")
    with pytest.raises(LeaseHeld, match="is already running as process"):
        DiLoCoCoordinator().run_training(configuration(1), [], provider(bench, store=str(bench.store)))
    bench.release("edge-1", "edge-2")
    assert [process.wait() for process in (run, *clients)] == [0, 0, 0]


def test_wrong_use(bench: Bench) -> None:
    live = provider(bench)
    with pytest.raises(MisuseError, match="live nodes are there during a training only"):
        live.get_updates(1, GlobalState(round_id=0), [])
    bench.runs.create(rounds=1, config={"rounds": 1, "store": "file:///elsewhere"})
    with pytest.raises(RunExists, match="aumai_fedtrain did not begin it"):
        DiLoCoCoordinator().run_training(configuration(1), [], live)


def verified(bench: Bench, *options: object) -> dict[str, Any]:
    checked = bench.done("flavor", "verify", bench.run, "--store", bench.store, "--json", *options)
    assert checked.wait() == 0, checked.stderr
    found: dict[str, Any] = json.loads(checked.stdout)
    return found


def test_every_closed_round_leaves_a_signed_manifest(bench: Bench) -> None:
    run = command(bench, 3)
    sites = edges(bench, "site-1", "site-2")
    assert [process.wait() for process in (run, *sites)] == [0, 0, 0]
    key = bench.work / ".aumai-fedtrain" / "aggregator.key"
    assert key.stat().st_mode & 0o777 == 0o600
    found = verified(bench, "--trust", f"{key}.pub")
    assert (found["rounds"], found["closed"], found["problems"]) == (3, 3, [])
    assert [(link["round"], link["verdict"]) for link in found["chain"]] == [(1, "ok"), (2, "ok"), (3, "ok")]
    for link in found["chain"]:
        manifest = link["manifest"]
        assert [(each["client"], each["num_examples"]) for each in manifest["contributors"]] == [
            ("site-1", 10),
            ("site-2", 20),
        ]
        assert all(each["signature"] for each in manifest["contributors"])
        assert all(manifest["global_model"][name] for name in ("state_digest", "info_digest"))


def test_a_run_that_redis_lost_is_not_started_over_and_goes_on_exactly_once_rebuilt(bench: Bench) -> None:
    options = ["--outer-optimizer", NESTEROV, "--heartbeat-timeout-s", 2, "--set", "HOLD_AT=4", "--json"]
    first = command(bench, 6, *options)
    sites = edges(bench, "site-1", "site-2", takes="HOLD_AT")
    for name in ("site-1", "site-2"):
        bench.held(name)
    for process in (first, *sites):
        process.send(signal.SIGKILL)
        process.wait()
    bench.redis.delete(*bench.redis.keys(f"flavor:{{{bench.run}}}:*".replace("{", "\\{").replace("}", "\\}")))
    assert bench.runs.find() is None

    refused = command(bench, 6, *options)
    assert refused.wait() == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert last.startswith(f"Error: run {bench.run!r} has 3 closed rounds in the store, but Redis does not know it")
    assert bench.runs.find() is None

    rebuilt = bench.done("flavor", "recover", "--run", bench.run, "--store", bench.store, "--untrusted")
    assert rebuilt.wait() == 0, rebuilt.stderr
    second = command(bench, 6, *options)
    sites = edges(bench, "site-1", "site-2", takes="HOLD_AT")
    for name in ("site-1", "site-2"):
        bench.held(name)  # in round 4, again
    bench.release("site-1", "site-2")
    assert [process.wait() for process in (second, *sites)] == [0, 0, 0]
    for tensors, w in zip(global_models(bench, 6), expected(6, NESTEROV), strict=True):
        np.testing.assert_array_equal(tensors["layer/w"], w.astype(np.float32))
    result = json.loads(second.stdout)
    assert (result["rounds_completed"], result["total_samples"]) == (6, 180)
    assert verified(bench)["closed"] == 6


UNPUBLISHED = """
import os, signal, sys
from pathlib import Path
import workers.in_process as serving
from aumai_fedtrain import BusUpdateProvider, DiLoCoCoordinator, TrainingConfig

serving.publish_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
config, run, url, store, key = sys.argv[1:]
provider = BusUpdateProvider(run, redis_url=url, store=store, heartbeat_timeout_s=2.0, key=Path(key))
DiLoCoCoordinator().run_training(TrainingConfig.model_validate_json(config), [], provider)
"""


def test_one_that_is_killed_right_after_the_last_commit_has_its_run_ended_by_the_next(bench: Bench) -> None:
    sites = edges(bench, "site-1", "site-2")
    words = [configuration(1).model_dump_json(), bench.run, bench.url, str(bench.store), str(bench.folder / "k")]
    killed = in_python(bench, UNPUBLISHED, *words)
    assert killed.returncode == -signal.SIGKILL
    assert DiLoCoCoordinator().run_training(configuration(1), [], provider(bench)).rounds_completed == 1
    assert bench.runs.read().state is RunState.FINISHED
    assert verified(bench)["closed"] == 1
    assert [site.wait() for site in sites] == [0, 0]


def closed_elsewhere(bench: Bench, archive: Archive) -> Manifest:
    """What another history of the run has left of its first round."""
    record = archive.beginning()
    assert record is not None
    update = Contributor(
        client="site-1",
        path="u",
        digest="0" * 64,
        size_bytes=1,
        format="pickle",
        num_examples=1,
        info_path="i",
        info_digest="0" * 64,
    )
    model = Model(path=f"runs/{bench.run}/global/1-model", digest="0" * 64, size_bytes=1, format="pickle")
    return Manifest(
        run=bench.run,
        run_id=record.run_id,
        round=1,
        attempt=1,
        config=record.config,
        opened_ms=1,
        closed_ms=2,
        expected=("site-1",),
        trained_from="",
        contributors=(update,),
        global_model=model,
        previous=record.digest,
    )


def test_a_round_that_the_store_has_is_not_committed_again(bench: Bench) -> None:
    """Redis came back older while this process averaged; another one with its key had closed the round."""
    sites = edges(bench, "site-1", "site-2")
    live, coordinator, config = provider(bench), DiLoCoCoordinator(), configuration(2)
    with live.training(config, []):
        state = coordinator.initialize(config, [])
        state = coordinator.run_round(state, live.get_updates(1, state, []))
        archive = Archive(open_store(str(bench.store)), bench.run)
        own = SigningKey.load(bench.folder / "aggregator.key")
        archive.publish(1, archive.stage(closed_elsewhere(bench, archive).signed(own)))
        with pytest.raises(StateLost, match="round 1 is closed in the object store"):
            live.distribute_state(state, [])
        assert bench.runs.read_round(1).state is RoundState.AGGREGATING
    assert [site.wait() for site in sites] == [STOPPED, STOPPED]


def test_a_key_that_cannot_be_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was named is required; where there is no place for one, a key of this process's own signs."""
    monkeypatch.chdir(bench.work)
    (bench.work / ".aumai-fedtrain").write_text("a file, where the folder would be")
    told: list[str] = []
    sites = edges(bench, "site-1", "site-2")
    bad = bench.work / ".aumai-fedtrain" / "key"
    with pytest.raises(InvalidSetting, match="cannot be used"):
        DiLoCoCoordinator().run_training(configuration(1), [], provider(bench, key=bad))
    DiLoCoCoordinator().run_training(configuration(1), [], provider(bench, key=None, tell=told.append))
    assert any("a key that ends with this process signs" in line for line in told)
    assert verified(bench)["closed"] == 1
    assert [site.wait() for site in sites] == [0, 0]
