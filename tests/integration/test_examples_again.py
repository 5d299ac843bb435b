"""Every example that trains passes check-fl, and learns as its README says, also where its run is resumed."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import prepared
from test_examples import EXAMPLES, read_tensor
from warm import starter_with

from tests.conftest import UNPLOTTED
from tests.lazy import Lazy

torch = Lazy("torch")
AGGREGATED = ("-am", "python aggregate.py")
PARAMETERS = 106_240
"""Of the transformer of `diloco-char`."""
OWN = ("--checkpoint", "opaque", "--aggregator-main", "python aggregate.py")


@dataclass(frozen=True)
class Example:
    """How the README of an example starts it, and the libraries that its script imports."""

    name: str
    libraries: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """Libraries that the tests do not bring: without them the example is skipped."""
    prepare: str = "python prepare.py"
    main: str = "python main.py"
    sites: str = "site*/"
    check: Sequence[str] = ()
    run: Sequence[str] = ()
    begun: int = 2
    """The rounds before the run is resumed."""
    rounds: int = 3
    began: Callable[[dict], None] = lambda result: None
    """Looks at the result of these rounds."""
    learned: Callable[[dict], None] = lambda result: None
    """Looks at the result of the whole run."""


def torch_digits_learned(result: dict) -> None:
    """From digits that no site has all of."""
    assert result["rounds"][0]["metrics"]["accuracy"] < 0.3
    assert result["rounds"][-1]["metrics"]["accuracy"] > 0.7
    assert result["global_model"].endswith(".ckpt")


def fedprox_learned(result: dict) -> None:
    """Of five epochs in each round, as the mean of models that stay near to each other."""
    assert result["rounds"][0]["metrics"]["accuracy"] < 0.3
    assert result["rounds"][-1]["metrics"]["accuracy"] > 0.6


def scaffold_learned(result: dict) -> None:
    """The model has its control variates beside its weights, and learned from steps that they corrected."""
    fedprox_learned(result)
    state = torch.load(result["global_model"], weights_only=True)["state_dict"]
    assert len(state) == 8
    assert all(state[f"scaffold_c__{name.replace('.', '__')}"].any() for name in ("0.weight", "2.bias"))


def fedbn_learned(result: dict) -> None:
    """Sites that keep their own normalisation: where it is averaged, no round reaches 0.85."""
    assert result["rounds"][-1]["metrics"]["accuracy"] > 0.9
    state = torch.load(result["global_model"], weights_only=True)["state_dict"]
    assert sorted(state) == ["hidden.bias", "hidden.weight", "output.bias", "output.weight"]


def lightning_learned(result: dict) -> None:
    """Three rounds are three epochs of one fit: its epoch stands beside the weights of each global model."""
    assert [round_["metrics"]["epochs"] for round_ in result["rounds"]] == [1, 2, 3]
    assert result["rounds"][0]["metrics"]["accuracy"] < 0.3
    assert result["rounds"][-1]["metrics"]["accuracy"] > result["rounds"][0]["metrics"]["accuracy"] + 0.1


def shell_learned(result: dict) -> None:
    """Weights that no site can learn alone."""
    assert result["rounds"][0]["metrics"]["mse"] > 1
    assert result["rounds"][-1]["metrics"]["mse"] < 0.05
    assert all(len(round_["clients"]) == 3 for round_ in result["rounds"])
    weight = read_tensor(Path(result["global_model"]), "weight")
    assert weight == pytest.approx([3, -2, 1], abs=0.1)
    assert read_tensor(Path(result["global_model"]), "bias") == pytest.approx([0.5], abs=0.05)


def diloco_began(result: dict) -> None:
    """The third round of a run that nothing has interrupted trains on, too."""
    losses = [round_["metrics"]["loss"] for round_ in result["rounds"]]
    assert [len(round_["clients"]) for round_ in result["rounds"]] == [4] * 3
    assert losses[0] == pytest.approx(4.56, abs=0.05)
    assert max(losses[1:]) < 4


def diloco_learned(result: dict) -> None:
    """Four sites train a transformer together."""
    losses = [round_["metrics"]["loss"] for round_ in result["rounds"]]
    assert losses[0] == pytest.approx(4.56, abs=0.05)  # ln 96: all characters are alike to the first weights
    assert losses[-1] < 3.5
    assert [len(round_["clients"]) for round_ in result["rounds"]] == [4] * 6
    for round_ in result["rounds"]:  # a byte a parameter; the rest is names, shapes and scales
        assert PARAMETERS < round_["bytes"] / 4 < 1.08 * PARAMETERS
    state = torch.load(result["global_model"], weights_only=True)["state_dict"]
    assert sum(tensor.numel() for tensor in state.values()) == PARAMETERS


def lora_learned(result: dict) -> None:
    """The adapters of three sites, and of the frozen model nothing else crosses the wire."""
    losses = [round_["metrics"]["loss"] for round_ in result["rounds"]]
    assert losses[-1] < losses[0]
    assert all(0 < round_["metrics"]["merge/lora_residual"] < 0.5 for round_ in result["rounds"])


FAST = [
    Example("numpy-digits", ("sklearn.datasets",)),
    Example("shell", prepare="sh prepare.sh", main="sh train.sh", rounds=4, learned=shell_learned),
    Example("compose", prepare="python data.py sites", main="python train.py", sites="sites/*/"),
]
SLOW = [
    Example("torch-digits", ("torch._dynamo", "sklearn.datasets"), rounds=6, learned=torch_digits_learned),
    Example("fedprox-digits", ("torch._dynamo", "sklearn.datasets"), learned=fedprox_learned),
    Example("scaffold-digits", ("torch._dynamo", "sklearn.datasets"), learned=scaffold_learned),
    Example(
        "fedbn-digits",
        ("torch._dynamo", "sklearn.datasets"),
        check=("--local", "bn*"),
        run=("--local", "bn*"),
        rounds=6,
        learned=fedbn_learned,
    ),
    Example("lightning-digits", ("torch._dynamo", "sklearn.datasets", "lightning"), learned=lightning_learned),
    Example(
        "diloco-char",
        ("torch._dynamo",),
        main="python main.py --steps 4 --batch 8 --lr 8e-3 --warmup 4 --tested 64",
        run=("--aggregator", "diloco", "--compress", "int8", "--init-model", "initial.ckpt"),
        begun=3,
        rounds=6,
        began=diloco_began,
        learned=diloco_learned,
    ),
    Example(
        "lora",
        ("torch._dynamo",),
        needs=("peft", "transformers"),
        prepare=f"python prepare.py {EXAMPLES / 'diloco-char' / 'data' / 'tragedies.txt.xz'}",
        run=("--aggregator", "lora-exact"),
        learned=lora_learned,
    ),
    Example(
        "svm-pooled",
        ("sklearn.datasets", "sklearn.svm"),
        sites="sites/*/",
        check=("--ignore-ckpt", *AGGREGATED),
        run=OWN,
    ),
    Example(
        "xgboost-bagged",
        ("sklearn.datasets", "sklearn.svm", "xgboost"),
        sites="sites/*/",
        check=("--ignore-ckpt", *AGGREGATED),
        run=OWN,
    ),
]
ALL = [*FAST, *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW)]


@pytest.fixture
def place(tmp_path):
    """A copy of the folder of an example, with its data; what runs a command in it, and gives what it printed."""

    def make(example: Example):
        if lacking := [name for name in example.needs if importlib.util.find_spec(name) is None]:
            pytest.skip(f"{example.name} needs {', '.join(lacking)}")
        environment = prepared(tmp_path, starter_with(*example.libraries))
        if "lightning" not in example.libraries:  # that imports matplotlib
            environment["PYTHONPATH"] = os.pathsep.join([str(UNPLOTTED), environment["PYTHONPATH"]])
        folder = tmp_path / example.name
        shutil.copytree(EXAMPLES / example.name, folder)

        def done(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
            options = {"capture_output": True, "text": True, "timeout": 110}
            return subprocess.run(words, cwd=folder, env=environment | more, check=False, **options)

        assert done(*example.prepare.split()).returncode == 0
        return folder, done

    return make


def test_no_example_that_trains_is_left_out():
    scripts = [path for ending in ("py", "sh") for path in EXAMPLES.glob(f"*/*.{ending}")]
    training = {path.parent.name for path in scripts if "TrainStarted" in path.read_text()}
    assert training == {example.name for example in (*FAST, *SLOW)}


@pytest.mark.parametrize("example", ALL, ids=[example.name for example in (*FAST, *SLOW)])
def test_check_fl_is_content_and_a_run_learns(place, tmp_path: Path, example: Example, subtests):
    folder, done = place(example)
    with subtests.test("check-fl is content"):
        check_fl_is_content(folder, done, example)
    with subtests.test("a run learns, and trains on where it is resumed"):
        learns_and_trains_on_where_its_run_is_resumed(done, tmp_path / "out", example)


def check_fl_is_content(folder: Path, done: Callable, example: Example) -> None:
    ran = done(
        "check-fl", "-m", example.main, *example.check, "--json", INPUT_PATH=str(min(folder.glob(example.sites)))
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [each for each in json.loads(ran.stdout)["checks"] if each["status"] in ("failed", "warning")] == []


def learns_and_trains_on_where_its_run_is_resumed(done: Callable, out: Path, example: Example) -> None:
    begun = done(
        *("flavor", "run", "-m", example.main, "--input-glob", example.sites, "--rounds", str(example.begun)),
        *("--out", str(out), "--json", *example.run),
    )
    assert begun.returncode == 0, begun.stderr
    example.began(json.loads(begun.stdout))
    resumed = done("flavor", "run", "--resume", str(out), "--rounds", str(example.rounds), "--json")
    logs = "\n".join(log.read_text() for log in sorted((out / "logs").glob("*.log")))
    assert resumed.returncode == 0, resumed.stderr + logs
    result = json.loads(resumed.stdout)
    assert (result["state"], len(result["rounds"])) == ("finished", example.rounds)
    with open(out / "metrics.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == example.rounds
    assert "unchanged" not in resumed.stderr + logs
    assert "did not change" not in resumed.stderr + logs
    numbers = (example.begun, example.begun + 1)
    before, after = (sorted((out / "global").glob(f"round-{number:04}.*"))[0].read_bytes() for number in numbers)
    assert before != after
    for info in sorted((out / "info").glob("round-*/*.json")):
        assert json.loads(info.read_text())["metadata"]["epoch"] == int(info.parent.name[-4:])
    example.learned(result)
