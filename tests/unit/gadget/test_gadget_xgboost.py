"""Bagging of XGBoost's trees, with the real library: what is handed in, and what a booster becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flavor.errors import CheckpointError, InvalidSetting
from flavor.gadget.xgboost import load_update_xgbmodel, save_update_xgbmodel
from tests.lazy import Lazy

xgboost = Lazy("xgboost")
RNG = np.random.default_rng(7)
X = RNG.normal(size=(120, 4)).astype(np.float32)
LABELS = {1: (X[:, 0] * X[:, 1] > 0).astype(int), 3: RNG.integers(0, 3, 120)}


def booster(rounds: int, *, classes: int = 1, seed: int = 1, **more: Any) -> xgboost.Booster:
    """One with as many rounds of training, on rows that depend on the seed."""
    objective = {"objective": "multi:softprob", "num_class": 3} if classes == 3 else {"objective": "binary:logistic"}
    words = {**objective, "max_depth": 2, "nthread": 1, "verbosity": 0, **more}
    rows = np.random.default_rng(seed).choice(len(X), 80)
    data = xgboost.DMatrix(X[rows], label=LABELS[classes][rows])
    return xgboost.train(words, data, num_boost_round=rounds)


def margin(model: xgboost.Booster, **options: Any) -> np.ndarray:
    return model.predict(xgboost.DMatrix(X), output_margin=True, **options)


def trees(model: xgboost.Booster) -> list[str]:
    return model.get_dump()


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("rounds", [1, 4])
def test_the_trees_of_the_last_round_are_handed_in_alone(tmp_path: Path, classes: int, rounds: int) -> None:
    trained = booster(rounds, classes=classes)
    before = margin(trained)
    save_update_xgbmodel(trained, tmp_path / "update")
    update = xgboost.Booster(model_file=bytearray((tmp_path / "update").read_bytes()))
    assert (update.num_boosted_rounds(), trees(update)) == (1, trees(trained)[-classes:])
    np.testing.assert_allclose(margin(update), margin(trained, iteration_range=(rounds - 1, rounds)), rtol=1e-5)
    np.testing.assert_array_equal(margin(trained), before)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_global_model_with_all_trees_takes_the_boosters_place(tmp_path: Path, classes: int) -> None:
    ours, theirs = booster(2, classes=classes), booster(3, classes=classes, seed=2)
    (tmp_path / "global").write_bytes(bytes(theirs.save_raw("json")))
    load_update_xgbmodel(ours, tmp_path / "global")
    assert trees(ours) == trees(theirs)
    np.testing.assert_array_equal(margin(ours), margin(theirs))
    data = xgboost.DMatrix(X, label=LABELS[classes])
    ours.update(data, ours.num_boosted_rounds())
    assert ours.num_boosted_rounds() == 4, "and is trained on"


@pytest.mark.parametrize("classes", [1, 3])
def test_the_trees_of_a_round_take_the_place_of_the_boosters_newest(tmp_path: Path, classes: int) -> None:
    """As many as there are; those before stay, and so do the others' numbers."""
    ours, theirs = booster(3, classes=classes), booster(2, classes=classes, seed=2)
    kept = trees(ours)[:-classes]
    expected = margin(ours, iteration_range=(0, 2))
    save_update_xgbmodel(theirs, tmp_path / "update")
    load_update_xgbmodel(ours, tmp_path / "update")
    assert (ours.num_boosted_rounds(), trees(ours)) == (3, [*kept, *trees(theirs)[-classes:]])
    np.testing.assert_allclose(margin(ours, iteration_range=(0, 2)), expected, rtol=1e-5)
    model = json.loads(bytes(ours.save_raw("json")))["learner"]["gradient_booster"]["model"]
    assert [tree["id"] for tree in model["trees"]] == list(range(3 * classes))


def test_what_has_no_trees_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    data = xgboost.DMatrix(X, label=LABELS[1])
    with pytest.raises(InvalidSetting, match=r"no trees yet: train a round \(bst.update\)"):
        save_update_xgbmodel(xgboost.Booster({"objective": "binary:logistic"}, [data]), tmp_path / "update")
    for kind in ("dart", "gblinear"):
        with pytest.raises(InvalidSetting, match="use XGBoost's booster 'gbtree'"):
            save_update_xgbmodel(booster(2, booster=kind), tmp_path / "update")
    assert not (tmp_path / "update").exists()


@pytest.mark.parametrize("content", [b"\xff{", b"{", b"[]", b'{"learner": 3}', b"[" * 100_000, b""])
def test_a_file_that_is_no_model_is_named_and_the_booster_stays(tmp_path: Path, content: bytes) -> None:
    ours = booster(2)
    before = trees(ours)
    (tmp_path / "global").write_bytes(content)
    with pytest.raises(CheckpointError, match="global: no model of XGBoost's JSON with trees"):
        load_update_xgbmodel(ours, tmp_path / "global")
    assert trees(ours) == before
