"""Bagging with XGBoost: each client hands in the trees of its last round; the global model has all trees.

    load_update_xgbmodel(bst, os.environ["GLOBAL_MODEL_PATH"])    # if the file is there
    bst.update(dtrain, bst.num_boosted_rounds())
    save_update_xgbmodel(bst, os.environ["LOCAL_MODEL_PATH"])     # the newest trees alone

The caller passes a booster, so this module does not import xgboost. The models are XGBoost's own JSON, so the run needs
`--checkpoint opaque`, and an aggregator that joins trees and remembers those of earlier rounds (`--init-once`). In
examples/xgboost-bagged, which does not use this module, sites hand in whole boosters, and nothing is remembered. The
aggregator must write *all* trees so far: those that the sites started from, and the new trees of each site. An
aggregator that writes only the new trees is right with one site; with several, they would replace earlier trees.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flavor.errors import CheckpointError, InvalidSetting


def save_update_xgbmodel(bst: Any, localModelPath: str | os.PathLike[str]) -> None:
    """Write only the trees of the booster's last boosting round, as a model in XGBoost's JSON.

    Raises `InvalidSetting` (a `ValueError`) for a booster without trees, and writes nothing.
    """
    _trees(json.loads(bytes(bst.save_raw("json"))), "the booster")
    last = bst.num_boosted_rounds() - 1
    if last < 0:
        raise InvalidSetting("the booster has no trees yet: train a round (bst.update) before its trees are saved")
    Path(localModelPath).write_bytes(bytes(bst[last : last + 1].save_raw("json")))


def load_update_xgbmodel(bst: Any, updateModelPath: str | os.PathLike[str]) -> None:
    """Update the booster to the global model in the file.

    A model with at least as many trees as the booster replaces all of the booster's trees. A model with fewer holds
    only the trees of the last round: they replace as many of the booster's newest trees.

    Raises `CheckpointError` (a `ValueError`) for a file that is no model with trees in XGBoost's JSON, and
    `InvalidSetting` for a booster that is not made of trees. After an error the booster is as it was.
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
