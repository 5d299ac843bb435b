"""What a local run leaves: models, infos, metrics as table and plot, and a summary."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flavor.bus.runs import RunStore
from flavor.bus.state import RoundState, RoundView, RunView
from flavor.edge.workspace import EXTENSIONS
from flavor.store.info import WEIGHTED, write_json
from flavor.store.links import placed
from flavor.store.objects import ObjectStore
from flavor.store.paths import OPAQUE


@dataclass(frozen=True)
class RoundResult:
    """One closed round."""

    round: int
    seconds: float
    clients: list[str]
    examples: int
    bytes: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Results:
    """A local run as it ended."""

    run: str
    state: str
    reason: str
    rounds: list[RoundResult]
    global_model: str | None
    out: str

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self))


def round_result(view: RoundView, info: dict[str, Any]) -> RoundResult:
    """A closed round with its merged info's scalar metrics."""
    assert view.closed_ms is not None
    verdicts = [view.verdicts[client] for client in view.contributors]
    scalars = {
        name: value
        for name, value in info["metrics"].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return RoundResult(
        round=view.round,
        seconds=(view.closed_ms - view.opened_ms) / 1000,
        clients=list(view.contributors),
        examples=sum(info["metadata"]["datasetSize"]),
        bytes=sum(verdict.size_bytes for verdict in verdicts),
        metrics=scalars,
    )


def collect(runs: RunStore, store: ObjectStore, out: Path) -> Results:
    """Write the result folder of an ended run; every file of it that the run got far enough to have."""
    view = runs.read()
    (out / "global").mkdir(exist_ok=True)
    (out / "info").mkdir(exist_ok=True)
    rounds: list[RoundResult] = []
    for number in range(1, view.round + 1):
        round_ = runs.read_round(number)
        if round_ is None or round_.state is not RoundState.CLOSED:
            continue
        extension = ".ckpt" if view.config.get("checkpoint") == OPAQUE else ".safetensors"
        placed(store.local(round_.path), out / "global" / f"round-{number:04d}{extension}")
        info = json.loads(store.local(round_.info_path).read_text())
        write_json(out / "info" / f"round-{number:04d}.json", info)
        rounds.append(round_result(round_, info))
    model = _final_model(view, store, out) if rounds else None
    results = Results(
        view.run, view.state.value, runs.how_it_ended() or view.reason, rounds, str(model) if model else None, str(out)
    )
    write_metrics(rounds, out / "metrics.csv")
    if rounds:
        plot_metrics(view.run, rounds, out / "metrics.png")
    write_json(out / "summary.json", asdict(results))
    return results


def _final_model(view: RunView, store: ObjectStore, out: Path) -> Path:
    """The last global model in the format that the trainers save."""
    from flavor.store.formats import Format, from_safetensors

    assert view.global_model is not None
    format_ = view.global_model.format or "safetensors"
    target = out / f"global_model{EXTENSIONS[format_]}"
    source = store.local(view.global_model.path)
    if format_ in (OPAQUE, "safetensors"):
        placed(source, target)
    else:
        from_safetensors(source, target, Format(format_))
    return target


def write_metrics(rounds: Sequence[RoundResult], path: Path) -> None:
    """One line a round: its number, seconds, number of clients, examples, bytes, and every scalar metric."""
    names = list(dict.fromkeys(name for result in rounds for name in result.metrics))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "seconds", "clients", "examples", "bytes", *names])
        for result in rounds:
            row = [result.round, result.seconds, len(result.clients), result.examples, result.bytes]
            writer.writerow([*row, *(result.metrics.get(name, "") for name in names)])


def plot_metrics(run: str, rounds: Sequence[RoundResult], path: Path) -> bool:
    """A panel for each metric over rounds, plain and weighted mean; False when matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return False
    names = list(dict.fromkeys(name.removesuffix(WEIGHTED) for result in rounds for name in result.metrics))
    panels = names or ["seconds"]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * lines + 0.4), layout="constrained")
    figure.suptitle(f"{run}: {len(rounds)} rounds")
    x = [result.round for result in rounds]
    for index, name in enumerate(panels):
        axes = figure.add_subplot(lines, columns, index + 1)
        if not names:
            axes.plot(x, [result.seconds for result in rounds], marker="o", markersize=3)
        for suffix, label, style in ((WEIGHTED, "weighted by datasetSize", "-"), ("", "plain mean", "--")):
            y = [result.metrics.get(name + suffix) for result in rounds]
            if any(value is not None for value in y):
                points = [float("nan") if value is None else value for value in y]
                axes.plot(x, points, style, marker="o", markersize=3, label=label)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if index == 0 and names:
            axes.legend(fontsize=8)
    FigureCanvasAgg(figure).print_png(str(path))  # type: ignore[no-untyped-call]
    return True
