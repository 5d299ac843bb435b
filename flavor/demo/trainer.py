"""The demo's training script, which each edge runs: `python -m flavor.demo.trainer SEED`.

It is an ordinary script: it uses three events and a few paths, and knows nothing of the other sites.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent
from flavor.demo.data import SiteData
from flavor.demo.model import Model, evaluated, initial, trained


def main(seed: int) -> None:
    """Train in each round; `WaitEvent` ends the process when the run is over."""
    site = SiteData.load(Path(os.environ["INPUT_PATH"]))
    SetEvent("TrainInitDone")
    while True:
        round_ = WaitEvent("TrainStarted")
        model = global_model() or initial(seed)
        accuracy, loss = evaluated(model, site.x_test, site.y_test)
        model = trained(model, site.x_train, site.y_train, round_=round_, seed=seed)
        with open(os.environ["LOCAL_MODEL_PATH"], "wb") as file:
            pickle.dump({"state_dict": model}, file)
        SaveInfoJson(
            {
                "metadata": {"epoch": round_, "datasetSize": len(site.y_train), "importance": 1.0},
                "metrics": {
                    # Ten classes have no single confusion matrix: not tracked.
                    "basic/confusion_tp": -1,
                    "basic/confusion_fp": -1,
                    "basic/confusion_fn": -1,
                    "basic/confusion_tn": -1,
                    "accuracy": accuracy,
                    "loss": loss,
                },
            }
        )
        SetEvent("TrainFinished")


def alone(site: SiteData, *, rounds: int, seed: int) -> Model:
    """The model of a site that takes no part in the run: from the same start, by the same steps, never averaged."""
    model = initial(seed)
    for round_ in range(1, rounds + 1):
        model = trained(model, site.x_train, site.y_train, round_=round_, seed=seed)
    return model


def global_model() -> Model | None:
    """The global model, if the run has one; a new run has none in its first round."""
    try:
        with open(os.environ["GLOBAL_MODEL_PATH"], "rb") as file:
            model: Model = pickle.load(file)["state_dict"]
    except FileNotFoundError:
        return None
    return model


if __name__ == "__main__":
    main(int(sys.argv[1]))
