"""Memory of an aggregation, and time and memory against the number of clients.

What is counted is `RssAnon` of a fresh process (the kernel's count of resident pages that no file is behind), sampled
from outside every 2 ms: the interpreter, numpy, scratch and, unless it goes to a file, the result.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aggregation_models import MIB, written

PLOT = Path(__file__).with_name("aggregation.png")
ALLOWED_MIB = 64
ALLOWED_MODELS = 1.3
COUNTS = (2, 4, 8, 16, 32, 64, 96, 128, 192, 256)
MODEL_MIB = 16

CHILD = """
import sys, time
from aggregators import aggregate
rule, turns, out, *paths = sys.argv[1:]
sys.stdin.readline()
times = []
for _ in range(int(turns)):
    began = time.perf_counter()
    result = aggregate(paths, aggregator=rule, out=out or None, threads=2)
    times.append(time.perf_counter() - began)
    del result
print(*times)
"""


def watched(rule: str, paths: Sequence[Path], *, turns: int = 3, out: str = "") -> tuple[list[float], float, float]:
    """Aggregate in a fresh process; its times in seconds, and its anonymous memory before and at its peak, in MiB."""
    command = [sys.executable, "-c", CHILD, rule, str(turns), out, *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        while (before := anonymous_mib(process.pid)) < 8:  # it is still importing
            time.sleep(0.01)
        settled = -1.0
        while before != settled:
            settled = before
            time.sleep(0.3)
            before = anonymous_mib(process.pid)
        process.stdin.write("\n")
        process.stdin.close()
        peak = before
        while process.poll() is None:
            peak = max(peak, anonymous_mib(process.pid))
            time.sleep(0.002)
        text = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{rule} ended with {process.returncode}")
    return [float(word) for word in text.split()], before, peak


def anonymous_mib(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0


def memory(folder: Path, shrink: int) -> list[dict[str, Any]]:
    rows = []
    for n, mib in ((10, 400), (100, 40)):
        size = mib * MIB // shrink
        paths = written(folder / f"{n}", n, size)
        model = size / MIB
        rules = ["mean", "median", "trimmed_mean:f=2", "multi_krum:f=2", "geometric_median"]
        for rule in rules if n == 10 else ["mean", "median", "trimmed_mean:f=2", "geometric_median:rounds=2"]:
            for target in ("memory", "file"):
                out = str(folder / "out") if target == "file" else ""
                _, before, peak = watched(rule, paths, turns=1, out=out)
                counted = peak + (model if out else 0)
                allowed = ALLOWED_MODELS * model + ALLOWED_MIB
                rows.append(
                    {
                        "clients": n,
                        "model_MiB": model,
                        "rule": rule,
                        "result_to": target,
                        "before_MiB": before,
                        "peak_anonymous_MiB": peak,
                        "with_the_result_MiB": counted,
                        "allowed_MiB": allowed,
                        "met": "yes" if counted <= allowed else "NO",
                    }
                )
        for path in paths:
            path.unlink()
    return rows


def clients(folder: Path, shrink: int) -> list[dict[str, Any]]:
    size = MODEL_MIB * MIB // shrink
    paths = written(folder / "many", COUNTS[-1], size)
    rows: list[dict[str, Any]] = []
    for n in COUNTS:
        row: dict[str, Any] = {"clients": n, "model_MiB": size / MIB}
        for rule in ("mean", "median"):
            times, _, peak = watched(rule, paths[:n], turns=9 if rule == "mean" else 1)
            row |= {f"{rule}_ms": statistics.median(times) * 1e3, f"{rule}_peak_MiB": peak}
        rows.append(row)
    counts = np.array([row["clients"] for row in rows], float)
    times = np.array([row["mean_ms"] for row in rows])
    slope, start = np.polyfit(counts, times, 1)
    for row in rows:
        row["straight_line_ms"] = start + slope * row["clients"]
    plot(rows, f"{slope:.2f} ms a client + {start:.1f} ms, r² = {np.corrcoef(counts, times)[0, 1] ** 2:.4f}")
    return rows


def plot(rows: Sequence[dict[str, Any]], line: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = [row["clients"] for row in rows]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(counts, [row["mean_ms"] for row in rows], "o", color="C0", label="mean, measured")
    left.plot(counts, [row["straight_line_ms"] for row in rows], "-", color="C0", linewidth=1, label=line)
    left.set(xlabel="clients", ylabel="ms", title=f"time of a mean, {rows[0]['model_MiB']:g} MiB a model")
    for rule, style in (("mean", "o-"), ("median", "s--")):
        right.plot(counts, [row[f"{rule}_peak_MiB"] for row in rows], style, label=rule)
    right.axhline(
        ALLOWED_MODELS * rows[0]["model_MiB"] + ALLOWED_MIB, color="grey", linestyle=":", label="1.3 models + 64 MiB"
    )
    right.set(xlabel="clients", ylabel="MiB", title="peak of anonymous memory, interpreter included")
    for axes in (left, right):
        axes.set_xlim(0, None)
        axes.set_ylim(0, None)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    FigureCanvasAgg(figure).print_figure(PLOT, dpi=90)
