"""examples/http-node: real nodes behind HTTP, called by the guide's own provider."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from aumai_fedtrain import DiLoCoCoordinator, FederatedNode, HashVerifier, LocalUpdate, TrainingConfig
from tests.conftest import Process
from tests.integration.test_fedtrain_guide import block
from tests.nursery import ABSENT

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "http-node"
PATHS = os.pathsep.join([ABSENT, str(ROOT)])  # without pandas, which takes scikit-learn half a second to import
Start = Callable[[str, str], str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "http-node"))


@pytest.fixture
def node(folder: Path) -> Iterator[Start]:
    """Start a node for an age group; gives its HOST:PORT."""
    started: list[Process] = []

    def start(name: str, ages: str) -> str:
        env = {**os.environ, "PYTHONPATH": PATHS, "NODE_ID": name, "AGES": ages, "LEARNING_RATE": "0.01"}
        process = Process([sys.executable, "-m", "uvicorn", "node:app", "--port", "0"], env=env, cwd=folder)
        started.append(process)
        process.until("Uvicorn running on http://127.0.0.1:")
        process.until("(Press CTRL+C to quit)")
        found = re.search(r"running on http://(127\.0\.0\.1:\d+)", process.stderr)
        assert found is not None
        return found[1]

    yield start
    for process in started:
        process.end()


def test_the_example_learns_what_all_patients_in_one_place_teach(folder: Path, node: Start) -> None:
    words = [f"young={node('young', '0-50')}", f"old={node('old', '50-120')}"]
    done = subprocess.run(
        [sys.executable, "coordinator.py", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"^round \d+: loss (\S+)$", done.stdout, flags=re.MULTILINE)]
    assert len(losses) == 15
    assert losses[0] > 0.6
    assert losses[-1] < 0.5  # least squares on all of them: 0.482
    assert "old: 9600 samples\nyoung: 9600 samples" in done.stdout


def test_its_provider_is_the_one_that_is_printed_and_works_as_it_is(node: Start) -> None:
    scope: dict[str, object] = {}
    exec(block("http provider"), scope)
    nodes = [FederatedNode(node_id="all", address=node("all", "0-120"))]
    config = TrainingConfig(
        model_name="m", learning_rate=0.01, batch_size=32, local_steps=20, global_rounds=3, num_nodes=1
    )
    coordinator = DiLoCoCoordinator(outer_optimizer="replace")
    result = coordinator.run_training(config, nodes, scope["HttpUpdateProvider"]())  # type: ignore[operator]
    assert result.rounds_completed == 3
    assert len(result.final_state.global_weights["weight"]) == 10
    in_example = next(
        part
        for part in ast.parse((EXAMPLE / "coordinator.py").read_text()).body
        if isinstance(part, ast.ClassDef) and part.name == "HttpUpdateProvider"
    )
    printed = next(part for part in ast.parse(block("http provider")).body if isinstance(part, ast.ClassDef))
    assert ast.dump(in_example) == ast.dump(printed)


def test_a_node_answers_with_an_update_or_says_what_is_wrong(node: Start) -> None:
    url = f"http://{node('one', '0-120')}/train"
    weights = {"weight": [0.5] * 10, "bias": [0.0]}
    first = LocalUpdate.model_validate(httpx.post(url, json={"round_id": 1, "global_weights": {}}).json())
    second = LocalUpdate.model_validate(httpx.post(url, json={"round_id": 2, "global_weights": weights}).json())
    assert (first.node_id, first.round_id, second.round_id) == ("one", 1, 2)
    assert second.gradient_hash == HashVerifier.compute_hash(second.gradients)
    # half a unit everywhere is far off: the pseudogradient, old minus new, points from where it goes to where it was
    assert sum(second.gradients["weight"]) > 0
    for body in ({}, {"round_id": 1}, {"round_id": 1, "global_weights": {"weight": [1.0]}}, [1]):
        answer = httpx.post(url, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]
    assert httpx.post(url, content=b"{").status_code == 400
    assert httpx.get(url).status_code == 405
