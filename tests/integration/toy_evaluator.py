"""An evaluator whose result is known: the accuracy of client i is the mean of the weights by 100, plus i / 1000.

The client's i is the number at the end of its name. Flags make it misbehave at one client, or hold there until the test
lets it go.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

from flavor.cook.metrics import binary_counts
from flavor.cook.utils import SaveInfoJson, SetEvent

CLIENT = os.environ["FLAVOR_CLIENT"]
I = int("".join(c for c in CLIENT if c.isdigit()) or 1)  # noqa: E741


def report(mean: float, image: str) -> None:
    """Write a result.json with every kind of entry, as scripts of the ancestor do: without an import of flavor."""
    output = Path(os.environ["OUTPUT_PATH"])
    (output / "plots").mkdir(exist_ok=True)
    (output / "plots" / "roc.png").write_bytes(png(I, 2))
    (output / "secret").write_text("patient 7")
    matrix = {"title": "Confusion", "x-labels": ["0", "1"], "y-labels": ["0", "1"], "values": [[I, 1], [2, 3]]}
    curve = {"title": "ROC", "labels": ["class 1"], "x-values": [[0, 1]], "y-values": [[0, I / 10]]}
    results = {
        "tables": [{"title": "Overall", "labels": ["accuracy"], "values": [mean / 100 + I / 1000]}],
        "bars": [{"title": "Bars", "labels": ["recall"], "values": [I / 10], "y-axis": "share"}],
        "heatmaps": [{**matrix, "x-axis": "prediction", "y-axis": "truth", "merge": "sum"}],
        "plots": [{**curve, "x-axis": "fpr", "y-axis": "tpr"}],
        "images": [{"title": "ROC", "filename": image}],
    }
    text = json.dumps({"metadata": {"datasetSize": 100 * I}, "results": results})
    (output / "result.json").write_text(text)


def png(width: int, height: int) -> bytes:
    """A grey image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=CLIENT, help="the client that misbehaves")
    parser.add_argument("--fail", default="", help="exit, killed, silent, info")
    parser.add_argument("--in-round", help="it misbehaves in this round alone")
    parser.add_argument("--claim", type=float, help="its accuracy in round 1; it fails in all later ones")
    parser.add_argument("--steep", action="store_true", help="the mean of the weights counts i times")
    parser.add_argument("--bins", type=int, help="with counts of so many bins, times i")
    parser.add_argument("--named", default="one", help="the name of a metric that is missing, or else 1")
    parser.add_argument("--table", type=Path, help="JSON: client to round to its metrics, in place of others")
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--report", action="store_true", help="write result.json instead")
    parser.add_argument("--image", default="plots/roc.png", help="the image that result.json names")
    options = parser.parse_args()
    mine = options.only == CLIENT and options.in_round in (None, os.environ["FLAVOR_ROUND"])
    if mine and options.claim is not None and os.environ["FLAVOR_ROUND"] != "1":
        return 3
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
    if fail == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fail == "silent":
        return 0
    assert os.environ["WEIGHT_PATH"] == os.environ["GLOBAL_MODEL_PATH"]
    assert "FLAVOR_REDIS_URL" not in os.environ
    assert Path(os.environ["INPUT_PATH"]).is_dir()
    Path(os.environ["OUTPUT_PATH"], "seen").write_text(os.environ["FLAVOR_ROUND"])
    with open(os.environ["GLOBAL_MODEL_PATH"], "rb") as file:
        state = pickle.load(file)["state_dict"]
    mean = float(np.mean(state["w"])) * (I if options.steep else 1)
    examples = -1 if fail == "info" else 100 * I
    metrics = {"accuracy": mean / 100 + I / 1000, options.named: None if options.named == "one" else 1}
    if mine and options.claim is not None:
        metrics["accuracy"] = options.claim
    if options.bins:
        metrics |= binary_counts([0, 1, 1], [0.1 * I, 0.2, 0.9], bins=options.bins * I)
    if options.table:
        metrics = json.loads(options.table.read_text())[CLIENT][os.environ["FLAVOR_ROUND"]]
    if options.report:
        report(mean, options.image if mine else "plots/roc.png")
        return 0
    SaveInfoJson({"metadata": {"datasetSize": examples}, "metrics": metrics})
    SetEvent("ProcessFinished")
    return 0


if __name__ == "__main__":
    sys.exit(main())
