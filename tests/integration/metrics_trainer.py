"""A trainer that learns nothing, and reports metrics whose digits and names are of every kind."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np

from flavor.cook.metrics import binary_counts
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

I = int("".join(c for c in os.environ["FLAVOR_CLIENT"] if c.isdigit()))  # noqa: E741
ROUNDS = int(os.environ["TOTAL_ROUNDS"])

SetEvent("TrainInitDone")
for number in range(1, ROUNDS + 1):
    WaitEvent("TrainStarted")
    metrics = {
        **dict.fromkeys((f"basic/confusion_{cell}" for cell in ("tp", "fp", "fn", "tn")), -1),
        "basic/confusion_tp": number,
        "loss": number / (7 * I),
        "f1 (macro, %)": 0.1 + 0.2 * I,
        "val/auc": 1e-300 * number,
        "=cmd()": 2**53 - I,
        "flavor/round": 0.5,
        "weighted/loss": -1 / 3,
        "only" if I == 1 else "others": float(number),
        **binary_counts([0, 1, 1], [0.2, 0.2 + 0.3 * I, 0.1 * number], name="nodule"),
        "count/missed": I,
    }
    with Path(os.environ["LOCAL_MODEL_PATH"]).open("wb") as file:
        pickle.dump({"state_dict": {"w": np.full(4, number, np.float32)}}, file)
    SaveInfoJson({"metadata": {"epoch": 1, "datasetSize": 10 * I + 1, "importance": 1.0}, "metrics": metrics})
    SetEvent("TrainFinished")
