"""The evaluators of `examples` judge the models of their runs as their READMEs say, and pass check-fv."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from pages import prepared
from test_examples import EXAMPLES
from warm import starter_with

FOLDERS = {
    "numpy-digits": (("sklearn.datasets", "sklearn.metrics"), {"loss", "accuracy"}),
    "torch-digits": (("torch._dynamo", "sklearn.datasets"), {"loss", "accuracy", "balanced_accuracy"}),
    "scaffold-digits": (("torch._dynamo", "sklearn.datasets"), {"loss", "accuracy", "balanced_accuracy"}),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_an_evaluator(tmp_path, name):
    libraries, metrics = FOLDERS[name]
    folder, environment = tmp_path / name, prepared(tmp_path, starter_with(*libraries))
    shutil.copytree(EXAMPLES / name, folder)

    def done(*words, **more):
        found = subprocess.run(
            words, cwd=folder, env={**environment, **more}, capture_output=True, text=True, timeout=110, check=False
        )
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    done("python", "prepare.py")
    run = ["flavor", "run", "-m", "python main.py", "-e", "python evaluate.py", "--evaluate", "every"]
    result = json.loads(done(*run, "--input-glob", "site*/", "--rounds", "2", "--out", str(tmp_path / "out"), "--json"))
    judged = json.loads(done("flavor", "results", str(tmp_path / "out"), "--json"))
    assert judged["round"] == 2
    assert metrics <= judged["metrics"].keys(), judged
    model = result["global_model"]
    checked = done("check-fv", "-m", "python evaluate.py", "--model", model, INPUT_PATH=str(folder / "site1"))
    assert "9 passed" in checked
