"""The examples whose checkpoints are no tensors, run as their READMEs say, and what their aggregators must refuse."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import pickle
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pages import prepared
from test_examples import EXAMPLES
from warm import starter_with

from tests.conftest import UNPLOTTED
from tests.lazy import Lazy

xgboost = Lazy("xgboost")
LIBRARIES = ("sklearn.datasets", "sklearn.svm", "xgboost")
OWN = ["--checkpoint", "opaque", "--aggregator-main", "python aggregate.py"]


@pytest.fixture
def environment(tmp_path):
    made = prepared(tmp_path, starter_with(*LIBRARIES))
    return made | {"PYTHONPATH": os.pathsep.join([str(UNPLOTTED), made["PYTHONPATH"]])}


@pytest.fixture
def federate(tmp_path, environment):
    """Run an example in a copy of its folder; gives the run's JSON result and the accuracies of evaluate.py by line."""

    def run(name: str, rounds: int) -> tuple[dict, dict[str, float], str]:
        folder, out = tmp_path / name, tmp_path / "out"
        shutil.copytree(EXAMPLES / name, folder)
        options = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
        subprocess.run(["python", "prepare.py"], **options, check=True, timeout=60)
        command = ["flavor", "run", "-m", "python main.py", "--input-glob", "sites/*/", "--rounds", f"{rounds}", *OWN]
        done = subprocess.run([*command, "--out", str(out), "--json"], **options, timeout=110, check=False)
        logs = "\n".join(log.read_text() for log in sorted((out / "logs").glob("*.log")))
        assert done.returncode == 0, f"{done.stderr}\n{logs}"
        result = json.loads(done.stdout)
        assert (result["state"], len(result["rounds"])) == ("finished", rounds)
        shown = subprocess.run(
            ["python", "evaluate.py", result["global_model"]], **options, check=True, timeout=60
        ).stdout
        accuracies = {name: float(value) for name, value in re.findall(r"^  (\S.*?) +(\d\.\d+)$", shown, re.MULTILINE)}
        return result, accuracies, shown

    return run


def _alone(accuracies: dict[str, float]) -> list[float]:
    return [value for name, value in accuracies.items() if name.endswith(" alone")]


@pytest.mark.slow
def test_pooled_support_vectors_beat_every_clinic_alone(federate):
    result, accuracies, shown = federate("svm-pooled", rounds=3)
    assert len(_alone(accuracies)) == 3
    assert accuracies["global model"] > max(_alone(accuracies)) + 0.03
    assert abs(accuracies["global model"] - accuracies["all rows in one place"]) < 0.02
    assert "accuracy" not in result["rounds"][0]["metrics"]  # there was no global model
    assert result["rounds"][-1]["metrics"]["accuracy"] > max(_alone(accuracies))
    (shared, central) = map(int, re.findall(r"also with all in one place +(\d+) of (\d+)", shown)[0])
    assert shared > 0.9 * central


@pytest.mark.slow
def test_bagged_trees_beat_every_site_alone(federate):
    result, accuracies, _ = federate("xgboost-bagged", rounds=4)
    assert len(_alone(accuracies)) == 4
    assert accuracies["global model"] > max(_alone(accuracies)) + 0.05
    assert "accuracy" not in result["rounds"][0]["metrics"]
    assert result["rounds"][-1]["metrics"]["accuracy"] > max(_alone(accuracies))
    made = json.loads(Path(result["global_model"]).read_bytes())["learner"]["gradient_booster"]["model"]
    assert len(made["trees"]) == 4 * 4 * 10  # rounds, sites, digits


# -- a bag of trees is a model of XGBoost


@pytest.fixture(scope="module")
def bagging():
    """The aggregator of xgboost-bagged, as a module."""
    path = EXAMPLES / "xgboost-bagged" / "aggregate.py"
    spec = importlib.util.spec_from_file_location("bagging", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["multi:softprob", "binary:logistic", "reg:squarederror"])
def boost(request):
    """Boosts a model, or None for a new one, on data of its own for each seed."""
    kind = request.param.partition(":")[0]
    parameters = {"objective": request.param, "base_score": 0.3, "max_depth": 3, "eta": 0.3, "nthread": 1}
    if kind == "multi":
        parameters["num_class"] = 4

    def boost(model: xgboost.Booster | None, *, seed: int, iterations: int) -> xgboost.Booster:
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((200, 6)).astype(np.float32)
        score = x[:, seed % 6] + x[:, 5]
        x[rng.random(x.shape) < 0.1] = np.nan
        y = {"multi": np.clip(score + 2, 0, 3).astype(int), "binary": score > 0, "reg": score}[kind]
        start = model.num_boosted_rounds() if model else 0
        made = xgboost.train(parameters, xgboost.DMatrix(x, y), iterations, xgb_model=model)
        made.set_attr(global_iterations=str(start))
        return made

    return boost


@pytest.fixture
def bag(bagging, tmp_path):
    def bag(*models: xgboost.Booster) -> xgboost.Booster:
        paths = [tmp_path / f"{number}.json" for number in range(len(models))]
        for path, model in zip(paths, models, strict=True):
            path.write_bytes(model.save_raw("json"))
        return _booster(bagging.bag([bagging.load(path) for path in paths]))

    return bag


def test_a_bag_predicts_the_sum_of_its_trees_and_can_be_boosted_and_bagged_again(boost, bag):
    rows = np.random.default_rng(99).standard_normal((50, 6)).astype(np.float32)
    rows[::7, 2] = np.nan
    probe = xgboost.DMatrix(rows)

    def margin(model: xgboost.Booster, **options: object) -> np.ndarray:
        return model.predict(probe, output_margin=True, **options)

    sites = [boost(None, seed=seed, iterations=iterations) for seed, iterations in ((0, 1), (1, 3), (2, 2))]
    base = margin(_without_trees(sites[0]))
    first = bag(*sites)
    assert first.num_boosted_rounds() == 6
    np.testing.assert_allclose(margin(first), base + sum(margin(site) - base for site in sites), atol=1e-5)

    again = [boost(first, seed=seed, iterations=2) for seed in (3, 4)]
    second = bag(*again)
    assert second.num_boosted_rounds() == 10
    step = sum(margin(site) - margin(first) for site in again)
    assert np.abs(step).max() > 0.01
    np.testing.assert_allclose(margin(second), margin(first) + step, atol=1e-5)
    np.testing.assert_array_equal(margin(second, iteration_range=(0, 6)), margin(first))
    reordered = bag(*again[::-1])
    np.testing.assert_allclose(margin(reordered), margin(second), atol=1e-5)


def _booster(content: dict) -> xgboost.Booster:
    booster = xgboost.Booster()
    booster.load_model(bytearray(json.dumps(content).encode()))
    return booster


def _without_trees(model: xgboost.Booster) -> xgboost.Booster:
    """The same model with 0 in every leaf: what it predicts is the base score."""
    content = json.loads(model.save_raw("json"))
    for tree in content["learner"]["gradient_booster"]["model"]["trees"]:
        tree["split_conditions"] = [0.0] * len(tree["split_conditions"])
    return _booster(content)


# -- what an aggregator refuses: nobody else looks into an opaque checkpoint


@pytest.fixture(scope="module")
def fine():
    """A site's model that the aggregator takes, as JSON."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 3))
    parameters = {"objective": "multi:softprob", "num_class": 3, "base_score": 0.5, "nthread": 1}
    model = xgboost.train(parameters, xgboost.DMatrix(x, rng.integers(0, 3, 100)), 2)
    model.set_attr(global_iterations="1")
    return json.loads(model.save_raw("json"))


def _set(*path: object):
    """A change of one value in a model: its keys, then what it becomes."""
    *keys, last, value = path

    def change(model: dict) -> None:
        for key in keys:
            model = model[key]
        model[last] = value

    return change


TREES = ("learner", "gradient_booster", "model")
TREE = (*TREES, "trees", 0)
CHANGES = {
    "a child out of bounds": (_set(*TREE, "left_children", 0, 10**6), "tree 0 is broken"),
    "a child before its parent": (_set(*TREE, "right_children", 1, 0), "tree 0 is broken"),
    "a node with one child": (_set(*TREE, "left_children", 0, -1), "tree 0 is broken"),
    "a feature out of bounds": (_set(*TREE, "split_indices", 0, 3), "tree 0 is broken"),
    "an infinite leaf": (_set(*TREE, "split_conditions", -1, float("inf")), "tree 0 is broken"),
    "a categorical split": (_set(*TREE, "split_type", 0, 1), "tree 0 is broken"),
    "a number missing": (_set(*TREE, "default_left", []), "tree 0 is broken"),
    "more nodes than numbers": (_set(*TREE, "tree_param", "num_nodes", "500"), "tree 0 is broken"),
    "a class out of bounds": (_set(*TREES, "tree_info", 0, 3), "class"),
    "a tree missing": (lambda model: model["learner"]["gradient_booster"]["model"]["trees"].pop(), "iterations"),
    "a tree of no iteration": (_set(*TREES, "iteration_indptr", -1, 5), "iterations"),
    "more global iterations than all": (_set("learner", "attributes", "global_iterations", "3"), "fewer iterations"),
    "no note of them": (_set("learner", "attributes", {}), "KeyError: 'global_iterations'"),
    "another booster": (_set("learner", "gradient_booster", "name", "dart"), "dart"),
    "not even a model": (_set("learner", 1), "TypeError"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_broken_model_is_not_bagged(bagging, fine, tmp_path, change):
    path = tmp_path / "model"
    path.write_text(json.dumps(fine))
    bagging.load(path)
    model = copy.deepcopy(fine)
    spoil, message = CHANGES[change]
    spoil(model)
    path.write_text(json.dumps(model))
    with pytest.raises(bagging.Unfit, match=re.escape(f"{path} is not a model as main.py saves it: ") + f".*{message}"):
        bagging.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("learner", "learner_model_param", "base_score", "[1E-1,1E-1,1E-1]"), "learner_model_param"),
        (_set("learner", "objective", "name", "multi:softmax"), "objective"),
        (_set("learner", "attributes", "global_iterations", "0"), "boosts another global model"),
        (_set(*TREE, "split_conditions", 0, 0.125), "boosts another global model"),
    ],
)
def test_models_that_do_not_belong_together_are_not_bagged(bagging, fine, change, message):
    other = copy.deepcopy(fine)
    change(other)
    with pytest.raises(bagging.Unfit, match=f"{message}.* local model 2|local model 2 {message}"):
        bagging.bag([fine, other])


class Touch:
    """Runs something in whoever unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("example", ["svm-pooled", "xgboost-bagged"])
@pytest.mark.parametrize("kind", ["pickle", "npz of a pickle", "empty", "text"])
def test_a_file_of_another_kind_is_one_line_and_runs_nothing(environment, tmp_path, example, kind):
    path = tmp_path / "model.ckpt"
    bait = tmp_path / "was-here"
    if kind == "npz of a pickle":
        with path.open("wb") as file:
            np.savez(file, vectors=np.array([Touch(bait)], dtype=object), labels=np.zeros(1, np.int64))
    else:
        path.write_bytes({"pickle": pickle.dumps(Touch(bait)), "empty": b"", "text": b"[1, 2"}[kind])
    paths = {"localModels": path, "localInfos": "info.json", "globalModel": "global.ckpt", "globalInfo": "info.json"}
    for name, target in paths.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([str(tmp_path / target)]))
    done = subprocess.run(
        ["python", str(EXAMPLES / example / "aggregate.py")],
        env=environment | {"OUTPUT_PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"aggregate.py: {path}")
    assert done.stderr.count("\n") == 1
    assert not bait.exists()
    assert not (tmp_path / "global.ckpt").exists()
