"""Four sites, one of them six times as slow: time to a loss, asynchronous beside synchronous rounds, on real digits.

The sites hold equal random shares of scikit-learn's digits, so that no site has data that the others lack; a fifth of
each digit is held out. Each site trains the demo's network in each round, 15 steps of SGD, and then waits: the wait
stands for longer computing, 0.5 s at three sites and 3 s at the fourth. Rounds, events, objects and aggregation are
those of `flavor run`, with its own Redis server.

    async       `--mode async:buffer=3`: a round closes with the first three updates, and the slow site trains on
    sync        a round waits for all four
    quorum      `--quorum 3 --round-timeout-s 1`: a round closes with three updates at its deadline, as one that is
                synchronous never closes before that without all of its sites

Each gets as many rounds as give about the same number of updates, and so of samples. Loss is the mean cross-entropy of
a global model on the held-out images, in nats; seconds count from the opening of round 1 to the closing of the first
round whose loss is below the target.

    python benchmarks/uneven.py
    python benchmarks/uneven.py --updates 24 --seeds 1
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import save, table

from flavor.checkpoints import read
from flavor.demo.data import CLASSES, SiteData, digits
from flavor.demo.model import evaluated, initial

SITES, FAST_S, SLOW_S = 4, 0.5, 3.0
MODES: dict[str, tuple[tuple[str, ...], int]] = {
    "async": (("--mode", "async:buffer=3"), 3),
    "sync": ((), 4),
    "quorum": (("--quorum", "3", "--round-timeout-s", "1"), 3),
}
"""The options of each mode, and the updates with which its rounds close."""
TRAINER = Path(__file__).with_name("uneven_trainer.py")


def shares(folder: Path, seed: int) -> SiteData:
    """Write the data of each site into a folder of its own, and return those of one, with the test set."""
    images, labels = digits()
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for digit in range(CLASSES):
        of_digit = rng.permutation(np.flatnonzero(labels == digit))
        held_out[of_digit[: len(of_digit) // 5]] = True
    rows = rng.permutation(np.flatnonzero(~held_out))
    rows = rows[: len(rows) // SITES * SITES].reshape(SITES, -1)  # equal shares: equal weights
    for number, own in enumerate(rows, 1):
        site = SiteData(images[own], labels[own], images[held_out], labels[held_out])
        site.save(folder / f"site{number}")
    return site


def measure(mode: str, updates: int, target: float, seed: int) -> dict[str, Any]:
    """Run one federation to its end, and judge each of its global models."""
    options, closing = MODES[mode]
    rounds = round(updates / closing)
    with tempfile.TemporaryDirectory(prefix="uneven-") as name:
        folder = Path(name)
        test, out, start = shares(folder, seed), folder / "out", folder / "start.pkl"
        start.write_bytes(pickle.dumps({"state_dict": initial(seed)}))
        waits = ",".join(str(each) for each in (*[FAST_S] * (SITES - 1), SLOW_S))
        words = ["run", "-m", f"{sys.executable} {TRAINER} {waits} {seed}", "--input-glob", f"{folder}/site*/"]
        words += ["--rounds", str(rounds), "--init-model", str(start), "--run", "uneven", "--out", str(out), *options]
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "flavor.cli.main", *words], check=False, capture_output=True, text=True
        )
        if ran.returncode != 0:
            raise SystemExit(ran.stderr)
        command = [sys.executable, "-P", "-m", "flavor.cli.main"]
        told = subprocess.run([*command, "log", str(out), "--json"], capture_output=True, text=True, check=True).stdout
        log = [json.loads(line) for line in told.splitlines()]
        credits_ = subprocess.run([*command, "credits", str(out), "--json"], capture_output=True, check=True).stdout
        share = json.loads(credits_)["credits"]
        began_ms = next(each["time_ms"] for each in log if each["event"] == "round.opened")
        closed = {int(each["round"]): each["time_ms"] for each in log if each["event"] == "round.closed"}
        models = {number: next(out.glob(f"**/global/{number:04d}-model-*")) for number in closed}
        losses = {n: evaluated(read(path).tensors, test.x_test, test.y_test)[1] for n, path in models.items()}
    reached = min((n for n, loss in losses.items() if loss < target), default=None)
    last, samples = max(closed), sum(share.values())
    return {
        "mode": mode,
        "rounds": last,
        "updates": round(samples / len(test.y_train)),
        "to_target_s": float("nan") if reached is None else (closed[reached] - began_ms) / 1000,
        "whole_s": (closed[last] - began_ms) / 1000,
        "final_loss": losses[last],
        "slow_site_share": share.get(f"site{SITES}", 0) / samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=96, help="updates of a run, in all of its rounds")
    parser.add_argument("--target", type=float, default=0.25, help="the loss that is to be reached, in nats")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    for mode in MODES:
        runs = [measure(mode, options.updates, options.target, seed) for seed in range(options.seeds)]
        row = {name: statistics.median(run[name] for run in runs) for name in runs[0] if name != "mode"}
        rows.append({"mode": mode, **row})
        print(table(rows[-1:]), flush=True)
    print(f"{table(rows)}\ntarget {options.target} nats; written to {save('uneven', rows)}")


if __name__ == "__main__":
    main()
