"""Which rates `diloco.py fair` tries, what it found, which rates it chooses, and the table: all of it without torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOUND = Path(__file__).with_name("diloco_fair.jsonl")
"""What the table of benchmarks/README.md was made from."""


@dataclass(frozen=True)
class Method:
    """An inner optimizer, and the server step between rounds; without one, training is synchronous."""

    inner: str
    step: str
    words: str
    more: str = ""
    """Options of the server step, beside its learning rate."""


METHODS = {
    "sync": Method("adamw", "", "synchronous, AdamW"),
    "fedavg-sgd": Method("sgd", "replace", "federated averaging, SGD"),
    "fedavg": Method("adamw", "replace", "federated averaging, AdamW"),
    "diloco": Method("adamw", "nesterov", "DiLoCo: AdamW, then `nesterov`"),
    "diloco-0.5": Method("adamw", "nesterov", "DiLoCo with momentum 0.5", ",momentum=0.5"),
    "fedadam": Method("adamw", "adam", "AdamW, then `adam` (FedAdam)"),
    "fedyogi": Method("adamw", "yogi", "AdamW, then `yogi` (FedYogi)"),
    "fedavgm": Method("adamw", "momentum", "AdamW, then `momentum` (FedAvgM)"),
}
GRID = {
    "adamw": (0.0025, 0.005, 0.01, 0.02, 0.04),
    "sgd": (0.25, 0.5, 1.0, 2.0),
    "nesterov": (0.175, 0.35, 0.7, 1.4),
    "momentum": (0.35, 0.7, 1.4),
    "adam": (0.003, 0.01, 0.03, 0.1, 0.3),
    "yogi": (0.01, 0.03, 0.1),
}
"""Learning rates by optimizer and server step. `replace` has none."""


@dataclass(frozen=True)
class Trial:
    """One training: `every` is H, the local steps of a round, and 0 where training is synchronous."""

    method: str
    every: int
    inner: float
    outer: float | None
    seed: int

    def __str__(self) -> str:
        between = f", H {self.every}" if self.every else ""
        outer = "" if self.outer is None else f", outer {self.outer:g}"
        return f"{self.method}{between}, inner {self.inner:g}{outer}, seed {self.seed}"


@dataclass(frozen=True)
class Loss:
    """Nats a character after the last step; None if training diverged, and for a test that no trial has looked at."""

    validation: float | None
    test: float | None = None


Losses = Mapping[Trial, Loss]


@dataclass(frozen=True)
class Plan:
    """The trials of a table. Rates are chosen on the validation text with a seed that the table does not have."""

    methods: tuple[str, ...] = ("sync", "fedavg-sgd", "fedavg", "diloco", "fedadam")
    every: tuple[int, ...] = (20, 50, 100)
    seeds: tuple[int, ...] = (0, 1, 2)
    tuning: int = 100
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=GRID.copy)

    def rows(self) -> Iterator[tuple[str, int]]:
        """Each row's method and H."""
        yield from ((name, 0) for name in self.methods if not METHODS[name].step)
        for every in self.every:
            yield from ((name, every) for name in self.methods if METHODS[name].step)

    def candidates(self, method: str, every: int) -> list[Trial]:
        """One trial for each pair of an inner and an outer rate."""
        outer = self.grid.get(METHODS[method].step, (None,))
        return [Trial(method, every, i, o, self.tuning) for i in self.grid[METHODS[method].inner] for o in outer]

    def finals(self, best: Trial) -> list[Trial]:
        """The best rates with each seed of the table."""
        return [Trial(best.method, best.every, best.inner, best.outer, seed) for seed in self.seeds]

    def count(self) -> int:
        return sum(len(self.candidates(*row)) + len(self.seeds) for row in self.rows())


def best(plan: Plan, found: Losses, method: str, every: int) -> Trial | None:
    """The trial of the least validation loss; None while one is missing, or if all diverged."""
    candidates = plan.candidates(method, every)
    if any(trial not in found for trial in candidates):
        return None
    losses = {trial: loss for trial in candidates if (loss := found[trial].validation) is not None}
    return min(losses, key=losses.__getitem__) if losses else None


def shown(rate: float, grid: tuple[float, ...]) -> str:
    """A rate as the table has it: the best one may lie beyond the first and the last of a grid."""
    edge = "≤ " if rate == min(grid) else "≥ " if rate == max(grid) else ""
    return f"{edge}{rate:g}"


def tests(plan: Plan, found: Losses, method: str, every: int) -> list[float] | str:
    """The test loss of each seed; else why there is none: a trial is missing, or training diverged."""
    if any(trial not in found for trial in plan.candidates(method, every)):
        return "not measured"
    chosen = best(plan, found, method, every)
    if chosen is None:
        return "diverged"
    finals = plan.finals(chosen)
    if any(trial not in found for trial in finals):
        return "not measured"
    losses = [loss for trial in finals if (loss := found[trial].test) is not None]
    return losses if len(losses) == len(finals) else "diverged"


def table(plan: Plan, found: Losses, steps: int) -> str:
    """The table in Markdown, each method with its own best rates."""
    sync = tests(plan, found, "sync", 0) if "sync" in plan.methods else ""
    lines = [
        "| H | method | inner rate | outer rate | test loss | over synchronous | times sent |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, every in plan.rows():
        kind, chosen = METHODS[method], best(plan, found, method, every)
        inner = shown(chosen.inner, plan.grid[kind.inner]) if chosen else ""
        outer = shown(chosen.outer, plan.grid[kind.step]) if chosen and chosen.outer is not None else ""
        losses, over = tests(plan, found, method, every), ""
        if isinstance(losses, str):
            loss = losses
        else:
            loss = f"{statistics.mean(losses):.3f} ± {statistics.stdev(losses):.3f}"
            if every and not isinstance(sync, str):
                above = [100 * (own / other - 1) for own, other in zip(losses, sync, strict=True)]
                over = f"{statistics.mean(above):+.1f} ± {statistics.stdev(above):.1f} %"
        cells = [str(every or 1), kind.words, inner, outer, loss, over, str(steps // (every or 1))]
        lines.append("|" + "".join(f" {cell} |" if cell else " |" for cell in cells))
    return "\n".join(lines)


def by_outer_rate(plan: Plan, found: Losses, method: str) -> str:
    """What another outer rate costs, in Markdown: for each the validation loss with its own best inner rate."""
    rates = plan.grid[METHODS[method].step]
    lines = [f"| H | {' | '.join(f'outer rate {rate:g}' for rate in rates)} |", "|---" * (1 + len(rates)) + "|"]
    for every in plan.every:
        cells = []
        for rate in rates:
            trials = [trial for trial in plan.candidates(method, every) if trial.outer == rate]
            if any(trial not in found for trial in trials):
                cells.append("not measured")
                continue
            known = [loss for trial in trials if (loss := found[trial].validation) is not None]
            cells.append(f"{min(known):.3f}" if known else "diverged")
        lines.append(f"| {every} | {' | '.join(cells)} |")
    return "\n".join(lines)


class Found:
    """The losses of all trials so far, in a file of JSON lines that an interrupted run goes on from."""

    def __init__(self, path: Path) -> None:
        """Read the file, if it is there.

        Raises:
            SystemExit: with one line that names a line that is no trial.
        """
        self.path = path
        self.setting: dict[str, Any] = {}
        self.losses: dict[Trial, Loss] = {}
        whole, _, self._torn = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                fields = json.loads(line)
                if number == 1:
                    self.setting = fields["setting"]
                    continue
                loss = Loss(fields.pop("validation"), fields.pop("test"))
                del fields["seconds"]
                self.losses[Trial(**fields)] = loss
            except (ValueError, KeyError, TypeError, AttributeError):
                raise SystemExit(f"{path}, line {number} is no line of `diloco.py fair`: {line[:60]}") from None

    def begin(self, setting: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        """Go on with trials of this setting: write the first line, or delete one that was torn in the writing.

        Raises:
            SystemExit: with one line, if the file has trials of another setting.
        """
        if not self.setting:
            self.setting = dict(setting)
            self.path.write_text(json.dumps({"setting": self.setting, "versions": dict(versions)}) + "\n")
        elif self._torn:
            self.path.write_text(self.path.read_text().removesuffix(self._torn))
        names = {*setting, *self.setting}
        if differ := sorted(name for name in names if self.setting.get(name) != setting.get(name)):
            there = ", ".join(f"{name}={self.setting.get(name)}" for name in differ)
            here = ", ".join(f"{name}={setting.get(name)}" for name in differ)
            raise SystemExit(f"{self.path} has trials with {there}, and this run has {here}: give another --out")

    def add(self, trial: Trial, loss: Loss, seconds: float) -> None:
        """Append a line."""
        with self.path.open("a") as file:
            file.write(json.dumps({**asdict(trial), **asdict(loss), "seconds": round(seconds, 1)}) + "\n")
        self.losses[trial] = loss
