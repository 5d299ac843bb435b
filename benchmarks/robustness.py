"""Held-out accuracy of each aggregation rule with and without hostile clients, on real digits.

Ten clients hold equal random shares of scikit-learn's digits; a fifth of each digit is held out. The last two are
hostile: trained honestly to θᵢ, they send θ − 4(θᵢ − θ), the flipped change four times as long. Everything runs in
this process; only `aggregators.aggregate` lies between the clients. Each figure is the mean over seeds, of the
accuracy after the last round.

    python benchmarks/robustness.py
    python benchmarks/robustness.py --plot       # and benchmarks/robustness.png, accuracy by round
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from held_out import fifth_of_each
from machine import save, table

from aggregators import aggregate
from flavor.demo.data import Images, Labels, digits
from flavor.demo.model import Model, evaluated, initial, trained

CLIENTS, HOSTILE, FACTOR = 10, 2, 4
PLOT = Path(__file__).with_name("robustness.png")
# bulyan needs n >= 4f + 3, which is 11 for f=2: it is told f=1 and meets one attacker more than it is made for.
RULES = [
    "mean",
    "median",
    "trimmed_mean:f=2",
    "krum:f=2",
    "multi_krum:f=2",
    "bulyan:f=1",
    "geometric_median",
    "norm_clip:c=median/mean",
    "norm_clip:c=median/median",
]
# rule: (what the accuracy under attack must be, as a check of the table against the claim)
CLAIM = {
    "mean": ("<", 0.2),
    "median": (">", 0.94),
    "trimmed_mean:f=2": (">", 0.94),
    "multi_krum:f=2": (">", 0.94),
    "geometric_median": (">", 0.94),
}


def shares(seed: int) -> tuple[list[tuple[Images, Labels]], tuple[Images, Labels]]:
    """The clients' data and the test set."""
    images, labels = digits()
    rng = np.random.default_rng(seed)
    held_out = fifth_of_each(labels, rng)
    rows = np.array_split(rng.permutation(np.flatnonzero(~held_out)), CLIENTS)
    return [(images[own], labels[own]) for own in rows], (images[held_out], labels[held_out])


def federated(rule: str, rounds: int, seed: int, hostile: int) -> list[float]:
    """The accuracy on the test set after each round."""
    clients, test = shares(seed)
    theta = initial(seed)
    accuracy = []
    for round_ in range(rounds):
        models = []
        for client, (images, labels) in enumerate(clients):
            model = trained(theta, images, labels, round_=round_, seed=seed * CLIENTS + client)
            models.append(flipped(theta, model) if client >= CLIENTS - hostile else model)
        result = aggregate(models, [len(labels) for _, labels in clients], aggregator=rule, global_model=theta)
        assert isinstance(result, dict)
        theta = result
        accuracy.append(evaluated(theta, *test)[0])
    return accuracy


def flipped(theta: Model, model: Model) -> Model:
    """θ − 4(θᵢ − θ)."""
    return {name: theta[name] - np.float32(FACTOR) * (model[name] - theta[name]) for name in theta}


def verdict(rule: str, accuracy: float) -> str:
    if rule not in CLAIM:
        return ""
    sign, bound = CLAIM[rule]
    holds = accuracy < bound if sign == "<" else accuracy > bound
    return f"{sign} {bound}: {'holds' if holds else 'FAILS'}"


def plot(curves: dict[str, dict[str, Any]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    styles = ["-", "--", "-.", ":"]
    for index, (rule, accuracy) in enumerate(curves.items()):
        rounds = np.arange(1, len(accuracy["attacked"]) + 1)
        for axes in (upper, lower):
            label = rule if axes is upper else None
            axes.plot(rounds, accuracy["attacked"], styles[index % 4], color=f"C{index}", label=label, linewidth=1.8)
    upper.plot(rounds, curves["mean"]["honest"], color="black", linewidth=1, label="mean, no attack")
    title = f"{HOSTILE} of {CLIENTS} clients send θ − {FACTOR}(θᵢ − θ)"
    upper.set(ylabel="held-out accuracy", ylim=(0.88, 0.98), title=title)
    lower.set(xlabel="round", ylim=(0, 0.3))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=9)
    FigureCanvasAgg(figure).print_figure(PLOT, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", action="store_true", help=f"write {PLOT.name} too")
    options = parser.parse_args()
    rows, curves = [], {}
    for rule in RULES:
        runs = {
            name: [federated(rule, options.rounds, seed, hostile) for seed in range(options.seeds)]
            for name, hostile in (("honest", 0), ("attacked", HOSTILE))
        }
        curves[rule] = {name: np.mean(values, axis=0) for name, values in runs.items()}
        honest, attacked = ([values[-1] for values in runs[name]] for name in ("honest", "attacked"))
        rows.append(
            {
                "rule": rule,
                "no_attack": statistics.mean(honest),
                "attacked": statistics.mean(attacked),
                "worst_seed": min(attacked),
                "best_seed": max(attacked),
                # the claim is held against the seed that is worst for it
                "claim": verdict(rule, max(attacked) if CLAIM.get(rule, ("",))[0] == "<" else min(attacked)),
            }
        )
    print(f"{table(rows)}\n{options.rounds} rounds, {options.seeds} seeds; written to {save('robustness', rows)}")
    if options.plot:
        plot(curves)
        print(f"plotted to {PLOT}")


if __name__ == "__main__":
    main()
