"""Every example that trains passes check-fl, and trains on where its run is resumed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import prepared
from test_examples import EXAMPLES
from warm import starter_with

from tests.conftest import UNPLOTTED

AGGREGATED = ("-am", "python aggregate.py")
OWN = ("--checkpoint", "opaque", "--aggregator-main", "python aggregate.py")


@dataclass(frozen=True)
class Example:
    """How the README of an example starts it, and the libraries that its script imports."""

    name: str
    libraries: tuple[str, ...] = ()
    prepare: str = "python prepare.py"
    main: str = "python main.py"
    sites: str = "site*/"
    check: Sequence[str] = ()
    run: Sequence[str] = ()


FAST = [
    Example("numpy-digits", ("sklearn.datasets",)),
    Example("shell", prepare="sh prepare.sh", main="sh train.sh"),
    Example("compose", prepare="python data.py sites", main="python train.py", sites="sites/*/"),
]
SLOW = [
    Example("torch-digits", ("torch._dynamo", "sklearn.datasets")),
    Example("lightning-digits", ("torch._dynamo", "sklearn.datasets", "lightning")),
    Example(
        "diloco-char",
        ("torch._dynamo",),
        main="python main.py --steps 4 --batch 8 --lr 8e-3 --warmup 4 --tested 64",
        run=("--aggregator", "diloco", "--compress", "int8", "--init-model", "initial.ckpt"),
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
def test_check_fl_is_content(place, example: Example):
    folder, done = place(example)
    ran = done(
        "check-fl", "-m", example.main, *example.check, "--json", INPUT_PATH=str(min(folder.glob(example.sites)))
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [each for each in json.loads(ran.stdout)["checks"] if each["status"] in ("failed", "warning")] == []


@pytest.mark.parametrize("example", ALL, ids=[example.name for example in (*FAST, *SLOW)])
def test_it_trains_on_where_its_run_is_resumed(place, tmp_path: Path, example: Example):
    _, done = place(example)
    out = tmp_path / "out"
    begun = done(
        *("flavor", "run", "-m", example.main, "--input-glob", example.sites, "--rounds", "2"),
        *("--out", str(out), "--json", *example.run),
    )
    assert begun.returncode == 0, begun.stderr
    resumed = done("flavor", "run", "--resume", str(out), "--rounds", "3", "--json")
    logs = "\n".join(log.read_text() for log in sorted((out / "logs").glob("*.log")))
    assert resumed.returncode == 0, resumed.stderr + logs
    rounds = json.loads(resumed.stdout)["rounds"]
    assert len(rounds) == 3
    assert "unchanged" not in resumed.stderr + logs
    assert "did not change" not in resumed.stderr + logs
    two, three = (sorted((out / "global").glob(f"round-000{number}.*"))[0].read_bytes() for number in (2, 3))
    assert two != three
    for info in sorted((out / "info").glob("round-*/*.json")):
        assert json.loads(info.read_text())["metadata"]["epoch"] == int(info.parent.name[-4:])
    if example.name == "lightning-digits":  # three rounds are three epochs of one fit
        assert [each["metrics"]["epochs"] for each in rounds] == [1, 2, 3]
