"""DiLoCo beside its alternatives: held-out loss after the same number of steps, and bytes sent, on real text.

Four workers hold a quarter each of eight plays (1.1 million characters) and train the character-level transformer of
examples/diloco-char, 106,240 parameters, for 600 steps of AdamW, each on one thread. Every method has the same initial
weights, the same batches in the same order and the same schedule; all are tested on the last twentieth of each quarter,
which no worker trains on. Everything runs in this process: the workers exchange updates by `flavor.checkpoints.encode`,
as an edge does, and by the aggregation engine, as an aggregator does, without Redis.

    sync          one model; each step averages the four workers' gradients
    diloco        H = 20 local steps, then the mean and Nesterov's step (lr 0.7, momentum 0.9)
    diloco-bf16, diloco-int8           the same, what is sent being compressed
    diloco-int8+feedback, -int8+dither what one might add to it: the rounding error of a round is sent in the next;
                                       rounding by chance, without bias
    diloco-half, diloco-half-own       every update is lost with probability 1/2, and its worker goes on from the global
                                       model, as a late edge of a run does, or from its own parameters
    fedavg        H = 20 local steps, then the mean
    ancestor      H = 20 local steps; the mean of the pseudogradients *becomes* the weights
    alone         each worker for itself, on its quarter; the best of the four counts

    python benchmarks/diloco.py
    python benchmarks/diloco.py --seeds 1 --only sync,diloco
    python benchmarks/diloco.py --plot           # and benchmarks/diloco.png, loss by bytes sent
    python benchmarks/diloco.py fair --help      # each method with its own best learning rates: diloco_fair.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diloco_workers import WORKERS, CharModel, Model, Setting, Worker, evaluated, in_step, quarters
from machine import save, table

from aggregators import parse, run
from aggregators.state import ServerState
from aggregators.updates import ClientModel
from flavor.checkpoints import Encoding, TensorFile, TensorFileWriter, TensorSpec, encode

PLOT = Path(__file__).with_name("diloco.png")


@dataclass(frozen=True)
class Method:
    name: str
    rule: str = "diloco"
    kind: str = ""  # of compression
    lost: float = 0.0
    goes_on: str = "global"
    feedback: bool = False
    dither: bool = False


METHODS = {
    method.name: method
    for method in [
        Method("sync"),
        Method("diloco"),
        Method("diloco-bf16", kind="bf16"),
        Method("diloco-int8", kind="int8"),
        Method("diloco-int8+feedback", kind="int8", feedback=True),
        Method("diloco-int8+dither", kind="int8", dither=True),
        Method("diloco-half", lost=0.5),
        Method("diloco-half-own", lost=0.5, goes_on="own"),
        Method("fedavg", rule="fedavg"),
        Method("ancestor", rule="ancestor"),
        Method("alone"),
    ]
}


def texts() -> tuple[list[torch.Tensor], torch.Tensor]:
    """The workers' quarters, and the held-out text."""
    return [own for own, _ in quarters()], torch.cat([held_out for _, held_out in quarters()])


class Curve:
    """Steps, bytes sent by one worker, held-out loss."""

    def __init__(self, text: torch.Tensor, setting: Setting) -> None:
        self.points: list[tuple[int, float, float]] = []
        self._text, self._every, self._last = text, 2 * setting.every, setting.steps

    def add(self, step: int, sent: float, model: CharModel) -> None:
        if step % self._every == 0 or step == self._last:
            self.points.append((step, sent, evaluated(model, self._text)))


def written(path: Path, model: Model) -> int:
    """Write a model as an edge puts it into the store; its size."""
    specs = [TensorSpec(name, array.dtype, array.shape) for name, array in model.items()]
    with TensorFileWriter(path, specs) as writer:
        for spec in writer.specs:
            writer.write(spec.name, model[spec.name])
    return writer.size_bytes


def synchronous(seed: int, setting: Setting, folder: Path) -> Curve:
    shards, held_out = texts()
    workers = [Worker(number, seed, shard, setting) for number, shard in enumerate(shards)]
    lead = workers[0]
    curve = Curve(held_out, setting)
    a_step = written(folder / "gradients", lead.parameters())  # gradients have the parameters' names and shapes
    curve.add(0, 0, lead.model)
    for step in range(1, setting.steps + 1):
        in_step(workers)
        curve.add(step, step * a_step, lead.model)
    return curve


def alone(seed: int, setting: Setting) -> Curve:
    """The curve of the worker that ends best."""
    shards, held_out = texts()
    curves = []
    for number, shard in enumerate(shards):
        worker = Worker(number, seed, shard, setting)
        curves.append(Curve(held_out, setting))
        curves[-1].add(0, 0, worker.model)
        for step in range(2 * setting.every, setting.steps + 1, 2 * setting.every):
            worker.train(2 * setting.every)
            curves[-1].add(step, 0, worker.model)
    return min(curves, key=lambda curve: curve.points[-1][2])


class Sender:
    """What one worker's edge does: its parameters to a file, by the product's own encoder."""

    def __init__(self, method: Method, folder: Path, number: int, seed: int) -> None:
        self._method, self._path = method, folder / f"update-{number}"
        self._local = folder / f"local-{number}"
        self._residual: Model = {}
        self._rng = np.random.default_rng([seed, number])

    def send(self, local: Model, base: TensorFile) -> tuple[ClientModel, int]:
        if not self._method.kind:
            size = written(self._path, local)
            return ClientModel.of(TensorFile.open(self._path), None), size
        if self._method.feedback:  # what the last rounding kept back is added to this change
            local = {name: array - self._residual.get(name, np.float32(0)) for name, array in local.items()}
        sent = self._dithered(local, base) if self._method.dither else local
        written(self._local, sent)
        encode(self._local, self._path, base, Encoding(self._method.kind, "0" * 64))  # type: ignore[arg-type]
        update = ClientModel.of(TensorFile.open(self._path), base)
        if self._method.feedback:
            self._residual = {name: np.asarray(update.tensors[name]) - array for name, array in local.items()}
        return update, self._path.stat().st_size

    def _dithered(self, local: Model, base: TensorFile) -> Model:
        """Parameters whose change lies on the grid already, each rounded up or down by chance, right on average."""
        block, moved = 4096, {}
        for name, array in local.items():
            change = (base.tensor(name) - array).reshape(-1)
            padded = np.zeros(-(-change.size // block) * block, np.float32)
            padded[: change.size] = change
            rows = padded.reshape(-1, block)
            scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
            steps = np.floor(rows / np.where(scale == 0, 1, scale) + self._rng.random(rows.shape, np.float32))
            grid = (np.clip(steps, -127, 127) * scale).reshape(-1)[: change.size].reshape(array.shape)
            moved[name] = base.tensor(name) - grid
        return moved


def in_rounds(method: Method, seed: int, setting: Setting, folder: Path) -> Curve:
    shards, held_out = texts()
    workers = [Worker(number, seed, shard, setting) for number, shard in enumerate(shards)]
    senders = [Sender(method, folder, number, seed) for number in range(WORKERS)]
    judge, curve = setting.model(), Curve(held_out, setting)
    rule = (
        None
        if method.rule == "ancestor"
        else parse(method.rule, (setting.outer or None) if method.rule == "diloco" else None)
    )
    theta, state = workers[0].parameters(), None
    luck = np.random.default_rng(seed)
    sent, missed = 0, [False] * WORKERS
    judge.load_state_dict(workers[0].model.state_dict())
    curve.add(0, 0, judge)
    for step in range(setting.every, setting.steps + 1, setting.every):
        written(folder / "base", theta)
        base = TensorFile.open(folder / "base")
        updates = []
        for number, worker in enumerate(workers):
            if not (missed[number] and method.goes_on == "own"):
                worker.load(theta)
            worker.train(setting.every)
            update, size = senders[number].send(worker.parameters(), base)
            sent += size / WORKERS
            missed[number] = luck.random() < method.lost
            if not missed[number]:
                updates.append(update.tensors)
        theta, state = combined(rule, updates, theta, state)
        judge.load_state_dict({name: torch.from_numpy(array) for name, array in theta.items()})
        curve.add(step, sent, judge)
    return curve


def combined(
    rule: Any, updates: list[Any], theta: Model, state: ServerState | None
) -> tuple[Model, ServerState | None]:
    if not updates:  # nothing arrived: the global model stays
        return theta, state
    if rule is None:
        return {name: np.mean([theta[name] - u[name] for u in updates], axis=0) for name in theta}, None
    result = run(
        updates, reducer=rule.reducer, server_step=rule.server_step, global_model=theta, state=state, threads=1
    )
    return result.model, result.state


def measured(name: str, seed: int, setting: Setting) -> dict[str, Any]:
    """One method with one seed, in a process of its own."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if name == "sync":
            curve = synchronous(seed, setting, Path(folder))
        elif name == "alone":
            curve = alone(seed, setting)
        else:
            curve = in_rounds(METHODS[name], seed, setting, Path(folder))
    return {"method": name, "seed": seed, "seconds": time.perf_counter() - begun, "curve": curve.points}


def finals(name: str, runs: list[dict[str, Any]]) -> dict[int, float]:
    """The loss after the last step, by seed."""
    return {one["seed"]: one["curve"][-1][2] for one in runs if one["method"] == name}


def beyond(name: str, other: str, runs: list[dict[str, Any]]) -> list[float]:
    """Return by how many percent the loss of `name` exceeds that of `other`, for each seed that both have."""
    ours, theirs = finals(name, runs), finals(other, runs)
    return [100 * (ours[seed] / theirs[seed] - 1) for seed in sorted(ours) if seed in theirs]


def sent(name: str, runs: list[dict[str, Any]]) -> float:
    return statistics.mean(one["curve"][-1][1] for one in runs if one["method"] == name)


def row(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    losses = list(finals(name, runs).values())
    above = beyond(name, "sync", runs)
    megabytes = sent(name, runs) / 1e6
    synchronous_bytes = sent("sync", runs) if above else 0
    return {
        "method": name,
        "loss": f"{statistics.mean(losses):.4f}",
        "least": f"{min(losses):.4f}",
        "most": f"{max(losses):.4f}",
        "over_sync": f"{statistics.mean(above):+.1f} %" if above else "",
        "MB_sent": f"{megabytes:.2f}",
        "fewer_bytes": f"{synchronous_bytes / megabytes / 1e6:.1f}" if megabytes and synchronous_bytes else "",
    }


# method: against which other, and how many percent beyond it the mean over the seeds may be; 0: better on every seed
TARGETS = {
    "diloco": [("sync", 10), ("fedavg", 0), ("alone", 0)],
    "diloco-int8": [("diloco", 0.2)],
    "diloco-int8+feedback": [("diloco", 0.2)],
    "diloco-int8+dither": [("diloco", 0.2)],
    "diloco-bf16": [("diloco", 0.2)],
    "diloco-half": [("diloco", 3)],
    "diloco-half-own": [("diloco", 3)],
}


def target(name: str, runs: list[dict[str, Any]]) -> str:
    """Compare the figures with their targets."""
    told = []
    for other, percent in TARGETS.get(name, []):
        above = beyond(name, other, runs)
        if not above:
            continue
        holds = statistics.mean(above) <= percent if percent else max(above) < 0
        bound = f"within {percent:g} % of {other}" if percent else f"below {other} on every seed"
        shown = f"mean {statistics.mean(above):+.2f}, worst {max(above):+.2f} %"
        told.append(f"{bound}: {'holds' if holds else 'MISSED'} ({shown})")
    return "; ".join(told)


def plot(names: list[str], runs: list[dict[str, Any]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    shown = ["sync", "diloco", "diloco-bf16", "diloco-int8", "diloco-half", "fedavg"]
    for index, name in enumerate(name for name in shown if name in names):
        curves = [one["curve"] for one in runs if one["method"] == name]
        megabytes = np.mean([[point[1] / 1e6 for point in curve] for curve in curves], axis=0)[1:]
        losses = np.array([[point[2] for point in curve] for curve in curves])[:, 1:]
        axes.plot(megabytes, losses.mean(0), marker="o", markersize=3, color=f"C{index}", label=name)
        axes.fill_between(megabytes, losses.min(0), losses.max(0), color=f"C{index}", alpha=0.2, linewidth=0)
    for name, style in (("alone", "--"), ("ancestor", ":")):
        if name in names:
            loss = statistics.mean(finals(name, runs).values())
            axes.axhline(loss, color="grey", linestyle=style, linewidth=1)
            axes.annotate(
                f"{name}, after the last step",
                (0.99, loss),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
            )
    axes.set(
        xlabel="megabytes sent by one worker",
        ylabel="held-out loss, nats a character",
        xscale="log",
        title="Four workers, 600 steps each: mean of the seeds, least to most",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=9)
    FigureCanvasAgg(figure).print_figure(PLOT, dpi=90)


def main() -> None:
    if sys.argv[1:2] == ["fair"]:
        from diloco_fair import main as fair

        fair(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(METHODS), help="methods, by commas")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--plot", action="store_true", help=f"write {PLOT.name} too")
    for field, value in asdict(Setting()).items():
        parser.add_argument(f"--{field.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args()
    setting = replace(Setting(), **{field: getattr(options, field) for field in asdict(Setting())})
    names = options.only.split(",")
    if unknown := set(names) - METHODS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(METHODS)}")
    runs: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(measured, name, seed, setting) for seed in range(options.seeds) for name in names]
        for job in as_completed(jobs):
            runs.append(job.result())
            one = runs[-1]
            print(
                f"{one['method']}, seed {one['seed']}: {one['curve'][-1][2]:.4f} in {one['seconds']:.0f} s", flush=True
            )
    rows = [row(name, runs) for name in names]
    for one in rows:
        one["target"] = target(one["method"], runs)
    kept = [
        {**one, "curves": {r["seed"]: r["curve"] for r in runs if r["method"] == one["method"]}, **asdict(setting)}
        for one in rows
    ]
    print(f"{table(rows)}\n{options.seeds} seeds, {setting}; written to {save('diloco', kept)}")
    if options.plot:
        plot(names, runs)
        print(f"plotted to {PLOT}")


if __name__ == "__main__":
    main()
