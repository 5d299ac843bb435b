"""Momentum, Nesterov and DiLoCo follow the trajectories of a closed form, in `tests/golden/outer_steps.json`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from aggregators import ServerState, aggregate
from tests.golden import outer_steps

GOLDEN: dict[str, Any] = json.loads(outer_steps.FILE.read_text())


def test_the_golden_file_is_what_its_closed_form_gives() -> None:
    assert outer_steps.FILE.read_text() == outer_steps.text()


def trained(theta: np.ndarray, target: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """Train by gradient descent on ½(θ − target)², in the model's own dtype."""
    model = theta.copy()
    for _ in range(steps):
        model -= theta.dtype.type(rate) * (model - target)
    return model


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
@pytest.mark.parametrize("name", ["momentum", "nesterov", "diloco"])
def test_a_run_follows_the_closed_form(name: str, dtype: type, tolerance: float) -> None:
    case = GOLDEN["cases"][name]
    targets = [np.array(target, dtype) for target in GOLDEN["targets"]]
    theta = np.array(GOLDEN["start"], dtype)
    option = "beta" if case["step"] == "momentum" else "momentum"
    rule = {"aggregator": "diloco"}  # whose defaults are the case's
    if name != "diloco":
        rule = {"server_step": f"{case['step']}:lr={case['lr']},{option}={case['momentum']}"}
    scale = float(np.abs(theta).max())
    state: ServerState | None = None
    for expected in case["rounds"]:
        sites = [trained(theta, target, float(case["inner_lr"]), case["inner_steps"]) for target in targets]
        made, state = aggregate(
            [{"w": site} for site in sites], GOLDEN["weights"], **rule, global_model={"w": theta}, state=state
        )
        theta = made["w"]
        momentum = state.tensors["momentum/w"]
        assert theta.dtype == momentum.dtype == dtype
        np.testing.assert_allclose(theta, expected["model"], rtol=0, atol=tolerance * scale)
        np.testing.assert_allclose(momentum, expected["momentum"], rtol=0, atol=tolerance * scale)
    assert state is not None
    assert state.rounds == outer_steps.ROUNDS
