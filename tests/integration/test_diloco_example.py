"""examples/diloco-char, as its README runs it, with small settings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pages import prepared
from warm import starter_with

from tests.conftest import Bench

EXAMPLE = Path(__file__).parents[2] / "examples" / "diloco-char"
PARAMETERS = 106_240


@pytest.mark.slow
def test_four_sites_train_a_transformer_together(bench: Bench) -> None:
    folder = bench.folder / "example"
    shutil.copytree(EXAMPLE, folder)
    python = prepared(bench.folder, starter_with("torch._dynamo"))
    subprocess.run(["python", "prepare.py"], cwd=folder, env=python, check=True, timeout=60)
    out = bench.folder / "out"
    process = bench.done(
        *("flavor", "run", "-m", f"{sys.executable} main.py --steps 4 --batch 8 --lr 8e-3 --warmup 4 --tested 64"),
        *("--input-glob", "site*/", "--rounds", 6, "--out", out, "--json"),
        *("--aggregator", "diloco", "--compress", "int8", "--init-model", "initial.ckpt"),
        cwd=folder,
        timeout_s=110,
        libraries=["torch._dynamo"],
    )
    logs = "\n".join(log.read_text() for log in sorted((out / "logs").glob("*.log")))
    assert process.wait() == 0, process.stderr + logs
    result = json.loads(process.stdout)
    losses = [round_["metrics"]["loss"] for round_ in result["rounds"]]
    assert losses[0] == pytest.approx(4.56, abs=0.05)  # ln 96: all characters are alike to the first weights
    assert losses[-1] < 3.5
    assert [len(round_["clients"]) for round_ in result["rounds"]] == [4] * 6
    for round_ in result["rounds"]:  # a byte a parameter; the rest is names, shapes and scales
        assert PARAMETERS < round_["bytes"] / 4 < 1.08 * PARAMETERS
    state = torch.load(result["global_model"], weights_only=True)["state_dict"]
    assert sum(tensor.numel() for tensor in state.values()) == PARAMETERS
