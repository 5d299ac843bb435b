"""Rounds to a target accuracy of FedAvg, FedProx and SCAFFOLD where each site has few of the ten digits.

Two sites get a shard each of scikit-learn's digits sorted by label, or ten sites two shards each (McMahan et al. 2017,
section 3), so that most sites have two digits. A fifth of each digit is held out. A network of 64-64-10 is trained by
plain SGD, five epochs a round.
All methods have the learning rate that is best for FedAvg (`--choose` compares three). The sites run in this process:
`flavor.cook.numpy` in each, and `aggregators.aggregate` between them. `--run` trains three rounds of SCAFFOLD with
`flavor run`, and compares its model with that of this process.

    python benchmarks/scaffold.py
    python benchmarks/scaffold.py --choose
    python benchmarks/scaffold.py --run
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from held_out import fifth_of_each
from machine import save, table
from numpy.typing import NDArray

from aggregators import aggregate
from flavor.cook.numpy import Scaffold, proximal
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent
from flavor.demo.data import CLASSES, digits

HIDDEN, EPOCHS, BATCH, ROUNDS = 64, 5, 16, 46
SETTINGS = {"two sites, a shard each": (2, 1), "ten sites, two shards each": (10, 2)}
"""Sites, and shards of each; SITES and SHARDS are those of `--choose` and `--run`."""
SITES, SHARDS = SETTINGS["ten sites, two shards each"]
SEEDS, CHOOSING, CHOOSING_ROUNDS = range(5), 100, 30
"""Of the table; and of `--choose`, which compares learning rates by the best accuracy in fewer rounds."""
RATE, RATES = 0.3, (0.03, 0.1, 0.3)
"""The learning rate of the table, which is FedAvg's best one of these."""
METHODS = (("SCAFFOLD", 0.0), ("FedAvg", 0.0), ("FedProx", 0.1))
"""With their µ."""
TARGETS = (0.95, 0.97)
CLAIM = {0.95: 25, 0.97: 46}
"""The most rounds that SCAFFOLD may take to each target, on each seed, in the first setting."""
RUN_ROUNDS = 3

Array = NDArray[Any]
Model = dict[str, Any]
Data = tuple[Array, Array]


def initial(seed: int, inputs: int) -> Model:
    """The first weights, of one seed at all sites."""
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(size=(inputs, HIDDEN)) * np.sqrt(2 / inputs),
        "b1": np.zeros(HIDDEN),
        "w2": rng.normal(size=(HIDDEN, CLASSES)) * np.sqrt(1 / HIDDEN),
        "b2": np.zeros(CLASSES),
    }


def gradients(model: Model, x: Array, y: Array) -> Model:
    """Of the mean cross entropy."""
    hidden = np.maximum(x @ model["w1"] + model["b1"], 0)
    score = hidden @ model["w2"] + model["b2"]
    power = np.exp(score - score.max(axis=1, keepdims=True))
    error = power / power.sum(axis=1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    back = error @ model["w2"].T * (hidden > 0)
    return {"w1": x.T @ back, "b1": back.sum(axis=0), "w2": hidden.T @ error, "b2": error.sum(axis=0)}


def accuracy(model: Model, data: Data) -> float:
    """On these data."""
    hidden = np.maximum(data[0] @ model["w1"] + model["b1"], 0)
    return float(((hidden @ model["w2"] + model["b2"]).argmax(axis=1) == data[1]).mean())


def shares(images: Array, labels: Array, seed: int, sites: int, shards: int) -> tuple[list[Data], Data]:
    """The sites' data, so many shards of the sorted digits each, and the test set."""
    rng = np.random.default_rng(seed)
    held_out = fifth_of_each(labels, rng)
    rest = rng.permutation(np.flatnonzero(~held_out))
    pieces = np.array_split(rest[np.argsort(labels[rest], kind="stable")], sites * shards)
    dealt = rng.permutation(len(pieces)).reshape(sites, shards)
    rows = [np.concatenate([pieces[number] for number in own]) for own in dealt]
    return [(images[own], labels[own]) for own in rows], (images[held_out], labels[held_out])


class Site:
    """One site's script: the same lines as in docs/your-script.md, with a method of its own."""

    def __init__(self, data: Data, method: str, rate: float, mu: float, seed: int, *, epochs: int, batch: int) -> None:
        self.data, self.method, self.rate, self.mu = data, method, rate, mu
        self.epochs, self.batch = epochs, batch
        self.rng = np.random.default_rng(seed)
        self.scaffold: Scaffold | None = None

    def trained(self, model: Model) -> Model:
        """One round from this global model."""
        model, (x, y) = dict(model), self.data
        if self.method == "SCAFFOLD" and self.scaffold is None:
            self.scaffold = Scaffold(model, self.rate)
        term = proximal(model, self.mu) if self.method == "FedProx" else None
        for _ in range(self.epochs):
            order = self.rng.permutation(len(y))
            for start in range(0, len(y), self.batch):
                rows = order[start : start + self.batch]
                step = gradients(model, x[rows], y[rows])
                more = self.scaffold.correction(model) if self.scaffold else term.gradients(model) if term else {}
                for name, gradient in step.items():
                    model[name] = model[name] - self.rate * (gradient + more.get(name, 0))
        if self.scaffold:
            self.scaffold.finish(model)
        return model


def curve(
    data: tuple[list[Data], Data],
    method: str,
    rate: float,
    mu: float,
    seed: int,
    rounds: int,
) -> list[float]:
    """Held-out accuracy after each round, until it reaches the last target."""
    own, test = data
    sites = [
        Site(each, method, rate, mu, 1000 * seed + number, epochs=EPOCHS, batch=BATCH)
        for number, each in enumerate(own)
    ]
    model, found = initial(seed, own[0][0].shape[1]), []
    for _ in range(rounds):
        model = aggregate([site.trained(model) for site in sites], [len(site.data[1]) for site in sites])
        found.append(accuracy(model, test))
        if found[-1] >= TARGETS[-1]:
            break
    return found


def rounds_to(found: Sequence[float], target: float) -> int | None:
    """The first round whose model reaches the target; None if there is none."""
    return next((round_ for round_, reached in enumerate(found, 1) if reached >= target), None)


def choose() -> None:
    """Print how well FedAvg learns with each learning rate, on a seed that is not of the table."""
    data = shares(*digits(), CHOOSING, SITES, SHARDS)
    for rate in RATES:
        found = curve(data, "FedAvg", rate, 0.0, CHOOSING, CHOOSING_ROUNDS)
        print(f"lr {rate:g}: best accuracy {max(found):.4f} in {CHOOSING_ROUNDS} rounds", flush=True)


def measure() -> list[dict[str, Any]]:
    """The table: one row for each setting and method. A curve ends at the last target."""
    images, labels = digits()
    rows = []
    for (setting, dealt), (method, mu) in itertools.product(SETTINGS.items(), METHODS):
        curves = []
        for seed in SEEDS:
            curves.append(curve(shares(images, labels, seed, *dealt), method, RATE, mu, seed, ROUNDS))
            reached = [rounds_to(curves[-1], target) for target in TARGETS]
            print(f"{setting}, {method}, seed {seed}: rounds {reached}, best {max(curves[-1]):.4f}", flush=True)
        row: dict[str, Any] = {"setting": setting, "method": method, "mu": mu}
        for target in TARGETS:
            row[f"rounds to {target:.0%}"] = [rounds_to(found, target) for found in curves]
        row[f"best accuracy in {ROUNDS} rounds"] = [round(max(found), 4) for found in curves]
        rows.append(row)
    return rows


def site_of_a_run() -> None:
    """The script of `--run`: the same site as in this process, with events and files."""
    plan = json.loads(os.environ["PLAN"])
    number = int((Path(os.environ["INPUT_PATH"]) / "number").read_text())
    own, test = shares(*digits(), plan["seed"], SITES, SHARDS)
    site = Site(own[number], "SCAFFOLD", plan["lr"], 0.0, 1000 * plan["seed"] + number, epochs=EPOCHS, batch=BATCH)
    model = initial(plan["seed"], own[0][0].shape[1])
    SetEvent("TrainInitDone")
    while True:
        round_ = WaitEvent("TrainStarted")
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            model = pickle.loads(Path(os.environ["GLOBAL_MODEL_PATH"]).read_bytes())["state_dict"]
        reached = accuracy(model, test)
        model = site.trained(model)
        Path(os.environ["LOCAL_MODEL_PATH"]).write_bytes(pickle.dumps({"state_dict": model}))
        metadata = {"epoch": round_, "datasetSize": len(site.data[1]), "importance": 1.0}
        cells = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
        SaveInfoJson({"metadata": metadata, "metrics": {**cells, "accuracy": reached}})
        SetEvent("TrainFinished")


def compare_with_a_run(rate: float) -> None:
    """Train seed 0 by `flavor run`, and compare its last model with that of this process."""
    data = shares(*digits(), 0, SITES, SHARDS)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SITES):
            (Path(folder) / f"site{number}").mkdir()
            (Path(folder) / f"site{number}" / "number").write_text(str(number))
        words = ["flavor", "run", "-m", f"{sys.executable} {Path(__file__).resolve()} --site", "--json"]
        words += ["--input-glob", f"{folder}/site*/", "--rounds", str(RUN_ROUNDS), "--out", f"{folder}/out"]
        plan = json.dumps({"seed": 0, "lr": rate})
        done = subprocess.run(words, env=os.environ | {"PLAN": plan}, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        path = json.loads(done.stdout)["global_model"]
        made = pickle.loads(Path(path).read_bytes())["state_dict"]
    here = last_model(data, rate)
    apart = max(float(np.abs(made[name] - here[name]).max()) for name in here)
    print(f"after {RUN_ROUNDS} rounds the models of `flavor run` and of this process differ by {apart:.1e} at most")
    print(f"accuracy: {accuracy(made, data[1]):.4f} and {accuracy(here, data[1]):.4f}")


def last_model(data: tuple[list[Data], Data], rate: float) -> Model:
    """The model after the rounds of `--run`, from sites in this process."""
    own, _ = data
    sites = [Site(each, "SCAFFOLD", rate, 0.0, number, epochs=EPOCHS, batch=BATCH) for number, each in enumerate(own)]
    model = initial(0, own[0][0].shape[1])
    for _ in range(RUN_ROUNDS):
        model = aggregate([site.trained(model) for site in sites], [len(site.data[1]) for site in sites])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--site", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.site:
        site_of_a_run()
    elif options.run:
        compare_with_a_run(RATE)
    elif options.choose:
        choose()
    else:
        rows = measure()
        print(table(rows))
        print(save("scaffold", rows))
        scaffold = rows[0]
        for target, most in CLAIM.items():
            found = scaffold[f"rounds to {target:.0%}"]
            if any(each is None or each > most for each in found):
                sys.exit(f"SCAFFOLD took {found} rounds to {target:.0%}, more than {most}")


if __name__ == "__main__":
    main()
