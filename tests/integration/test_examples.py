"""Every example, run as its README says.

`numpy-digits` is started as users start it. The processes of the others are forked from one that has imported what they
import, which takes seconds for each of them.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from pages import prepared
from warm import starter_with

from tests.conftest import UNPLOTTED
from tests.nursery import ABSENT

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def example(tmp_path):
    """Run an example in a copy of its folder, first its data, then the federation; gives the JSON result."""

    def run(name: str, prepare: list[str], main: str, rounds: int, libraries: Sequence[str] | None) -> dict:
        """`libraries`: what its processes have imported; None has all of them started."""
        folder = tmp_path / name
        if libraries is None:
            environment = prepared(tmp_path, None)
            environment["PYTHONPATH"] = os.pathsep.join([ABSENT, environment["PYTHONPATH"]])
        else:
            environment = prepared(tmp_path, starter_with(*libraries))
            if "lightning" not in libraries:  # that imports matplotlib
                environment["PYTHONPATH"] = os.pathsep.join([str(UNPLOTTED), environment["PYTHONPATH"]])
        shutil.copytree(EXAMPLES / name, folder)
        subprocess.run(prepare, cwd=folder, env=environment, check=True, capture_output=True, timeout=60)
        command = ["flavor", "run", "-m", main, "--input-glob", "site*/", "--rounds", f"{rounds}"]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "out"), "--json"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        logs = "\n".join(log.read_text() for log in sorted((tmp_path / "out" / "logs").glob("*.log")))
        assert done.returncode == 0, f"{done.stderr}\n{logs}"
        result = json.loads(done.stdout)
        assert result["state"] == "finished"
        assert len(result["rounds"]) == rounds
        with open(tmp_path / "out" / "metrics.csv", newline="") as file:
            assert len(list(csv.DictReader(file))) == rounds
        return result

    return run


def test_numpy_digits_learns_digits_that_no_site_has_all_of(example):
    result = example("numpy-digits", ["python", "prepare.py"], "python main.py", rounds=10, libraries=None)
    first, last = result["rounds"][0]["metrics"], result["rounds"][-1]["metrics"]
    assert first["accuracy"] < 0.2
    assert last["accuracy"] > 0.85
    assert last["loss"] < 0.8
    with open(result["global_model"], "rb") as file:
        state = pickle.load(file)["state_dict"]
    assert {name: array.shape for name, array in state.items()} == {"weight": (64, 10), "bias": (10,)}


@pytest.mark.slow
def test_torch_digits_learns_digits_that_no_site_has_all_of(example):
    result = example(
        "torch-digits",
        ["python", "prepare.py"],
        "python main.py",
        rounds=8,
        libraries=["torch._dynamo", "sklearn.datasets"],
    )
    assert result["rounds"][0]["metrics"]["accuracy"] < 0.3
    assert result["rounds"][-1]["metrics"]["accuracy"] > 0.7
    assert result["global_model"].endswith(".ckpt")


@pytest.mark.slow
def test_lightning_goes_on_with_its_own_fit_from_the_global_model(example):
    """Three rounds are three epochs of one fit: its epoch stands beside the weights of each global model."""
    result = example(
        *("lightning-digits", ["python", "prepare.py"], "python main.py"),
        rounds=3,
        libraries=["torch._dynamo", "sklearn.datasets", "lightning"],
    )
    assert [round_["metrics"]["epochs"] for round_ in result["rounds"]] == [1, 2, 3]
    assert result["rounds"][0]["metrics"]["accuracy"] < 0.3
    assert result["rounds"][-1]["metrics"]["accuracy"] > result["rounds"][0]["metrics"]["accuracy"] + 0.1


def test_shell_learns_the_weights_that_no_site_can_learn_alone(example):
    result = example("shell", ["sh", "prepare.sh"], "sh train.sh", rounds=4, libraries=[])
    assert result["rounds"][0]["metrics"]["mse"] > 1
    assert result["rounds"][-1]["metrics"]["mse"] < 0.05
    assert all(len(round_["clients"]) == 3 for round_ in result["rounds"])
    weight = _read_tensor(Path(result["global_model"]), "weight")
    assert weight == pytest.approx([3, -2, 1], abs=0.1)
    assert _read_tensor(Path(result["global_model"]), "bias") == pytest.approx([0.5], abs=0.05)


def test_shell_reads_and_writes_every_float_exactly(tmp_path):
    np = pytest.importorskip("numpy")
    from flavor.checkpoints import Format, read

    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(300) * 10.0 ** rng.integers(-44, 38, 300)
    # zero, the carry into the exponent, the smallest normal and subnormal, the largest
    numbers = np.concatenate([numbers, [0.0, 1.0, -1.0, 1.99999999, 1e-38, 1e-45, 3.4028234e38]])
    path = tmp_path / "model"
    words = " ".join(repr(float(number)) for number in numbers)
    script = f'. {EXAMPLES / "shell" / "safetensors.sh"}; write_tensors "$1" z "$2" a 0.5 bad "$3"'
    arguments = [str(path), words, "nan -nan inf -inf 1e39"]
    subprocess.run(["sh", "-euc", script, "sh", *arguments], check=True, timeout=60)

    read_back = read(path, Format.SAFETENSORS).tensors
    assert read_back["z"].tobytes() == numbers.astype(np.float32).tobytes()
    assert read_back["a"].tolist() == [0.5]
    assert np.isnan(read_back["bad"]).all()
    assert np.array_equal(np.float32(_read_tensor(path, "z")), numbers.astype(np.float32))
    assert _read_tensor(path, "a") == [0.5]


def _read_tensor(path: Path, name: str) -> list[float]:
    script = f'. {EXAMPLES / "shell" / "safetensors.sh"}; read_tensor "$1" "$2"'
    done = subprocess.run(
        ["sh", "-euc", script, "sh", str(path), name], check=True, capture_output=True, text=True, timeout=60
    )
    return [float(word) for word in done.stdout.split()]
