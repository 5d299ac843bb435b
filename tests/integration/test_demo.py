"""`flavor demo`, as a newcomer runs it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from warm import starter_with

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.cli.demo import demo
from flavor.config import RunConfig
from tests.nursery import ABSENT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="the demo's data come with scikit-learn"
)

ROOT = Path(__file__).parents[2]


def flavor(*words: str, before: str = "", cold: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """`flavor WORDS` in a process of its own, started by itself if `cold`, or after the Python statement `before`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLAVOR_")}
    if not before and not cold:
        command = [sys.executable, "-P", "-m", "flavor.cli.main", *words]
        warm = starter_with("sklearn.datasets")
        return warm.run(command, env={**inherited, "COLUMNS": "100", **environment}, timeout_s=110, plotted=False)
    paths = os.pathsep.join(filter(None, [ABSENT, str(ROOT), os.environ.get("PYTHONPATH")]))
    start = ["-c", f"{before}; from flavor.cli.main import main; main()"] if before else ["-m", "flavor.cli.main"]
    return subprocess.run(
        [sys.executable, *start, *words],
        env={**inherited, "PYTHONPATH": paths, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_the_default_demo_shows_what_federation_bought(tmp_path):
    out = tmp_path / "out"
    done = flavor("demo", "--out", str(out), "--json", cold=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)

    of_run = {"run", "state", "rounds", "global_model", "out", "reason", "best", "best_round", "is_met", "evaluation"}
    of_run |= {"goal", "not_judged", "without_value", "shares"}
    assert set(result) == {*of_run, "accuracy"}
    assert result["state"] == "finished"
    assert result["accuracy"]["global"] >= 0.93
    assert set(result["accuracy"]["alone"]) == {"site1", "site2", "site3"}
    assert all(0.2 < alone < 0.5 for alone in result["accuracy"]["alone"].values())
    curve = [round_["metrics"]["accuracy"] for round_ in result["rounds"]]
    assert curve[0] < 0.2
    assert curve[-1] >= 0.9

    assert json.loads((out / "summary.json").read_text()) == result
    assert Path(result["global_model"]).is_file()
    tests = set()
    digits: list[int] = []
    for site in ("site1", "site2", "site3"):
        with np.load(out / "sites" / site / "data.npz") as data:
            digits += np.unique(data["y_train"]).tolist()
            tests.add(data["x_test"].tobytes() + data["y_test"].tobytes())
            assert np.unique(data["y_test"]).tolist() == list(range(10))
    assert digits == list(range(10))  # each at one site only
    assert len(tests) == 1


def test_a_short_demo_says_so_and_ends_with_what_to_do_next(tmp_path):
    done = flavor("demo", "--out", str(tmp_path / "out"), "--rounds", "2", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "site1 alone" in done.stderr
    assert "federated" in done.stderr
    assert 'flavor run -m "python your_script.py" --input-glob "data/site*/"' in done.stderr


def test_a_used_result_folder_is_left_alone(tmp_path):
    (tmp_path / "logs").mkdir()
    done = flavor("demo", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "is not empty: it holds logs, which would be mixed with the run's results" in done.stderr
    assert not (tmp_path / "sites").exists()


def test_without_scikit_learn_one_line_says_what_to_install(tmp_path):
    hide = (
        "import importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *more: None if name == 'sklearn' else find(name, *more)"
    )
    done = flavor("demo", "--out", str(tmp_path / "out"), before=hide)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install '.[demo]' in flavor's folder" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    done = flavor("demo", "--out", str(tmp_path / "file" / "out"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: --out {tmp_path}/file/out: Not a directory\n"


def test_a_demo_that_cannot_begin_leaves_nothing(tmp_path: Path, url: str) -> None:
    """It left its data, and the same command was refused from then on."""
    runs = RunStore(connect(url), "taken", url)
    runs.create(rounds=1, config=RunConfig(rounds=1, store="s").to_mapping())
    new, kept = tmp_path / "new", tmp_path / "kept"
    kept.mkdir()
    for out in (new, kept):
        words = ["--run", "taken", "--rounds", "1", "--out", str(out), "--redis-url", url]
        refused = CliRunner().invoke(demo, words)
        assert "there is a run 'taken' on this Redis already" in refused.stderr
    assert not new.exists()
    assert list(kept.iterdir()) == []
