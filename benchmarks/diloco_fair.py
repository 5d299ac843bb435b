"""A fair table of DiLoCo and its alternatives: each method with its own best learning rates of one grid.

Four workers train a small character-level transformer on a quarter each of eight plays, all methods with the same
number of inner steps and, for one seed, the same initial weights and the same batches. What is held out of each quarter
is cut in two: rates are chosen by the loss on the first half (validation), with a seed of their own; then the chosen
rates are trained with the seeds of the table, and judged on the second half (test), which no choice has seen. The
aggregation is that of a run: the reducer and the server steps of `aggregators`, in this process.

Each training is a line of a JSON lines file. An interrupted run goes on where it stopped: start it again.

    python benchmarks/diloco.py fair                                   # what is missing, and the table
    python benchmarks/diloco.py fair --table                           # the table alone, from the file
    python benchmarks/diloco.py fair --out mine.jsonl --grid nesterov=0.5,0.7,0.9 --methods sync,diloco
    python benchmarks/diloco.py fair --quick                           # seconds, and figures that mean nothing
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from diloco_grid import FOUND, METHODS, Found, Loss, Plan, Trial, best, by_outer_rate, table
from diloco_workers import CharModel, Model, Setting, Worker, evaluated, in_step, quarters

from aggregators import parse, run

SETTING = Setting(batch=4, width=32, heads=2, layers=1)
OF_A_TRIAL = ("lr", "inner", "every", "outer")
QUICK, QUICK_PIECES = replace(SETTING, steps=4, batch=2, warmup=1, width=8), 4
FIELDS = [name for name in asdict(SETTING) if name not in OF_A_TRIAL]


def held_out(half: int) -> torch.Tensor:
    """The validation text (0) or the test text (1)."""
    return torch.cat([text.tensor_split(2)[half] for _, text in quarters()])


def trained(trial: Trial, setting: Setting) -> CharModel | None:
    """The model after the last step; None if training diverged."""
    kind = METHODS[trial.method]
    own = replace(setting, lr=trial.inner, inner=kind.inner)
    workers = [Worker(number, trial.seed, text, own) for number, (text, _) in enumerate(quarters())]
    if not kind.step:
        for _ in range(setting.steps):
            in_step(workers)
        return workers[0].model if finite(workers[0].parameters()) else None
    rule = parse("mean", kind.step if trial.outer is None else f"{kind.step}:lr={trial.outer}{kind.more}")
    theta, state = workers[0].parameters(), None
    for _ in range(setting.steps // trial.every):
        for worker in workers:
            worker.load(theta)
            worker.train(trial.every)
        updates = [worker.parameters() for worker in workers]
        if not all(finite(update) for update in updates):
            return None
        result = run(
            updates, reducer=rule.reducer, server_step=rule.server_step, global_model=theta, state=state, threads=1
        )
        theta, state = result.model, result.state
    workers[0].load(theta)
    return workers[0].model


def finite(model: Model) -> bool:
    return all(np.isfinite(array).all() for array in model.values())


def judged(trial: Trial, setting: Setting, plan: Plan, pieces: int | None) -> Loss:
    """Train, and look at the test text only with a seed of the table."""
    model = trained(trial, setting)
    halves = (0,) if trial.seed == plan.tuning else (0, 1)
    losses = [np.nan if model is None else evaluated(model, held_out(half), pieces) for half in halves]
    return Loss(*(round(float(loss), 5) if np.isfinite(loss) else None for loss in losses))


def measure(plan: Plan, found: Found, one: Callable[[Trial], Loss]) -> None:
    """Add all trials that are missing, row by row: the grid, then the table's seeds with the best rates."""
    numbers, total = itertools.count(1), plan.count()

    def add(trials: list[Trial]) -> None:
        for trial in trials:
            number = next(numbers)
            if trial in found.losses:
                continue
            begun = time.process_time()
            loss = one(trial)
            seconds = time.process_time() - begun
            found.add(trial, loss, seconds)
            told = "diverged" if loss.validation is None else f"{loss.validation:.4f}"
            print(f"{number} of {total}: {trial}: validation {told}, {seconds:.1f} s of CPU time", flush=True)

    for row in plan.rows():
        add(plan.candidates(*row))
        chosen = best(plan, found.losses, *row)
        if chosen:
            add(plan.finals(chosen))


def options(words: Sequence[str]) -> argparse.Namespace:
    plan = Plan()
    parser = argparse.ArgumentParser(
        prog="diloco.py fair", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help=f"the file of JSON lines (default: {FOUND.name} beside this program)")
    parser.add_argument("--table", action="store_true", help="print the table, and train nothing")
    parser.add_argument("--quick", action="store_true", help="few steps of a tiny model, two rates, two seeds")
    parser.add_argument("--methods", default=",".join(plan.methods), help=f"of {', '.join(METHODS)}; by commas")
    parser.add_argument("--every", default=",".join(map(str, plan.every)), help="each H, by commas")
    parser.add_argument("--seeds", default=",".join(map(str, plan.seeds)), help="the table's seeds, by commas")
    parser.add_argument("--tuning-seed", type=int, default=plan.tuning, help="the seed with which rates are chosen")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="NAME=RATES",
        help=f"the rates of one of {', '.join(plan.grid)}; by commas, again for more",
    )
    for name in FIELDS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(getattr(SETTING, name)))
    chosen = parser.parse_args(words)
    try:
        chosen.plan = _plan(chosen)
    except ValueError as error:
        parser.error(str(error))
    given = {name: value for name in FIELDS if (value := getattr(chosen, name)) is not None}
    chosen.setting = replace(QUICK if chosen.quick else SETTING, **given)
    for name in ("steps", "batch", "width", "heads", "layers"):
        if getattr(chosen.setting, name) < 1:
            parser.error(f"--{name} takes a whole number from 1, and not {getattr(chosen.setting, name)}")
    if chosen.setting.width % (2 * chosen.setting.heads):
        parser.error(f"a width of {chosen.setting.width} is no multiple of twice {chosen.setting.heads} heads")
    if uneven := [every for every in chosen.plan.every if chosen.setting.steps % every]:
        parser.error(f"{chosen.setting.steps} steps are no multiple of H = {uneven[0]}: choose --steps or --every")
    return chosen


def _plan(chosen: argparse.Namespace) -> Plan:
    """The plan that the options ask for.

    Raises:
        ValueError: with one line that says what does not fit.
    """
    grid = dict(Plan().grid)
    for given in chosen.grid:
        name, _, rates = given.partition("=")
        if name not in grid:
            raise ValueError(f"--grid {given}: there are no rates of {name!r}; there are: {', '.join(grid)}")
        grid[name] = _numbers(rates, f"--grid {name}")
    methods = tuple(chosen.methods.split(","))
    if unknown := set(methods) - METHODS.keys():
        raise ValueError(f"there is no method {', '.join(sorted(unknown))}; there are: {', '.join(METHODS)}")
    every, seeds = _whole(chosen.every, "--every", 1), _whole(chosen.seeds, "--seeds", 0)
    if chosen.quick:
        grid, every, seeds = {name: rates[:2] for name, rates in grid.items()}, (2,), seeds[:2]
    if len(seeds) < 2 or chosen.tuning_seed in seeds:
        raise ValueError(f"--seeds needs two seeds or more, and not the tuning seed {chosen.tuning_seed}")
    return Plan(methods, every, seeds, chosen.tuning_seed, grid)


def _numbers(words: str, option: str) -> tuple[float, ...]:
    try:
        numbers = tuple(sorted({float(word) for word in words.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < np.inf for number in numbers):
        raise ValueError(f"{option} takes numbers above 0, by commas, and not {words!r}")
    return numbers


def _whole(words: str, option: str, least: int) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(word) for word in words.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < least:
        raise ValueError(f"{option} takes whole numbers from {least}, by commas, and not {words!r}")
    return numbers


def main(words: Sequence[str] | None = None) -> None:
    chosen = options(words or [])
    torch.set_num_threads(1)
    if chosen.out and (chosen.out.is_dir() or not chosen.out.parent.is_dir()):
        sys.exit(f"--out {chosen.out} is a folder, or its folder is not there: name a file in a folder that is")
    with tempfile.TemporaryDirectory() as folder:
        found = Found(chosen.out or (Path(folder) / "quick.jsonl" if chosen.quick else FOUND))
        if not chosen.table:
            versions = {name: version(name) for name in ("torch", "numpy")}
            found.begin({name: getattr(chosen.setting, name) for name in FIELDS}, versions)
            pieces = QUICK_PIECES if chosen.quick else None
            measure(chosen.plan, found, lambda trial: judged(trial, chosen.setting, chosen.plan, pieces))
        elif not found.setting:
            sys.exit(f"{found.path} has no trials: leave out --table to train, or name the file by --out")
        print(table(chosen.plan, found.losses, found.setting["steps"]))
        for method in chosen.plan.methods:
            if METHODS[method].step in chosen.plan.grid:
                words = f"{method}: validation loss with the best inner rate for each outer rate"
                print(f"\n{words}\n\n{by_outer_rate(chosen.plan, found.losses, method)}")
