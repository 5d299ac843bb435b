"""Bagging with XGBoost: each client hands in the trees of its last round; the global model of a round is all of them.

    load_update_xgbmodel(bst, os.environ["GLOBAL_MODEL_PATH"])    # from the second round on
    bst.update(dtrain, bst.num_boosted_rounds())
    save_update_xgbmodel(bst, os.environ["LOCAL_MODEL_PATH"])     # the newest trees alone

A booster is passed in, so that nothing here imports xgboost. Its models are XGBoost's own JSON, so the run needs
`--checkpoint opaque` and an aggregator that puts trees together (examples/xgboost-bagged).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def save_update_xgbmodel(bst: Any, localModelPath: str | os.PathLike[str]) -> None:
    """Write the trees of the booster's last boosting round, alone, as a model of XGBoost's JSON."""
    last = bst.num_boosted_rounds() - 1
    Path(localModelPath).write_bytes(bytes(bst[last : last + 1].save_raw("json")))


def load_update_xgbmodel(bst: Any, updateModelPath: str | os.PathLike[str]) -> None:
    """Make the booster follow the global model in the file.

    A model with at least as many trees as the booster has takes its place. One with fewer holds the trees of the last
    round alone: they take the place of the booster's newest trees, as many.
    """
    path = Path(updateModelPath)
    update = json.loads(path.read_text(encoding="utf-8"))
    ours = json.loads(bytes(bst.save_raw("json")))
    new, trees = _trees(update), _trees(ours)
    if len(new["trees"]) < len(trees["trees"]):
        first = len(trees["trees"]) - len(new["trees"])
        for number, tree in enumerate(new["trees"], first):
            tree["id"] = number
        trees["trees"][first:] = new["trees"]
        trees["tree_info"][first:] = new["tree_info"]
        update = ours
    bst.load_model(bytearray(json.dumps(update).encode()))


def _trees(model: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = model["learner"]["gradient_booster"]["model"]
    return part
