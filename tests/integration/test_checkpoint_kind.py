"""A package's own kind of checkpoint: inspected, aggregated by the user's command, and given back to the trainer."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from pages import prepared

from tests.conftest import UNPLOTTED

_, _, PAGE = (
    (Path(__file__).parents[2] / "docs/aggregators.md").read_text().partition("## Checkpoints of a kind of your own")
)
KIND, POINT = (re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1] for language in ("python", "toml"))
MAIN = """
import json, os
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

SetEvent("TrainInitDone")
for epoch in range(int(os.environ["TOTAL_ROUNDS"])):
    WaitEvent("TrainStarted")
    counts = {"tree": 1, "house": 2}
    if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
        counts = json.load(open(os.environ["GLOBAL_MODEL_PATH"]))
    if os.environ["FLAVOR_CLIENT"].endswith("2") and epoch == 1:
        counts = ODD
    json.dump(counts, open(os.environ["LOCAL_MODEL_PATH"], "w"))
    metrics = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
    SaveInfoJson({"metadata": {"epoch": epoch, "datasetSize": 5, "importance": 1.0}, "metrics": metrics})
    SetEvent("TrainFinished")
"""
AGGREGATE = """
import json
from flavor.cook.utils import GetPaths
models = [json.load(open(path)) for path in GetPaths("localModels")]
assert all(path.endswith(".json") for path in GetPaths("localModels"))
total = {word: sum(each[word] for each in models) for word in models[0]}
json.dump(total, open(GetPaths("globalModel")[0], "w"))
"""


@pytest.fixture
def federate(tmp_path: Path):
    """Run two sites where the package that has the kind is installed; the second hands in `odd` in round two."""
    packages, environment = tmp_path / "packages", prepared(tmp_path)
    info = packages / "counts_kind-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counts-kind\nVersion: 1.0\n")
    group = POINT.replace('project.entry-points."flavor.checkpoints"', "flavor.checkpoints")
    (info / "entry_points.txt").write_text(group.replace('"', ""))
    (packages / "counts_kind.py").write_text(KIND)
    (tmp_path / "aggregate.py").write_text(AGGREGATE)

    def run(odd: str, *words: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
        (tmp_path / "main.py").write_text(MAIN.replace("ODD", odd))
        paths = [str(packages)] * installed + [str(UNPLOTTED), environment["PYTHONPATH"]]
        command = ["flavor", "run", "-m", "python main.py", "--edges", "2", "--rounds", "2", "--checkpoint", "counts"]
        return subprocess.run(
            [*command, "--out", str(tmp_path / "out"), "--json", *words],
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


OWN = ("--aggregator-main", "python aggregate.py")


def test_it_is_inspected_aggregated_and_given_back(federate) -> None:
    done = federate("counts", *OWN)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], len(result["rounds"])) == ("finished", 2)
    path = Path(result["global_model"])
    assert path.suffix == ".json"
    assert json.loads(path.read_bytes()) == {"tree": 4, "house": 8}  # each trainer has read the sum of round one
    assert sorted(each.name for each in (path.parent / "global").iterdir()) == ["round-0001.json", "round-0002.json"]


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ('{"tree": 0.5, "house": 1}', "a count is no integer"),
        ('{"tree": 1}', "its words are ['tree']; the global model has ['house', 'tree']"),
    ],
)
def test_an_update_is_refused_in_the_words_of_its_kind(federate, odd: str, why: str) -> None:
    done = federate(odd, *OWN, "--quorum", "1")
    assert done.returncode == 0, done.stderr
    model = Path(json.loads(done.stdout)["global_model"])
    logs = "".join(log.read_text() for log in (model.parent / "logs").glob("*.log"))
    assert why in logs
    assert json.loads(model.read_bytes()) == {"tree": 2, "house": 4}


def test_it_needs_an_aggregator_of_ones_own_and_its_package(federate) -> None:
    done = federate("counts")
    assert (done.returncode, "--checkpoint counts needs an aggregator of your own" in done.stderr) == (2, True)
    done = federate("counts", *OWN, installed=False)
    assert done.returncode == 2
    assert "there are no checkpoints of the kind 'counts' here, only: tensors, opaque" in done.stderr
