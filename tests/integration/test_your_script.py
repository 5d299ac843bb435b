"""docs/your-script.md: its scripts for scikit-learn, and for languages other than Python, as they are printed."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pages import on_path
from warm import starter_with

from flavor.cook import utils
from flavor.cook.report import flush
from flavor.programs.report_file import read_report
from flavor.records.reported import Reported
from tests.lazy import Lazy

torch = Lazy("torch")
PAGE = (Path(__file__).parents[2] / "docs" / "your-script.md").read_text()
SCHEDULE, SHARDS, REPORT, TIME_LEFT, FEDPROX, FEDPROX_NUMPY, SCAFFOLD, SCAFFOLD_NUMPY, SKLEARN, HELPER = re.findall(
    r"```python\n(.*?)```", PAGE, flags=re.DOTALL
)
PROTOCOL = (Path(__file__).parents[2] / "examples" / "shell" / "README.md").read_text()
(SHELL,) = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)


def test_shards_are_saved_and_loaded_where_the_edge_says():
    """By transformers, which no test needs: `tests/integration/test_sharded_run.py` hands in such folders."""
    compile(SHARDS, "your-script.md", "exec")
    assert set(re.findall(r'os.environ\["(\w+)"\]', SHARDS)) == {"LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH"}


def failures(folder: Path, command: str, *libraries: str) -> list[dict[str, str]]:
    environment = os.environ | {"INPUT_PATH": str(folder), **on_path(folder / "programs")}
    words = [sys.executable, "-P", "-m", "flavor.cli.check_fl", "--json", "-m", command]
    done = starter_with(*libraries).run(words, cwd=folder, env=environment)
    return [check for check in json.loads(done.stdout)["checks"] if check["status"] != "passed"]


def test_reporting_the_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = tmp_path / "model"
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(local))
    exec(REPORT, {"loader": [1, 2, 3], "train": lambda model, batch: 1 / batch, "model": None, "rate": 0.1})
    flush()
    assert read_report(local) == Reported(3, 3, "learning rate 0.1", {"loss": 1 / 3})


def test_a_script_that_runs_out_of_time_takes_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    left, taken = iter((None, 500.0, 59.0)), list[int]()
    monkeypatch.setattr(utils, "TimeLeft", lambda: next(left))
    exec(TIME_LEFT, {"loader": range(1, 1000), "train": lambda model, batch: taken.append(batch), "model": None})
    assert len(taken) == 150


def test_a_schedule_is_placed_by_the_round() -> None:
    """test_examples_again shows that the number goes on in a run that is resumed."""
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}, {"lr": 0.1}])
    for round_ in (1, 2, 5):
        exec(SCHEDULE, {"WaitEvent": lambda event, round_=round_: round_, "optimizer": optimizer})
        assert [group["lr"] for group in optimizer.param_groups] == [0.1 * 0.9 ** (round_ - 1)] * 2


def test_scaffold_leaves_a_first_round_as_it_is_and_hands_in_its_mean_gradient() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    data = [(torch.eye(2), torch.tensor([[3.0], [-1.0]]))] * 100
    start = model.weight.detach().clone()

    def step() -> None:
        with torch.no_grad():
            model.weight -= 0.1 * model.weight.grad

    names = {"loader": data, "criterion": lambda said, y: ((said - y) ** 2).sum() / 2, "model": model}
    exec(SCAFFOLD, names | {"optimizer": SimpleNamespace(zero_grad=model.zero_grad, step=step)})
    assert torch.allclose(model.weight, torch.tensor([[3.0, -1.0]]), atol=1e-3)
    assert torch.allclose(model.scaffold_c__weight, (start - model.weight) / 10, atol=1e-5)

    arrays = {"weight": np.zeros(2)}
    exec(SCAFFOLD_NUMPY, {"model": arrays, "rate": 0.5, "gradient": np.array([2.0, -2.0])})
    assert arrays["weight"].tolist() == [-1.0, 1.0]
    assert arrays["scaffold_c__weight"].tolist() == [2.0, -2.0]


def test_fedprox_keeps_a_model_nearer_to_the_global_one() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    data = [(torch.eye(2), torch.tensor([[3.0], [-1.0]]))] * 100
    start = model.weight.detach().clone()

    def step() -> None:
        with torch.no_grad():
            model.weight -= 0.2 * model.weight.grad

    names = {"loader": data, "criterion": lambda said, y: ((said - y) ** 2).sum() / 2, "model": model}
    exec(FEDPROX, names | {"optimizer": SimpleNamespace(zero_grad=model.zero_grad, step=step)})
    expected = (torch.tensor([[3.0, -1.0]]) + 0.1 * start) / 1.1  # the minimum of the loss with its term
    assert torch.allclose(model.weight, expected, atol=1e-4)

    arrays = {"weight": np.zeros(2)}
    exec(FEDPROX_NUMPY, {"model": arrays, "rate": 0.5, "gradient": np.array([2.0, -2.0])})
    assert arrays["weight"].tolist() == [-1.0, 1.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "own", "told"),
    [
        ("SGDClassifier", [0, 2], ""),
        ("SGDClassifier", [0, 1, 2], ""),
        ("LogisticRegression", [0, 1, 2], ""),
        ("LogisticRegression", [0, 2], "coef is of shape"),
        ("LogisticRegression", [0, 1, 3], "labels other than"),
        ("SGDClassifier", [0, 1, 2, 3], "labels other than"),
    ],
)
def test_a_site_that_lacks_a_label_trains_rows_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimator: str, own: list[int], told: str
) -> None:
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)  # as data of many sites are
    np.savez(tmp_path / "data.npz", x=x, y=np.resize(own, 200))
    script = SKLEARN.replace("[0, 1])", "[0, 1, 2])").replace("((1, x", "((3, x").replace("zeros(1)", "zeros(3)")
    if estimator == "LogisticRegression":
        script = script.replace("partial_fit", "fit").replace(
            'SGDClassifier(loss="log_loss", random_state=0)', "LogisticRegression(warm_start=True, max_iter=3)"
        )
        script = script.replace("import SGDClassifier", "import LogisticRegression")
    monkeypatch.setattr("flavor.cook.utils.SetEvent", lambda event: None)
    monkeypatch.setattr("flavor.cook.utils.WaitEvent", lambda event: 1)
    monkeypatch.setattr("flavor.cook.utils.SaveInfoJson", lambda info: None)
    for name, value in {"INPUT_PATH": tmp_path, "TOTAL_ROUNDS": 2}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("GLOBAL_MODEL_PATH", "LOCAL_MODEL_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "model"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about max_iter
        if told:
            with pytest.raises((AssertionError, ValueError), match=told):
                exec(script, {})
            return
        exec(script, {})
    assert pickle.loads((tmp_path / "model").read_bytes())["state_dict"]["coef"].shape == (3, 5)


@pytest.mark.slow
def test_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(200, 30))
    np.savez(tmp_path / "data.npz", x=x, y=(x.sum(axis=1) > 0).astype(int))
    (tmp_path / "main.py").write_text(SKLEARN)
    assert failures(tmp_path, f"{sys.executable} main.py", "sklearn.datasets", "sklearn.linear_model") == []

    # A script that is started again reads the global model before its first fit
    path = tmp_path / "global"
    monkeypatch.setattr("flavor.cook.utils.SetEvent", lambda event: None)
    monkeypatch.setattr(
        "flavor.cook.utils.WaitEvent",
        lambda event: path.write_bytes(pickle.dumps({"state_dict": {"coef": np.ones((1, 30)), "intercept": [0.0]}})),
    )
    reported: list[dict[str, dict[str, float]]] = []
    monkeypatch.setattr("flavor.cook.utils.SaveInfoJson", reported.append)
    for name, value in {
        "INPUT_PATH": tmp_path,
        "TOTAL_ROUNDS": 1,
        "GLOBAL_MODEL_PATH": path,
        "LOCAL_MODEL_PATH": tmp_path / "local",
    }.items():
        monkeypatch.setenv(name, str(value))
    exec(SKLEARN, {})
    assert reported[0]["metrics"]["accuracy"] == 1.0  # of the global model, which is the true plane


TRAINER = """
import json, sys
import numpy as np

weight, info = sys.argv[1:]
try:
    w = np.loadtxt(weight, delimiter=",", ndmin=2)
except FileNotFoundError:
    w = np.zeros((40, 3))
np.savetxt(weight, w + 0.1 * (np.arange(120).reshape(40, 3) - w), delimiter=",", fmt="%.17g")
metrics = {f"basic/confusion_{which}": -1 for which in ("tp", "fp", "fn", "tn")}
try:
    epoch = json.load(open(info))["metadata"]["epoch"] + 1
except FileNotFoundError:
    epoch = 0
json.dump({"metadata": {"epoch": epoch, "datasetSize": 9, "importance": 1.0}, "metrics": metrics}, open(info, "w"))
"""


@pytest.mark.slow
def test_a_shell_with_the_helper(tmp_path: Path) -> None:
    (tmp_path / "main.sh").write_text(SHELL)
    (tmp_path / "tensors.py").write_text(HELPER)
    (tmp_path / "train.py").write_text(TRAINER)
    (tmp_path / "train.sh").write_text('exec python train.py "$@"\n')
    assert failures(tmp_path, "sh main.sh") == []


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs", "example"])
def test_a_shell_ends_where_its_training_fails(tmp_path: Path, page: str) -> None:
    """It went on, and handed the global model back in each round, of a run that was finished with exit code 0."""
    if page == "docs":
        (tmp_path / "main.sh").write_text(SHELL)
    else:
        (shown,) = re.findall(r"```sh\n(.*?)```", PROTOCOL, flags=re.DOTALL)
        weight = tmp_path / "weight.csv"
        step = f'sh train.sh {weight} info.json\n    python tensors.py pack "$LOCAL_MODEL_PATH" weight={weight}\n'
        (tmp_path / "main.sh").write_text(re.sub(r"\.\.\. .*\n", step, shown))
    (tmp_path / "tensors.py").write_text(HELPER)
    (tmp_path / "train.py").write_text(TRAINER)
    (tmp_path / "train.sh").write_text('[ ! -e once ] || exit 3\ntouch once\nexec python train.py "$@"\n')
    (failed,) = [check for check in failures(tmp_path, "sh main.sh") if check["status"] == "failed"]
    assert (failed["name"], "exit code 3" in failed["detail"]) == ("sets TrainFinished", True), failed


def test_the_helper_gives_back_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = np.random.default_rng(0).normal(size=(1, 5))
    np.savetxt(tmp_path / "a.csv", written, delimiter=",", fmt="%.17g")
    for verb, name in (("pack", "a.csv"), ("unpack", "b.csv")):
        monkeypatch.setattr(sys, "argv", ["tensors.py", verb, str(tmp_path / "model"), f"w={tmp_path / name}"])
        exec(HELPER, {})
    assert (np.loadtxt(tmp_path / "b.csv", delimiter=",", ndmin=2) == written).all()
