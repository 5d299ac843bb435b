"""FedProx: the term's value and gradient, its fixed point over rounds, in torch and in numpy alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from aggregators import aggregate
from flavor.cook import anchor
from flavor.cook import numpy as in_numpy
from flavor.errors import InvalidSetting
from flavor.programs.calls_file import take_calls
from tests.lazy import Lazy

torch = Lazy("torch")
in_torch = Lazy("flavor.cook.torch")

CURVES = np.array([[1.0, 4.0], [3.0, 0.5]])
"""The curvature of the loss ½ Σ a (θ - b)² of each of two sites, by coordinate."""
GOALS = np.array([[2.0, -1.0], [-3.0, 5.0]])
MU = 0.7


def local_torch(start: np.ndarray, site: int, mu: float) -> np.ndarray:
    """The minimum of a site's loss with its term, by gradient descent in float64."""
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(torch.tensor(start))
    term = in_torch.proximal(model, mu)
    curve, goal = torch.tensor(CURVES[site]), torch.tensor(GOALS[site])
    for _ in range(150):
        model.w.grad = None
        (((model.w - goal) ** 2 * curve).sum() / 2 + term()).backward()
        with torch.no_grad():
            model.w -= 0.3 * model.w.grad
    return model.w.detach().numpy()


def local_numpy(start: np.ndarray, site: int, mu: float) -> np.ndarray:
    model = {"w": start.copy()}
    term = in_numpy.proximal(model, mu)
    for _ in range(150):
        model["w"] = model["w"] - 0.3 * (CURVES[site] * (model["w"] - GOALS[site]) + term.gradients(model)["w"])
    return model["w"]


@pytest.mark.parametrize("local", [local_torch, local_numpy])
def test_the_rounds_end_at_the_fixed_point_of_fedprox(local: Any) -> None:
    """Where Σ a (b - θ) / (a + µ) = 0. FedAvg's, µ = 0, is another one: the mean of the sites' own goals."""
    pulls = CURVES / (CURVES + MU)
    for mu, expected in ((MU, (pulls * GOALS).sum(0) / pulls.sum(0)), (0.0, GOALS.mean(0))):
        model = {"w": np.zeros(2)}
        for _ in range(40):
            model = aggregate([{"w": local(model["w"], site, mu)} for site in (0, 1)], [1, 1])
        np.testing.assert_allclose(model["w"], expected, rtol=1e-6)


def test_both_have_one_value_and_one_gradient() -> None:
    start, now = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    model = torch.nn.Linear(4, 3)
    arrays = {"weight": start, "bias": np.zeros(3, np.float32), "steps": np.array(3)}
    with torch.no_grad():
        model.weight.copy_(torch.tensor(start))
        model.bias.zero_()
    terms = in_torch.proximal(model, 0.3), in_numpy.proximal(arrays, 0.3)
    assert (terms[0]().item(), terms[1](arrays)) == (0.0, 0.0)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(now))
        model.bias += 1
    arrays |= {"weight": now, "bias": arrays["bias"] + 1}
    terms[0]().backward()
    assert terms[1](arrays) == pytest.approx(terms[0]().item(), rel=1e-6)
    assert terms[1](arrays) == pytest.approx(0.15 * (((now - start) ** 2).sum() + 3), rel=1e-6)
    pulls = terms[1].gradients(arrays)
    assert sorted(pulls) == ["bias", "weight"], "integers are not trained"
    np.testing.assert_allclose(pulls["weight"], model.weight.grad.numpy(), rtol=1e-6)
    np.testing.assert_allclose(pulls["bias"], model.bias.grad.numpy(), rtol=1e-6)


def test_only_parameters_that_are_trained_count() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    term = in_torch.proximal(model, 2.0)
    with torch.no_grad():
        model[0].weight += 1
        model[0].bias += 1
        model[1].running_mean += 1
    assert term().item() == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_short_floats_are_squared_in_float32(kind: str) -> None:
    """300² is beyond float16."""
    model = torch.nn.Linear(2, 1, bias=False).to(getattr(torch, kind))
    type_ = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    arrays = {"w": np.zeros(2, type_)}
    with torch.no_grad():
        model.weight.zero_()
        term, other = in_torch.proximal(model, 2.0), in_numpy.proximal(arrays, 2.0)
        model.weight += 300
    arrays = {"w": (arrays["w"].astype(np.float32) + 300).astype(type_)}
    assert term().item() == other(arrays) == 180_000
    assert other.gradients(arrays)["w"].dtype == type_


def test_a_term_made_before_the_loop_follows_the_global_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would pull each round to the model of the first one."""
    rounds: list[int | None] = [None]
    monkeypatch.setattr(anchor, "current_round", lambda: rounds[-1])
    model, arrays = torch.nn.Linear(2, 1, bias=False).double(), {"w": np.zeros(2)}
    torch.nn.init.zeros_(model.weight)
    term, other = in_torch.proximal(model, 2.0), in_numpy.proximal(arrays, 2.0)
    for round_ in (1, 2, 7):
        rounds.append(round_)
        with torch.no_grad():
            model.weight += 1  # the global model
            arrays = {"w": arrays["w"] + 1}
            assert (float(term()), other(arrays)) == (0.0, 0.0)
            model.weight += 1
            arrays = {"w": arrays["w"] + 1}
            assert (float(term()), other(arrays)) == (2.0, 2.0)


def test_a_global_model_that_takes_the_place_of_the_tensors_is_followed() -> None:
    """`assign=True` makes other parameters: the term of the former ones would stay 0, without a word."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
    term = in_torch.proximal(model, 2.0)
    weights = [{"0.weight": torch.full((1, 2), value)} for value in (1.0, 3.0)]
    model.load_state_dict(weights[0], assign=True)  # the global model, after the term was made
    assert float(term().detach()) == 0.0
    model.load_state_dict(weights[1], assign=True)  # what was trained, such as the best epoch
    found = term()
    assert float(found.detach()) == 8.0
    found.backward()
    assert model[0].weight.grad.tolist() == [[4.0, 4.0]]
    model[0] = torch.nn.Identity()
    term._calls.round = -1  # as in a new round
    with pytest.raises(InvalidSetting, match=r"proximal: the model has no parameter '0.weight' any more: make this a"):
        term()


def test_a_term_made_before_the_global_model_was_loaded_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It pulls to the site's own last model."""
    local = tmp_path / "model"
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(local))
    monkeypatch.setenv("CHECK_FL", "true")
    for loads_late in (False, True):
        for kind in ("torch", "numpy"):
            monkeypatch.setattr(anchor, "_told", set())
            model, arrays = torch.nn.Linear(2, 1), {"w": np.zeros(2)}
            for _ in range(2):  # rounds, of which each makes a term
                term = in_torch.proximal(model, 0.0) if kind == "torch" else in_numpy.proximal(arrays, 0.0)
                for used in (not loads_late, True):
                    if used and kind == "torch":
                        term()
                    elif used:
                        term.gradients(arrays)
                    model.load_state_dict({name: each + 1 for name, each in model.state_dict().items()})
                    arrays = {"w": arrays["w"] + 1}
            assert (("proximal", "anchor") in take_calls(local)) is loads_late
            assert capsys.readouterr().err == f"flavor: proximal: {anchor.OTHER_ANCHOR}\n" * loads_late


def test_a_model_of_another_dtype_than_at_the_making_has_not_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """It was rounded, and so is the anchor."""
    model = torch.nn.Linear(3, 1)
    term = in_torch.proximal(model, 1.0)
    model.to(torch.bfloat16)
    assert float(term().detach()) == 0.0
    arrays = {"w": np.array([0.1, 0.2], np.float32)}
    in_arrays = in_numpy.proximal(arrays, 1.0)
    assert not in_arrays.gradients({"w": arrays["w"].astype(ml_dtypes.bfloat16)})["w"].any()
    assert capsys.readouterr().err == ""


def test_calls_are_noted_for_check_fl_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = tmp_path / "model"
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(local))
    in_numpy.proximal({"w": np.zeros(2)}, 1.0).gradients({"w": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("CHECK_FL", "true")
    term = in_numpy.proximal({"w": np.zeros(2)}, 1.0)
    assert take_calls(local) == {("proximal", "made")}
    term.gradients({"w": np.zeros(2)})
    assert take_calls(local) == {("proximal", "term")}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf"), "0.1", None, True])
def test_a_mu_that_cannot_be_used_is_refused(mu: Any) -> None:
    with pytest.raises(InvalidSetting, match="mu must be a finite number, 0 or more, and is"):
        in_numpy.proximal({"w": np.zeros(2)}, mu)
    with pytest.raises(InvalidSetting, match="mu must be a finite number, 0 or more, and is"):
        in_torch.proximal(torch.nn.Linear(2, 1), mu)


def test_a_model_that_is_another_one_is_refused() -> None:
    term = in_numpy.proximal({"w": np.zeros(2)}, 1.0)
    for model, told in (
        ({"v": np.zeros(2)}, "'v' is new in"),
        ({}, "'w' is missing from the model"),
        ({"w": np.zeros(3)}, r"'w' has the shape \(3,\), and had \(2,\) at the making"),
    ):
        with pytest.raises(InvalidSetting, match=told):
            term.gradients(model)
    with pytest.raises(InvalidSetting, match="no array of floats"):
        in_numpy.proximal({"steps": np.array(3)}, 1.0)
    with pytest.raises(InvalidSetting, match="no parameter of the model requires a gradient"):
        in_torch.proximal(torch.nn.Linear(2, 1).requires_grad_(False), 1.0)


def test_numpys_import_loads_no_torch() -> None:
    code = "import sys, flavor.cook.numpy\nprint(sorted({'rq', 'torch', 'pydantic', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
