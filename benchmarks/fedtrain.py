"""Cost of averaging in aumai_fedtrain: lists beside a plain loop, arrays beside the engine, a round of many nodes.

The loop is the one that a first version would have: over elements, over nodes. Both sides of each ratio run in one
process, by turns, and their results are compared.

    python benchmarks/fedtrain.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from machine import save, table
from pydantic import BaseModel

import aggregators
from aumai_fedtrain import DiLoCoCoordinator, FederatedNode, GlobalState, GradientAverager, LocalUpdate, TrainingConfig


class Plain(BaseModel):
    """What a model without arrays would check."""

    gradients: dict[str, list[float]]


def seconds(*sides: Callable[[], Any], repeats: int) -> list[float]:
    """The median time of each side, taken by turns."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for side, found in zip(sides, times, strict=True):
            began = time.perf_counter()
            side()
            found.append(time.perf_counter() - began)
    return [statistics.median(found) for found in times]


def loop(updates: list[list[float]]) -> list[float]:
    """A plain Python loop."""
    n = len(updates)
    averages = []
    for i in range(len(updates[0])):
        total = 0.0
        for values in updates:
            total += values[i]
        averages.append(total / n)
    return averages


def updates_of(vectors: list[Any]) -> list[LocalUpdate]:
    return [
        LocalUpdate(node_id=f"node-{i:03d}", round_id=1, gradients={"w": vector}, loss=0.5, samples_used=100)
        for i, vector in enumerate(vectors)
    ]


def lists(nodes: int, size: int, repeats: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=size).tolist() for _ in range(nodes)]
    updates = updates_of(vectors)
    ours = GradientAverager.average(updates)["w"]
    np.testing.assert_allclose(ours, loop(vectors), rtol=1e-9, atol=1e-12)
    looped, averaged, built, plain = seconds(
        lambda: loop(vectors),
        lambda: GradientAverager.average(updates),
        lambda: updates_of(vectors),
        lambda: [Plain(gradients={"w": vector}) for vector in vectors],
        repeats=repeats,
    )
    what = f"{nodes} x {size:,} floats"
    return [
        _row(f"average of {what}, lists", "a plain loop", averaged, looped, looped / averaged, ">= 5"),
        _row(f"  with building the updates from {nodes} lists", "a plain loop", averaged + built, looped, None, ""),
        _row("  building alone (checks every number)", "pydantic list[float]", built, plain, plain / built, ""),
    ]


def arrays(nodes: int, size: int, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(0)
        vectors = [rng.normal(size=size).astype(dtype) for _ in range(nodes)]
        updates = updates_of(vectors)
        models = [{"w": vector} for vector in vectors]
        np.testing.assert_array_equal(GradientAverager.average(updates)["w"], aggregators.run(models).model["w"])
        averaged, engine = seconds(
            partial(GradientAverager.average, updates), partial(aggregators.run, models), repeats=5 * repeats
        )
        name = np.dtype(dtype).name
        row = _row(f"average of {nodes} x {size:,} {name}, arrays", "the engine", averaged, engine, None, ">= 0.8")
        rows.append({**row, "ratio": engine / averaged})
    return rows


def from_json(coordinator: DiLoCoCoordinator, state: GlobalState, texts: list[str]) -> GlobalState:
    return coordinator.run_round(state, [LocalUpdate.model_validate(json.loads(text)) for text in texts])


def rounds(nodes: int, size: int, repeats: int) -> list[dict[str, Any]]:
    config = TrainingConfig(
        model_name="m", learning_rate=0.1, batch_size=1, local_steps=1, global_rounds=1, num_nodes=nodes
    )
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=size).tolist() for _ in range(nodes)]
    updates = updates_of(vectors)
    texts = [update.model_dump_json() for update in updates]
    participants = [FederatedNode(node_id=update.node_id, address="") for update in updates]
    rows = []
    for optimizer in (None, "nesterov:lr=0.7,momentum=0.9"):
        coordinator = DiLoCoCoordinator(outer_optimizer=optimizer, initial_weights={"w": [0.0] * size})
        state = coordinator.run_round(coordinator.initialize(config, participants), updates)
        run, parsed = seconds(
            partial(coordinator.run_round, state, updates),
            partial(from_json, coordinator, state, texts),
            repeats=10 * repeats,
        )
        name = (optimizer or "no outer optimizer").partition(":")[0]
        what = f"a round of {nodes} nodes x {size:,} floats, {name}"
        rows.append(_row(what, "20 ms", run, 0.020, 0.020 / run, ">= 1"))
        rows.append(_row("  with reading the updates from JSON", "20 ms", parsed, 0.020, 0.020 / parsed, ""))
    return rows


def _row(what: str, against: str, ours_s: float, other_s: float, ratio: float | None, target: str) -> dict[str, Any]:
    return {
        "what": what,
        "ms": ours_s * 1000,
        "against": against,
        "against_ms": other_s * 1000,
        "ratio": other_s / ours_s if ratio is None else ratio,
        "target": target,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = [
        *lists(10, 1_000_000, options.repeats),
        *arrays(10, 1_000_000, options.repeats),
        *rounds(100, 1_000, options.repeats),
    ]
    print(table(rows))
    print(f"written to {save('fedtrain', rows)}")


if __name__ == "__main__":
    main()
