"""Bagging with XGBoost: each client hands in the trees of its last round; the global model of a round is all of them.

    load_update_xgbmodel(bst, os.environ["GLOBAL_MODEL_PATH"])    # from the second round on
    bst.update(dtrain, bst.num_boosted_rounds())
    save_update_xgbmodel(bst, os.environ["LOCAL_MODEL_PATH"])     # the newest trees alone

A booster is passed in, so that nothing here imports xgboost. Its models are XGBoost's own JSON, so the run needs
`--checkpoint opaque` and an aggregator that puts trees together and remembers those of earlier rounds (`--init-once`).
In examples/xgboost-bagged, which does without this module, sites hand in whole boosters, and nothing is remembered.
The aggregator writes *all* trees so far, those that the sites started from and the new ones of each. One that writes
the new ones alone is right with one site only: of several, trees of earlier rounds would give way to them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flavor.errors import CheckpointError, InvalidSetting


def save_update_xgbmodel(bst: Any, localModelPath: str | os.PathLike[str]) -> None:
    """Write the trees of the booster's last boosting round, alone, as a model of XGBoost's JSON.

    Raises `InvalidSetting` (a `ValueError`) for a booster without trees; nothing is written then.
    """
    _trees(json.loads(bytes(bst.save_raw("json"))), "the booster")
    last = bst.num_boosted_rounds() - 1
    if last < 0:
        raise InvalidSetting("the booster has no trees yet: train a round (bst.update) before its trees are saved")
    Path(localModelPath).write_bytes(bytes(bst[last : last + 1].save_raw("json")))


def load_update_xgbmodel(bst: Any, updateModelPath: str | os.PathLike[str]) -> None:
    """Make the booster follow the global model in the file.

    A model with at least as many trees as the booster has takes its place. One with fewer holds the trees of the last
    round alone: they take the place of the booster's newest trees, as many.

    Raises `CheckpointError` (a `ValueError`) for a file that is no model of XGBoost's JSON with trees, `InvalidSetting`
    for a booster that is not made of trees; the booster stays as it was.
    """
    path = Path(updateModelPath)
    try:
        update = json.loads(path.read_text(encoding="utf-8"))
        new = _trees(update, str(path))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, InvalidSetting):
        raise CheckpointError(
            f"{path}: no model of XGBoost's JSON with trees (booster gbtree): save it with save_update_xgbmodel"
        ) from None
    ours = json.loads(bytes(bst.save_raw("json")))
    trees = _trees(ours, "the booster")
    if len(new["trees"]) < len(trees["trees"]):
        first = len(trees["trees"]) - len(new["trees"])
        for number, tree in enumerate(new["trees"], first):
            tree["id"] = number
        trees["trees"][first:] = new["trees"]
        trees["tree_info"][first:] = new["tree_info"]
        update = ours
    bst.load_model(bytearray(json.dumps(update).encode()))


def _trees(model: Any, what: str) -> dict[str, Any]:
    try:
        part: dict[str, Any] = model["learner"]["gradient_booster"]["model"]
        if isinstance(part["trees"], list) and isinstance(part["tree_info"], list):
            return part
    except (KeyError, TypeError):  # other boosters (dart, gblinear) have them elsewhere, or have none
        pass
    raise InvalidSetting(f"{what} is not made of trees alone: use XGBoost's booster 'gbtree', its default")
