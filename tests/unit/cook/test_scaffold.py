"""SCAFFOLD: it ends at the optimum of all sites, where FedAvg does not; and what a site keeps between its rounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregators import aggregate
from flavor.cook import anchor, control
from flavor.cook import numpy as in_numpy
from flavor.cook.control import without_control_variates
from flavor.errors import InvalidSetting
from flavor.programs.calls_file import take_calls
from flavor.programs.own_variates import write_own_variates
from tests.lazy import Lazy

torch = Lazy("torch")
in_torch = Lazy("flavor.cook.torch")

CURVES = np.array([[1.0, 4.0], [3.0, 0.5], [0.4, 2.0], [2.0, 1.0]])
"""The curvature of the loss ½ Σ a (θ - b)² of each site, by coordinate."""
GOALS = np.array([[2.0, -1.0], [-3.0, 5.0], [7.0, 0.0], [1.0, 1.0]])
RATE, STEPS = 0.1, 10


class TorchSite:
    """A site's script, with its model; the state_dict as arrays."""

    def __init__(self, number: int, *, corrects: bool = True, **options: Any) -> None:
        self.number, self.corrects = number, corrects
        self.model = torch.nn.Module()
        self.model.w = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.scaffold = in_torch.Scaffold(self.model, RATE, **options)

    def round(self, given: dict[str, np.ndarray], steps: int = STEPS) -> dict[str, np.ndarray]:
        if given:
            self.model.load_state_dict({name: torch.tensor(array) for name, array in given.items()})
        curve, goal = torch.tensor(CURVES[self.number]), torch.tensor(GOALS[self.number])
        for _ in range(steps):
            self.model.w.grad = None
            (((self.model.w - goal) ** 2 * curve).sum() / 2).backward()
            if self.corrects:
                self.scaffold.correct()
            with torch.no_grad():
                self.model.w -= RATE * self.model.w.grad
        self.scaffold.finish()
        return {name: each.numpy().copy() for name, each in self.model.state_dict().items()}


class NumpySite:
    def __init__(self, number: int, **options: Any) -> None:
        self.number = number
        self.model: dict[str, Any] = {"w": np.zeros(2)}
        self.scaffold = in_numpy.Scaffold(self.model, RATE, **options)

    def round(self, given: dict[str, np.ndarray], steps: int = STEPS) -> dict[str, np.ndarray]:
        self.model = dict(given) or self.model
        for _ in range(steps):
            gradient = CURVES[self.number] * (self.model["w"] - GOALS[self.number])
            self.model["w"] = self.model["w"] - RATE * (gradient + self.scaffold.correction(self.model)["w"])
        self.scaffold.finish(self.model)
        return self.model


SITES = pytest.mark.parametrize("site", [TorchSite, NumpySite])
Site = Callable[..., Any]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OUTPUT_PATH", "LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH", "CHECK_FL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The rounds that the script has taken up, with a folder for what a site keeps."""
    taken: list[int | None] = [None]
    monkeypatch.setenv("OUTPUT_PATH", str(tmp_path))
    monkeypatch.setenv("FLAVOR_RUN", "mammo")
    monkeypatch.setattr(anchor, "current_round", lambda: taken[-1])
    return taken


def optimum(weights: Any) -> np.ndarray:
    share = np.array(weights)[:, None] * CURVES[: len(weights)]
    return (share * GOALS[: len(weights)]).sum(0) / share.sum(0)


@SITES
@pytest.mark.parametrize("weights", [(1, 1), (3, 1)])
def test_it_ends_at_the_optimum_of_all_sites_in_the_weights_of_the_run(site: Site, weights: tuple[int, int]) -> None:
    sites, given = [site(0), site(1)], {}
    for _ in range(60):
        given = aggregate([each.round(given) for each in sites], weights)
    np.testing.assert_allclose(given["w"], optimum(weights), rtol=1e-6)
    np.testing.assert_allclose(given["scaffold_c__w"], 0, atol=1e-6)  # the gradient of the sum
    for each, curve, goal in zip(sites, CURVES, GOALS, strict=False):  # and of each site there
        np.testing.assert_allclose(each.scaffold._own["w"], curve * (given["w"] - goal), rtol=1e-5)


def test_fedavg_does_not() -> None:
    sites, given = [TorchSite(0, corrects=False), TorchSite(1, corrects=False)], {}
    for _ in range(60):
        given = aggregate([each.round(given) for each in sites], [1, 1])
    assert np.abs(given["w"] - optimum([1, 1])).max() > 0.5


def test_both_are_one_algorithm() -> None:
    given: dict[type, dict[str, np.ndarray]] = {TorchSite: {}, NumpySite: {}}
    sites = {kind: [kind(0), kind(1)] for kind in given}
    for _ in range(5):
        for kind, own in sites.items():
            given[kind] = aggregate([each.round(given[kind]) for each in own], [1, 2])
        for name, array in given[TorchSite].items():
            np.testing.assert_allclose(given[NumpySite][name], array, rtol=1e-6)


@SITES
def test_a_first_round_is_option_two_of_the_paper(site: Site) -> None:
    """cᵢ' = cᵢ - c + (θ_global - θᵢ) / (K η), from c = cᵢ = 0, and a second one by hand."""
    one, other = site(0), site(1)
    first = [one.round({}), other.round({})]
    own = [-each["w"] / (STEPS * RATE) for each in first]
    for each, expected in zip(first, own, strict=True):
        np.testing.assert_allclose(each["scaffold_c__w"], expected, rtol=1e-12)
    start = {"w": np.array([1.0, 1.0]), "scaffold_c__w": np.array([0.5, -2.0])}
    w = start["w"]
    for _ in range(STEPS):
        w = w - RATE * (CURVES[0] * (w - GOALS[0]) - own[0] + start["scaffold_c__w"])
    second = one.round(start)
    np.testing.assert_allclose(second["w"], w, rtol=1e-12)
    expected = own[0] - start["scaffold_c__w"] + (start["w"] - w) / (STEPS * RATE)
    np.testing.assert_allclose(second["scaffold_c__w"], expected, rtol=1e-12)


def test_a_part_of_the_sites_in_each_round() -> None:
    """With the share of them, the mean of what they hand in is the paper's c + (|S|/N) · mean of the changes."""
    sites, given = [NumpySite(number, fraction=0.5) for number in range(4)], {}
    chance = np.random.default_rng(0)
    for _ in range(300):
        chosen = chance.permutation(4)[:2]
        given = aggregate([sites[number].round(given) for number in chosen])
        own = [each.scaffold._own for each in sites]
        mean = np.mean([np.zeros(2) if each is None else each["w"] for each in own], axis=0)
        np.testing.assert_allclose(given["scaffold_c__w"], mean, atol=1e-9)
    np.testing.assert_allclose(given["w"], optimum([1] * 4), rtol=1e-6)


@SITES
def test_a_round_without_a_site_and_a_lost_file_leave_no_trace(site: Site) -> None:
    sites, given = [site(0), site(1), site(2)], {}
    for round_ in range(120):
        there = sites[:2] if round_ in (3, 4, 20) else sites
        if round_ == 10:
            sites[1] = site(1)  # on another machine
        given = aggregate([each.round(given) for each in there], [1] * len(there))
    np.testing.assert_allclose(given["w"], optimum([1, 1, 1]), rtol=1e-6)


@SITES
def test_a_script_that_is_started_again_goes_on(site: Site, rounds: list, capsys: pytest.CaptureFixture[str]) -> None:
    def sent(starts_again: bool) -> dict[str, np.ndarray]:
        here, given = site(0), {}
        for round_ in (1, 2, 3):
            rounds.append(round_)
            here = site(0) if starts_again else here
            given = here.round(given) | {"scaffold_c__w": np.array([0.1, 0.2])}
        return given

    expected = sent(starts_again=False)
    for name, array in sent(starts_again=True).items():
        np.testing.assert_array_equal(array, expected[name])
    assert capsys.readouterr().err == ""


@SITES
def test_what_a_site_does_not_share_is_trained_by_plain_sgd(
    site: Site, rounds: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a part of the sites takes part in each round, and after the file of the variates was lost."""
    monkeypatch.setenv("GLOBAL_MODEL_PATH", str(tmp_path / "model"))
    here, given, plain = site(0, fraction=0.3), {}, np.zeros(2)
    for round_ in range(1, 6):
        rounds.append(round_)
        if given:  # as an edge does, with the names of the script's file
            write_own_variates(tmp_path / "model", ["net/scaffold_c__w"])
        if round_ == 4:
            (tmp_path / "scaffold.npz").unlink()
            here = site(0, fraction=0.3)
        given = {name: array.copy() for name, array in here.round(given).items()}
        for _ in range(STEPS):
            plain = plain - RATE * CURVES[0] * (plain - GOALS[0])
        np.testing.assert_allclose(given["w"], plain, rtol=1e-12)


@SITES
def test_server_variates_that_the_script_does_not_load_are_told_once(
    site: Site, rounds: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(tmp_path / "model"))
    monkeypatch.setenv("CHECK_FL", "true")
    here, sent = site(0), {}
    for round_, loads in enumerate((True, True, False, False), start=1):
        rounds.append(round_)
        given = {name: array + 0.5 for name, array in sent.items()}  # a mean with another site
        if not loads:
            given["scaffold_c__w"] = sent["scaffold_c__w"]
        sent = {name: array.copy() for name, array in here.round(given).items()}
        assert (("Scaffold", "unloaded") in take_calls(tmp_path / "model")) is not loads
    assert capsys.readouterr().err == f"flavor: Scaffold: {control.NOT_LOADED}\n"
    assert "alone, or of sites that all have the same data)" in control.NOT_LOADED, "their mean is each one's own"


@SITES
def test_a_round_whose_update_was_lost_is_trained_from_the_variates_before_it(site: Site, rounds: list) -> None:
    given = {"w": np.ones(2), "scaffold_c__w": np.array([0.5, -2.0])}
    rounds.append(1)
    site(0).round({})
    rounds.append(2)
    first = {name: array.copy() for name, array in site(0).round(given).items()}
    again = site(0).round(given)
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)
    rounds.append(3)
    assert not np.array_equal(site(0).round(given)["w"], first["w"])


@SITES
def test_a_file_that_cannot_be_used_is_told(
    site: Site, rounds: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"w": np.ones(2), "scaffold_c__w": np.array([0.5, -2.0])}
    path = tmp_path / "scaffold.npz"
    rounds.append(4)
    site(0).round(given)
    expected = f"flavor: Scaffold: the site's own control variates begin from zero: {path} "
    assert capsys.readouterr().err == f"{expected}is not there\n"
    zeros = site(0).round({})  # a new run of the same name: the server's are 0
    assert capsys.readouterr().err == ""
    np.testing.assert_allclose(zeros["scaffold_c__w"], -zeros["w"] / (STEPS * RATE))
    rounds.append(5)
    for content, run, why in ((None, "other", "it is of another run"), (b"no zip file", "mammo", "")):
        if content:
            path.write_bytes(content)
        monkeypatch.setenv("FLAVOR_RUN", run)
        site(0).round(given)
        told = capsys.readouterr().err
        assert told.startswith(f"{expected}cannot be used ({why}")
        assert told.count("\n") == 1


@SITES
def test_a_full_disk_stops_no_training(
    site: Site, rounds: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTPUT_PATH", str(tmp_path / "gone"))
    rounds.append(1)
    site(0).round({})
    assert "scaffold.npz cannot be written (No such file or directory): started again" in capsys.readouterr().err


@SITES
def test_a_round_without_a_step_leaves_the_variates_as_they_are(site: Site) -> None:
    here = site(0)
    first = here.round({})["scaffold_c__w"].copy()
    given = {"w": np.ones(2), "scaffold_c__w": np.array([0.5, -2.0])}
    np.testing.assert_array_equal(here.round(given, steps=0)["scaffold_c__w"], first)


@SITES
def test_training_after_finish_is_refused(site: Site, rounds: list) -> None:
    here = site(0)
    rounds.append(3)
    here.round({})
    with pytest.raises(InvalidSetting, match=r"finish\(\) was called before the end of round 3: call it after"):
        here.round({})


def test_what_a_model_of_torch_has_more(tmp_path: Path) -> None:
    """Buffers, which evaluation leaves out; a parameter that is not trained has none; one without a gradient is 0."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(1, 1))
    model[0].weight.requires_grad_(False)
    plain = set(model.state_dict())
    scaffold = in_torch.Scaffold(model, 0.1)
    more = set(model.state_dict()) - plain
    assert more == {f"scaffold_c__{n}" for n in ("0__bias", "1__weight", "2__weight", "2__bias")}
    assert set(without_control_variates(model.state_dict())) == plain
    with torch.no_grad():
        model.scaffold_c__1__weight += 3
        model.scaffold_c__2__bias += 2
    model[1].weight.grad = torch.ones_like(model[1].weight)
    scaffold.correct()
    assert model[1].weight.grad.tolist() == [[4.0, 4.0]]
    assert model[2].bias.grad.tolist() == [2.0]
    assert torch.nn.Sequential(*model).state_dict().keys() == plain, "the layers themselves are as they were"


def test_a_global_model_that_takes_the_place_of_the_tensors_is_followed(tmp_path: Path) -> None:
    """`assign=True` makes other parameters: gradients of the former ones move nothing, and c would stay 0."""
    model = torch.nn.Linear(2, 1, bias=False)
    scaffold = in_torch.Scaffold(model, 0.5)
    torch.nn.init.ones_(model.weight)
    model.load_state_dict({name: each.clone() for name, each in model.state_dict().items()}, assign=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.ones(1, 2)).sum().backward()
    scaffold.correct()
    optimizer.step()
    scaffold.finish()
    assert model.scaffold_c__weight.tolist() == [[1.0, 1.0]], "the gradient"


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_optimizer_that_is_not_plain_sgd_is_told_once(
    momentum: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local = tmp_path / "model"
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(local))
    monkeypatch.setenv("CHECK_FL", "true")
    model = torch.nn.Linear(3, 1)
    scaffold = in_torch.Scaffold(model, 0.1)
    velocity = [torch.zeros_like(each) for each in model.parameters()]
    for _ in range(4):
        model.zero_grad()
        (model(torch.ones(2, 3)) ** 2).sum().backward()
        scaffold.correct()
        with torch.no_grad():
            for each, kept in zip(model.parameters(), velocity, strict=True):
                kept.mul_(momentum).add_(each.grad)
                each.sub_(0.1 * kept)
    scaffold.finish()
    assert capsys.readouterr().err == (f"flavor: Scaffold: {control.OTHER_STEP}\n" if momentum else "")
    assert (("Scaffold", "step") in take_calls(local)) == bool(momentum)


@pytest.mark.parametrize(("rate", "share", "is_told"), [(RATE, 1.0, False), (10 * RATE, 1.0, True), (RATE, 0.0, True)])
def test_steps_of_arrays_that_are_not_those_of_plain_sgd_are_told_once(
    rate: float, share: float, is_told: bool, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another learning rate, or a correction that is computed and not added."""
    local = tmp_path / "model"
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(local))
    monkeypatch.setenv("CHECK_FL", "true")
    model = {"w": np.ones((2, 2)), "scaffold_c__w": np.ones((2, 2)), "frozen": np.array(3)}
    scaffold = in_numpy.Scaffold(model, rate)
    for _ in range(4):
        gradient = 2 * model["w"]
        model["w"] = model["w"] - RATE * (gradient + share * scaffold.correction(model, {"w": gradient})["w"])
    scaffold.finish(model)
    assert capsys.readouterr().err == f"flavor: Scaffold: {control.OTHER_STEP_OF_ARRAYS}\n" * is_told
    calls = take_calls(local)
    assert (("Scaffold", "step_of_arrays") in calls) is is_told
    assert ("Scaffold", "unseen") not in calls
    with pytest.raises(InvalidSetting, match="'w' is missing from the gradients: pass those of all arrays"):
        scaffold.correction(model, {})
    scaffold.correction(model)
    assert ("Scaffold", "unseen") in take_calls(local)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [1e-6, 3e-3])
def test_a_step_that_the_weights_round_away_is_not_told(
    dtype: Any, rate: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Late in a run that converges, or with a learning rate that decays: steps near the eps of the weights.

    Steps of a tenth of the rate that was given are told.
    """
    for wrong in (1, 10):
        gradient = np.linspace(0.2, 1, 12).astype(dtype)
        arrays = {"w": np.full(12, 5, dtype)}
        here = in_numpy.Scaffold(arrays, wrong * rate)
        model = torch.nn.Module()
        model.w = torch.nn.Parameter(torch.tensor(arrays["w"]))
        there = in_torch.Scaffold(model, wrong * rate)
        for _ in range(3):
            arrays["w"] = arrays["w"] - dtype(rate) * (gradient + here.correction(arrays, {"w": gradient})["w"])
            model.w.grad = torch.tensor(gradient)
            there.correct()
            torch.optim.SGD(model.parameters(), lr=rate).step()
        here.finish(arrays)
        there.finish()
        told = [f"flavor: Scaffold: {what}\n" for what in (control.OTHER_STEP_OF_ARRAYS, control.OTHER_STEP)]
        assert capsys.readouterr().err == "".join(told) * (wrong > 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lr": 0}, "lr must be a finite number, more than 0, and is 0"),
        ({"lr": "0.1"}, "lr must be a finite number, more than 0, and is 0.1"),
        ({"lr": 0.1, "fraction": 2}, "fraction must be 1 at most, and is 2"),
        ({"lr": 0.1, "fraction": 0}, "fraction must be a finite number, more than 0, and is 0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options: dict[str, Any], told: str) -> None:
    for make in (
        lambda: in_numpy.Scaffold({"w": np.zeros(2)}, **options),
        lambda: in_torch.Scaffold(torch.nn.Linear(2, 1), **options),
    ):
        with pytest.raises(InvalidSetting, match=told):
            make()


def test_a_model_without_its_variates_is_refused() -> None:
    model = {"w": np.zeros(2)}
    scaffold = in_numpy.Scaffold(model, 0.1)
    with pytest.raises(InvalidSetting, match="'scaffold_c__w' is missing from the model: save and load all of model"):
        scaffold.correction({"w": np.zeros(2)})
    with pytest.raises(InvalidSetting, match="'w' is missing from the model"):
        scaffold.correction({})
    with pytest.raises(InvalidSetting, match="nothing that is trained"):
        in_numpy.Scaffold({"steps": np.array(3)}, 0.1)
    with pytest.raises(InvalidSetting, match=r"differ by '\.' and '__' alone"):
        in_numpy.Scaffold({"a.b": np.zeros(2), "a__b": np.zeros(2)}, 0.1)


def test_a_schedule_of_the_learning_rate_counts() -> None:
    model = {"w": np.zeros(1)}
    scaffold = in_numpy.Scaffold(model, 0.1)
    for rate, gradient in ((0.1, 2.0), (0.3, 4.0)):
        scaffold.lr = rate
        model["w"] = model["w"] - rate * (gradient + scaffold.correction(model)["w"])
    scaffold.finish(model)
    np.testing.assert_allclose(model["scaffold_c__w"], (0.1 * 2 + 0.3 * 4) / 0.4)


def test_no_server_step_is_taken_with_them() -> None:
    """Momentum would carry them on, and the sites' steps with them."""
    models = [{"w": np.ones(2), "scaffold_c__w": np.full(2, value)} for value in (1.0, 3.0)]
    before = {"w": np.zeros(2), "scaffold_c__w": np.full(2, 7.0)}
    made, _ = aggregate(models, aggregator="diloco", global_model=before)
    assert made["scaffold_c__w"].tolist() == [2.0, 2.0]
    assert made["w"].tolist() != [1.0, 1.0]
