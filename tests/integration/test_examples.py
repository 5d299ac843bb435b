"""`examples/numpy-digits`, started and run as users do it, and the arithmetic of `examples/shell`.

`test_examples_again.py` runs all of them.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
from pages import prepared

from tests.nursery import ABSENT

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def test_numpy_digits_learns_digits_that_no_site_has_all_of(tmp_path):
    folder, environment = tmp_path / "numpy-digits", prepared(tmp_path, None)
    environment["PYTHONPATH"] = os.pathsep.join([ABSENT, environment["PYTHONPATH"]])
    shutil.copytree(EXAMPLES / "numpy-digits", folder)
    subprocess.run(["python", "prepare.py"], cwd=folder, env=environment, check=True, capture_output=True, timeout=60)
    command = ["flavor", "run", "-m", "python main.py", "--input-glob", "site*/", "--rounds", "10"]
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
    assert len(result["rounds"]) == 10
    with open(tmp_path / "out" / "metrics.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 10
    first, last = result["rounds"][0]["metrics"], result["rounds"][-1]["metrics"]
    assert first["accuracy"] < 0.2
    assert last["accuracy"] > 0.85
    assert last["loss"] < 0.8
    with open(result["global_model"], "rb") as file:
        state = pickle.load(file)["state_dict"]
    assert {name: array.shape for name, array in state.items()} == {"weight": (64, 10), "bias": (10,)}


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
    assert np.array_equal(np.float32(read_tensor(path, "z")), numbers.astype(np.float32))
    assert read_tensor(path, "a") == [0.5]


def read_tensor(path: Path, name: str) -> list[float]:
    script = f'. {EXAMPLES / "shell" / "safetensors.sh"}; read_tensor "$1" "$2"'
    done = subprocess.run(
        ["sh", "-euc", script, "sh", str(path), name], check=True, capture_output=True, text=True, timeout=60
    )
    return [float(word) for word in done.stdout.split()]
