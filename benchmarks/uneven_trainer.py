"""The trainer of `uneven.py`: trains the demo's model on scikit-learn's digits, and waits for a given time."""

from __future__ import annotations

import os
import pickle
import sys
import time
from pathlib import Path

from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent
from flavor.demo.data import SiteData
from flavor.demo.model import trained
from flavor.demo.trainer import global_model


def main(wait_s: float, seed: int) -> None:
    """Train in each round, and take `wait_s` seconds longer for it. The command gives the model of round 0."""
    site, number = SiteData.load(Path(os.environ["INPUT_PATH"])), int(os.environ["FLAVOR_CLIENT"][-1])
    SetEvent("TrainInitDone")
    while True:
        round_ = WaitEvent("TrainStarted")
        model = global_model()
        assert model is not None, "the run begins from a model"
        model = trained(model, site.x_train, site.y_train, round_=round_, seed=10 * seed + number)
        time.sleep(wait_s)
        with open(os.environ["LOCAL_MODEL_PATH"], "wb") as file:
            pickle.dump({"state_dict": model}, file)
        counts = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
        metadata = {"epoch": round_, "datasetSize": len(site.y_train), "importance": 1.0}
        SaveInfoJson({"metadata": metadata, "metrics": counts})
        SetEvent("TrainFinished")


main(float(sys.argv[1].split(",")[int(os.environ["FLAVOR_CLIENT"][-1]) - 1]), int(sys.argv[2]))
