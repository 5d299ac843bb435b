"""An evaluator whose result is known: the accuracy of client i is the mean of the weights by 100, plus i / 1000.

The client's i is the number at the end of its name. Flags make it misbehave at one client, or hold there until the test
lets it go.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
from pathlib import Path

import numpy as np

from flavor.cook.metrics import binary_counts
from flavor.cook.utils import SaveInfoJson, SetEvent

CLIENT = os.environ["FLAVOR_CLIENT"]
I = int("".join(c for c in CLIENT if c.isdigit()) or 1)  # noqa: E741


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=CLIENT, help="the client that misbehaves")
    parser.add_argument("--fail", default="", help="exit, silent, info")
    parser.add_argument("--bins", type=int, help="with counts of so many bins, times i")
    parser.add_argument("--hold", action="store_true")
    options = parser.parse_args()
    mine = options.only == CLIENT
    if mine and options.hold:
        from flavor.bus.connection import connect

        bus = connect(os.environ["TEST_BUS"])
        bus.rpush(f"test:{os.environ['FLAVOR_RUN']}:{CLIENT}:here", "1")
        bus.blpop([f"test:{os.environ['FLAVOR_RUN']}:{CLIENT}:go"])
        bus.close()
    fail = options.fail if mine else ""
    if fail == "exit":
        print("the secret of patient 7")
        return 3
    if fail == "silent":
        return 0
    assert os.environ["WEIGHT_PATH"] == os.environ["GLOBAL_MODEL_PATH"]
    assert "FLAVOR_REDIS_URL" not in os.environ
    assert Path(os.environ["INPUT_PATH"]).is_dir()
    Path(os.environ["OUTPUT_PATH"], "seen").write_text(os.environ["FLAVOR_ROUND"])
    with open(os.environ["GLOBAL_MODEL_PATH"], "rb") as file:
        state = pickle.load(file)["state_dict"]
    mean = float(np.mean(state["w"]))
    examples = -1 if fail == "info" else 100 * I
    metrics = {"accuracy": mean / 100 + I / 1000, "one": None}
    if options.bins:
        metrics |= binary_counts([0, 1, 1], [0.1 * I, 0.2, 0.9], bins=options.bins * I)
    SaveInfoJson({"metadata": {"datasetSize": examples}, "metrics": metrics})
    SetEvent("ProcessFinished")
    return 0


if __name__ == "__main__":
    sys.exit(main())
