"""An aggregator with a known result, the weighted mean; flags make it misbehave.

It counts its starts and its rounds in files of its OUTPUT_PATH.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import sys
from pathlib import Path

import numpy as np

from flavor.cook.utils import GetPaths, SetEvent, WaitEvent

OUTPUT = Path(os.environ["OUTPUT_PATH"])


def counted(name: str) -> int:
    path = OUTPUT / name
    path.write_text(path.read_text() + "x" if path.exists() else "x")
    return len(path.read_text())


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--once", action="store_true", help="loop over events")
    parser.add_argument("--fail", default="", help="how it fails; several, by commas: one an aggregation from --at on")
    parser.add_argument("--at", type=int, default=2, help="the aggregation (1, 2, ...) that fails; 0 for all")
    parser.add_argument("--gate", default="", help="a FIFO at which `hold` and `hold-saved` wait")
    return parser.parse_args()


def mean() -> dict[str, np.ndarray]:
    models = []
    for path in GetPaths("localModels"):
        with open(path, "rb") as file:
            models.append(pickle.load(file)["state_dict"])
    sizes = json.loads(Path(GetPaths("globalInfo")[0]).read_text())["metadata"]["datasetSize"]
    return {
        key: np.asarray(sum(size * model[key] for size, model in zip(sizes, models, strict=True)) / sum(sizes)).astype(
            models[0][key].dtype
        )
        for key in models[0]
    }


def save(state: object) -> None:
    with open(GetPaths("globalModel")[0], "wb") as file:
        pickle.dump({"state_dict": state}, file)


def failed(how: str, state: dict[str, np.ndarray], gate: str) -> None:
    match how:
        case "hold":  # and work after all
            Path(gate).read_bytes()
            save(state)
        case "hold-saved":
            save(state)
            Path(gate).read_bytes()
        case "exit3":
            print("cannot average these", file=sys.stderr)
            sys.exit(3)
        case "flood":
            sys.stderr.write(("x" * 99 + "\n") * 10_000 + "the last words\n")
            sys.exit(1)
        case "flood-and-work":
            sys.stderr.write(("x" * 99 + "\n") * 10_000)
            save(state)
        case "nothing":
            print("saved it, I think")
        case "empty":
            Path(GetPaths("globalModel")[0]).touch()
        case "hang":
            print("thinking", flush=True)
            signal.pause()
        case "nan":
            save({key: np.full_like(value, np.nan, dtype=np.float32) for key, value in state.items()})
        case "shape":
            save({key: value[:1] for key, value in state.items()})
        case "missing":
            save({"other": np.zeros(2, np.float32)})
        case "garbage":
            Path(GetPaths("globalModel")[0]).write_bytes(b"\0" * 1000)
        case "info":
            save(state)
            Path(GetPaths("globalInfo")[0]).write_text('{"metrics": {"mIOU": "good"}}')
        case "die-after":  # with --once: it sets AggregateFinished, and ends
            save(state)
            SetEvent("AggregateFinished")
            sys.exit(0)


def main() -> None:
    options = parsed()
    counted("starts")
    while True:
        if options.once:
            WaitEvent("AggregateStarted")
        number = counted("rounds")
        state = mean()
        ways = options.fail.split(",") if options.fail else []
        nth = number - options.at if options.at else 0
        if 0 <= nth < len(ways):
            failed(ways[nth], state, options.gate)
        else:
            save(state)
        if not options.once:
            return
        SetEvent("AggregateFinished")


if __name__ == "__main__":
    main()
