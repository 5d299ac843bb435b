"""Four sites, one of them six times as slow: time to a loss, asynchronous beside synchronous rounds.

Two tasks: the demo's network on scikit-learn's digits, and the transformer of examples/diloco-char (which needs torch).
The sites have equal random shares of the data. A site trains in each round, and then waits until the round has taken 1
s, or 6 s at the slow site: the wait stands for longer computing. Rounds, events, objects and aggregation are those of
`flavor run`, with its own Redis server.

    async       `--mode async:buffer=3`: a round closes with the first three updates, and the slow site trains on
    constant    the same with `staleness=constant`
    sync        a round waits for all four
    quorum      `--quorum 3 --round-timeout-s 2`: a round closes with three updates at its deadline, as one that is
                synchronous never closes before that without all of its sites

Seconds count from the opening of round 1 to the closing of the first round whose model has a loss below the target.
`final_loss` is that of the last model that has no more than so many updates in it, the same number for all modes.
Figures are medians over the seeds; `over_sync_percent` is the mean difference from `sync` with the same seed, with its
standard error.

`--clock` replaces `flavor run` by a simulated clock: training and aggregation are real, no site waits, and other
programs on the machine change no figure. Use it for many seeds.

    python benchmarks/uneven.py --seeds 3
    python benchmarks/uneven.py --tasks char --clock --seeds 10
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import save, table
from uneven_clock import DEADLINE_S, FAST_S, SLOW_S, Closed, asynchronous, synchronous
from uneven_tasks import SITES, TASKS, Task

from aggregators.staleness import parse_staleness
from flavor.checkpoints import read

BUFFER = 3
MODES: dict[str, tuple[str, ...]] = {
    "async": ("--mode", f"async:buffer={BUFFER}"),
    "constant": ("--mode", f"async:buffer={BUFFER},staleness=constant"),
    "sync": (),
    "quorum": ("--quorum", str(BUFFER), "--round-timeout-s", f"{DEADLINE_S:g}"),
}
TRAINER = Path(__file__).with_name("uneven_trainer.py")
FLAVOR = (sys.executable, "-P", "-m", "flavor.cli.main")


def simulated(task: Task, mode: str, seed: int) -> Iterator[Closed]:
    """Return the rounds of a mode, on the simulated clock."""
    if mode in ("async", "constant"):
        rule = parse_staleness("constant" if mode == "constant" else "polynomial:0.5")
        return asynchronous(task, seed, buffer=BUFFER, rule=rule)
    if mode == "sync":
        return synchronous(task, seed, sites=SITES, round_s=None)
    return synchronous(task, seed, sites=BUFFER, round_s=DEADLINE_S)


def run(name: str, mode: str, seed: int) -> Iterator[Closed]:
    """Return the rounds of one federation, once it has ended."""
    task = TASKS[name]
    rounds = task.updates // (SITES if mode == "sync" else BUFFER)
    with tempfile.TemporaryDirectory(prefix="uneven-") as folder_:
        folder = Path(folder_)
        out, start = folder / "out", folder / "start.pkl"
        start.write_bytes(pickle.dumps({"state_dict": task.initial(seed)}))
        for number in range(SITES):
            (folder / f"site{number + 1}").mkdir()
        waits = ",".join(str(each) for each in (*[FAST_S] * (SITES - 1), SLOW_S))
        words = ["run", "-m", f"{sys.executable} {TRAINER} {name} {waits} {seed}", "--input-glob", f"{folder}/site*/"]
        words += ["--rounds", str(rounds), "--init-model", str(start), "--run", "uneven", "--out", str(out), "--json"]
        ran = subprocess.run([*FLAVOR, *words, *MODES[mode]], check=False, capture_output=True, text=True)
        if ran.returncode != 0:
            raise SystemExit(ran.stderr)
        told = subprocess.run([*FLAVOR, "log", str(out), "--json"], capture_output=True, text=True, check=True).stdout
        log = [json.loads(line) for line in told.splitlines()]
        began_ms = next(each["time_ms"] for each in log if each["event"] == "round.opened")
        closed_ms = {int(each["round"]): each["time_ms"] for each in log if each["event"] == "round.closed"}
        counts = [0] * SITES
        for round_ in json.loads(ran.stdout)["rounds"]:
            for client in round_["clients"]:
                counts[int(client.removeprefix("site")) - 1] += 1
            number = int(round_["round"])
            model = read(next(out.glob(f"**/global/{number:04d}-model-*"))).tensors
            yield Closed((closed_ms[number] - began_ms) / 1000, model, list(counts))


def measured(task: Task, rounds: Iterator[Closed], seed: int) -> dict[str, float]:
    """Judge each global model of a run, up to the updates that all modes have."""
    loss, told = task.loss(seed), list[tuple[float, float]]()
    for closed in rounds:
        if sum(closed.updates) > task.updates:
            break
        told.append((closed.time_s, loss(closed.model)))
        last = closed
    return {
        "rounds": len(told),
        "to_target_s": next((time_s for time_s, found in told if found < task.target), float("nan")),
        "whole_s": told[-1][0],
        "final_loss": told[-1][1],
        "slow_site_percent": 100 * last.updates[-1] / sum(last.updates),
    }


def summed_up(task: str, found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A row for each mode: medians over the seeds, and their ratios to those of `sync`."""
    rows = []
    for mode, runs in found.items():
        row: dict[str, Any] = {"task": task, "mode": mode, "seeds": len(runs)}
        row |= {name: statistics.median(each[name] for each in runs) for name in runs[0]}
        pairs = list(zip(runs, found["sync"], strict=True))
        row["times_faster"] = statistics.median(sync["to_target_s"] / own["to_target_s"] for own, sync in pairs)
        over = [100 * (own["final_loss"] / sync["final_loss"] - 1) for own, sync in pairs]
        error = statistics.stdev(over) / len(over) ** 0.5 if len(over) > 1 else float("nan")
        row["over_sync_percent"] = f"{statistics.mean(over):+.1f} ± {error:.1f}"
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"of {', '.join(TASKS)}; by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clock", action="store_true", help="simulate the clock instead of waiting")
    options = parser.parse_args()
    if unknown := set(options.tasks.split(",")) - TASKS.keys():
        parser.error(f"there is no task {', '.join(sorted(unknown))}; there are: {', '.join(TASKS)}")
    if options.seeds < 1:
        parser.error(f"--seeds takes a whole number from 1, and not {options.seeds}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    for name in options.tasks.split(","):
        found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
        for seed in range(options.seeds):
            for mode, own in found.items():
                rounds = simulated(TASKS[name], mode, seed) if options.clock else run(name, mode, seed)
                own.append(measured(TASKS[name], rounds, seed))
                print(f"{name}, {mode}, seed {seed}: {own[-1]}", flush=True)
        rows += summed_up(name, found)
    name = "-".join(["uneven", *(["clock"] if options.clock else []), *options.tasks.split(",")])
    print(f"{table(rows)}\nwritten to {save(name, rows)}")


if __name__ == "__main__":
    main()
