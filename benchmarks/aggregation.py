"""Speed and memory of the aggregation engine, and the time that a small aggregation adds to a round.

    python benchmarks/aggregation.py                     # all parts (minutes, 10 GiB of disk and of page cache)
    python benchmarks/aggregation.py --only speed        # or memory, clients, round
    python benchmarks/aggregation.py --small             # an eighth of every size: does it run, not how fast

speed    Rules over safetensors files with a warm page cache, beside two threads of `np.sum`, in one run and in turns:
         over arrays in memory, and over the same files, mapped anew as the engine maps them. Medians over the turns.
memory   The peak of the anonymous memory of a process that aggregates files, interpreter and result included.
clients  Time and memory against the number of clients, and benchmarks/aggregation.png.
round    In a real run with two edges: from the last TrainFinished of a round to the next round's TrainStarted, as a
         subscriber on the bus sees them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aggregation_memory import PLOT, clients, memory
from aggregation_models import MIB, mapped, sum_with_two_threads, written
from aggregation_round import small_rounds
from machine import save, table

from aggregators import engine, parse
from aggregators.geometric import GeometricMedian

THREADS = 2
TURNS = 7
SUM_MIB = 1024
PARTS = ("speed", "memory", "clients", "round")
SETS = ((10, 400), (100, 40), (10, 100))
"""Number of clients, and size of each client's model in MiB."""

EQUAL, UNEQUAL = "equal weights", "all weights differ"


class Rounds(GeometricMedian):
    """Counts its rounds."""

    made = 0

    def _objective(self, w: Any, distances: Any) -> float:
        type(self).made += 1
        return super()._objective(w, distances)


def speed(folder: Path, shrink: int) -> list[dict[str, Any]]:
    array = np.ones(SUM_MIB // shrink * MIB // 4 // 4, np.float32)
    memory_arrays = [array, *(array.copy() for _ in range(3))]
    rows: list[dict[str, Any]] = []
    for n, mib in SETS:
        paths = written(folder / f"{n}x{mib}", n, mib * MIB // shrink)
        size = n * mib * MIB // shrink
        out = {name: np.zeros_like(tensor) for name, tensor in mapped(paths[:1])[0].items()}
        common = {"paths": paths, "size": size, "out": out, "memory": memory_arrays}
        what = f"{n} x {mib // shrink} MiB"
        if (n, mib) != SETS[2]:
            rows.append(one(what, "mean", EQUAL, target=0.9, against="np.sum", **common))
            rows.append(one(what, "mean", UNEQUAL, **common))
        else:
            plain = one(what, "mean", EQUAL, **common)
            rows.append(plain)
            rows.append(one(what, "median", EQUAL, target=1.5, **common))
            rows.append(one(what, "trimmed_mean:f=2", EQUAL, target=1.5, **common))
            rows.append(one(what, "krum:f=2", EQUAL, target=6, passes=1 + 1 / n, **common))
            rows.append(one(what, "multi_krum:f=2", EQUAL, target=6, passes=1 + (n - 2) / n, **common))
            rows.append(one(what, "bulyan:f=1", EQUAL, **common))
            rows.append(one(what, "norm_clip:c=median/mean", EQUAL, passes=2, **common))
            rows.append(one(what, "diloco", EQUAL, **common))
            for attacked in (False, True):
                if attacked:
                    flip(paths, folder, mib * MIB // shrink)
                rounds = geometric_rounds(paths)
                name = f"geometric_median, {'2 hostile' if attacked else 'all alike'}, {rounds} rounds"
                rows.append(
                    one(what, "geometric_median", EQUAL, name=name, passes=rounds + 1, target=0.8, of=plain, **common)
                )
            rows.extend(naive(what, paths, size, rows))
        for path in paths:
            path.unlink()
    return rows


def one(
    what: str,
    rule: str,
    weights: str,
    *,
    paths: Sequence[Path],
    size: int,
    out: dict[str, Any],
    memory: Sequence[Any],
    name: str | None = None,
    passes: float = 1,
    target: float | None = None,
    against: str = "GB/s",
    of: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A row: `passes` says how often the input is read, `of` whose rate the target is a part of."""
    algorithm = parse(rule)
    counts = [100.0 + (7 * i if weights == UNEQUAL else 0) for i in range(len(paths))]

    def aggregate() -> None:
        models = mapped(paths)
        engine.run(
            models,
            counts,
            reducer=algorithm.reducer,
            server_step=algorithm.server_step,
            global_model=models[0] if algorithm.needs_global else None,
            out=out,
            threads=THREADS,
        )

    in_memory = sum(array.nbytes for array in memory)
    sides: list[tuple[Callable[[], None], float]] = [
        (lambda: sum_with_two_threads(memory), in_memory),
        (lambda: sum_with_two_threads([tensor for model in mapped(paths) for tensor in model.values()]), size),
        (aggregate, size * passes),
    ]
    rates: list[list[float]] = [[], [], []]
    for turn in range(TURNS + 1):  # the first warms up
        for (act, read_bytes), side in zip(sides, rates, strict=True):
            began = time.perf_counter()
            act()
            if turn:
                side.append(read_bytes / (time.perf_counter() - began) / 1e9)
    of_memory, of_files = (statistics.median(a / b for a, b in zip(rates[2], rates[i], strict=True)) for i in (0, 1))
    read = statistics.median(rates[2])
    row: dict[str, Any] = {"input": what, "rule": name or f"{rule}, {weights}"}
    row |= {"input_GB_s": read / passes, "passes": passes, "read_GB_s": read}
    row |= {"np.sum_memory": statistics.median(rates[0]), "np.sum_files": statistics.median(rates[1])}
    row |= {"of_memory": of_memory, "of_files": of_files}
    if target is None:
        return row | {"target": "", "met": ""}
    if of is not None:
        measured, label = read / of["read_GB_s"], f">= {target:g} of mean's"
    elif against == "np.sum":
        measured, label = of_files, f">= {target:g} of np.sum"
    else:
        measured, label = read, f">= {target:g} GB/s"
    return row | {"target": label, "met": "yes" if measured >= target else f"NO ({measured:.2f})"}


def flip(paths: Sequence[Path], folder: Path, size: int) -> None:
    """Let the last two clients send something far from the others, as a flipped update four times as long is."""
    for path, far in zip(paths[-2:], written(folder / "hostile", 2, size, scale=-4.0), strict=True):
        far.replace(path)


def geometric_rounds(paths: Sequence[Path]) -> int:
    Rounds.made = 0
    engine.run(mapped(paths), reducer=Rounds(), threads=THREADS)
    return Rounds.made


def naive(what: str, paths: Sequence[Path], size: int, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Aggregate by numpy's own functions on a stack of all clients, once each; return how many times slower it is."""
    functions: dict[str, Callable[[Any], Any]] = {
        "mean": lambda stack: np.mean(stack, axis=0),
        "median": lambda stack: np.median(stack, axis=0),
    }
    found = []
    for rule, function in functions.items():
        began = time.perf_counter()
        models = mapped(paths)
        for name in models[0]:
            function(np.stack([model[name] for model in models]))
        rate = size / (time.perf_counter() - began) / 1e9
        ours = next(row for row in rows if row["input"] == what and row["rule"].startswith(f"{rule},"))
        found.append(
            {
                **dict.fromkeys(ours, ""),
                "input": what,
                "rule": f"np.{rule}(np.stack(...)), one thread",
                "input_GB_s": rate,
                "read_GB_s": rate,
                "target": f"ours is {ours['input_GB_s'] / rate:.1f} times as fast",
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part, or several")
    parser.add_argument("--small", action="store_true", help="an eighth of every size")
    parser.add_argument("--base", type=Path, help="where the files are written")
    options = parser.parse_args()
    shrink = 8 if options.small else 1
    if len(os.sched_getaffinity(0)) > THREADS:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    for part in options.only or PARTS:
        with tempfile.TemporaryDirectory(dir=options.base, prefix="aggregation-") as name:
            folder = Path(name)
            if part == "speed":
                rows = speed(folder, shrink)
            elif part == "memory":
                rows = memory(folder, shrink)
            elif part == "clients":
                rows = clients(folder, shrink)
            else:
                rows = small_rounds(folder, 8 if options.small else 60)
        print(f"\n{table(rows)}\nload {os.getloadavg()[0]:.1f}; written to {save(f'aggregation-{part}', rows)}")
        if part == "clients":
            print(f"plotted to {PLOT}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
