"""The training script of docs/pictures/page.py: that of examples/numpy-digits, at a pace that one can watch.

Each site evaluates the model on images of its own. In round 7, site2's weights are not finite.
"""

import os
import pickle
import random
import time
from pathlib import Path

import numpy as np
from main import train, val

from flavor.cook.utils import Report, SaveInfoJson, SetEvent, WaitEvent

STEPS = 24
PACES_S = {"site1": 0.03, "site2": 0.04, "site3": 0.06}
SLOW = 12  # the round of the picture takes site3 longer than usual


def run() -> None:
    """Train one site's share of all rounds."""
    data = np.load(os.path.join(os.environ["INPUT_PATH"], "data.npz"))
    site = Path(os.environ["INPUT_PATH"]).name
    x, y = data["x_train"], data["y_train"]
    own = len(y) // 4
    model = {"weight": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}
    rng, pace = np.random.default_rng(0), random.Random(site)
    SetEvent("TrainInitDone")
    for _ in range(int(os.environ["TOTAL_ROUNDS"])):
        number = WaitEvent("TrainStarted")
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            model = pickle.loads(Path(os.environ["GLOBAL_MODEL_PATH"]).read_bytes())["state_dict"]
        metrics = val(model, x[:own], y[:own])
        train(model, x[own:], y[own:], rng)
        for step in range(1, STEPS + 1):
            time.sleep(PACES_S[site] * pace.uniform(0.8, 1.2) * (8 if number == SLOW and site == "site3" else 1))
            Report(step, STEPS, f"step {step}", **metrics)
        if number == 7 and site == "site2":
            model["bias"] = model["bias"] * np.nan
        Path(os.environ["LOCAL_MODEL_PATH"]).write_bytes(pickle.dumps({"state_dict": model}))
        counts = {f"basic/confusion_{kind}": -1 for kind in ("tp", "fp", "fn", "tn")}
        named = {name: float(value) for name, value in metrics.items()}
        SaveInfoJson(
            {
                "metadata": {"epoch": 1, "datasetSize": len(y) - own, "importance": 1.0},
                "metrics": counts | named,
            }
        )
        SetEvent("TrainFinished")


if __name__ == "__main__":
    run()
