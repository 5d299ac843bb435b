"""A trainer for tests of live nodes: `LOCAL_STEPS` steps of gradient descent on (w - target)², no noise.

The target is the number at the end of the client's name. It writes down what stood in its environment. In round
$HOLD_AT it stands still until the test lets it go.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np

from flavor.bus.connection import connect
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

TARGET = float(os.environ["FLAVOR_CLIENT"].rpartition("-")[2])
RATE, STEPS = float(os.environ["LEARNING_RATE"]), int(os.environ["LOCAL_STEPS"])
GLOBAL, LOCAL = Path(os.environ["GLOBAL_MODEL_PATH"]), os.environ["LOCAL_MODEL_PATH"]

seen = {name: os.environ.get(name) for name in ("LEARNING_RATE", "BATCH_SIZE", "LOCAL_STEPS", "EXTRA", "TOTAL_ROUNDS")}
Path(os.environ["OUTPUT_PATH"], "seen.json").write_text(json.dumps(seen))

state = {
    "layer": {"w": np.full((2, 3), TARGET + 4, np.float32), "h": np.zeros(2, np.float16)},
    "mask": np.array([[0, -np.inf], [0, 0]], np.float32),  # a constant buffer, as transformers have
    "steps": np.int64(0),
}
if os.environ.get("FLAVOR_CLIENT") == os.environ.get("OTHER_MASK"):
    state["mask"][1, 0] = -np.inf
SetEvent("TrainInitDone")
while True:
    number = WaitEvent("TrainStarted")
    if GLOBAL.exists():
        state = pickle.loads(GLOBAL.read_bytes())["state_dict"]
    w = state["layer"]["w"].copy()
    for _ in range(STEPS):
        w -= np.float32(RATE) * np.float32(2) * (w - np.float32(TARGET))
    state = {"layer": {"w": w, "h": state["layer"]["h"]}, "mask": state["mask"], "steps": state["steps"] + STEPS}
    if os.environ.get("HOLD_AT") == str(number):
        bus = connect(os.environ["FLAVOR_REDIS_URL"])
        prefix = f"test:{os.environ['FLAVOR_RUN']}:{os.environ['FLAVOR_CLIENT']}"
        bus.rpush(f"{prefix}:here", "1")
        bus.blpop([f"{prefix}:go"])
    with open(LOCAL, "wb") as file:
        pickle.dump({"state_dict": state}, file)
    SaveInfoJson(
        {
            "metadata": {"epoch": number, "datasetSize": int(10 * TARGET), "importance": 1.0},
            "metrics": {
                **dict.fromkeys((f"basic/confusion_{cell}" for cell in ("tp", "fp", "fn", "tn")), -1),
                "loss": float(np.mean((w - TARGET) ** 2)),
            },
        }
    )
    SetEvent("TrainFinished")
