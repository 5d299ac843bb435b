"""Cost of a round whose training costs nothing.

E real edges with real trainer processes, one coordinator, two aggregators, one embedded server. The model is 16 equal
float32 arrays, training adds 0.001·i to each, datasetSize is 100·(i+1), all updates are averaged. The result of the
last round is checked against the closed form.

    python benchmarks/overhead.py --edges 2 --bytes 4096 --rounds 50
    python benchmarks/overhead.py --table        # all the configurations with a target
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import save, table

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.runs import RunStore
from flavor.checkpoints import TensorFile
from flavor.ledger.rounds import closed_rounds
from flavor.local.processes import ProcessGroup
from flavor.store.open import open_store

TRAINER = Path(__file__).with_name("overhead_trainer.py")
EVALUATOR = Path(__file__).with_name("overhead_evaluator.sh")
MIB = 2**20
#          edges  bytes      rounds format         target in seconds a round
TARGETS = [
    (2, 4096, 60, "pickle", 0.030),
    (8, 4096, 40, "pickle", 0.080),
    (32, MIB, 12, "pickle", 0.6),
    (8, 100 * MIB, 10, "pickle", 3.0),
    (8, 100 * MIB, 10, "torch", 3.0),
    (8, 100 * MIB, 10, "safetensors", 1.5),
]


class MemoryWatch(threading.Thread):
    """Samples the summed resident memory of this process's descendants."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stop_event = threading.Event()
        self.peak_mib = 0.0

    def run(self) -> None:
        while not self._stop_event.wait(0.5):
            total = 0.0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_info().rss / MIB
                except psutil.Error:
                    continue
            self.peak_mib = max(self.peak_mib, total)

    def stop(self) -> None:
        self._stop_event.set()
        self.join()


def measure(
    edges: int,
    size_bytes: int,
    rounds: int,
    format_: str,
    target_s: float | None,
    base: Path | None,
    *,
    evaluated: bool = False,
) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.time()
    watch = MemoryWatch()
    with (
        tempfile.TemporaryDirectory(dir=base, prefix="overhead-") as folder,
        ProcessGroupAndServer(Path(folder)) as both,
    ):
        processes, url, store = both
        environment = {**os.environ, "FLAVOR_REDIS_URL": url, "FLAVOR_STORE": store, "FLAVOR_RUN": "overhead"}
        log = Path(folder)
        watch.start()
        serve = ["serve", "--rounds", str(rounds), "--min-clients", str(edges), "--keep-rounds", "1"]
        serve += ["--evaluate", "every"] if evaluated else []
        processes.start("coordinator", "flavor.cli.main", serve, environment=environment, log=log / "coordinator.log")
        for name in ("aggregator-1", "aggregator-2"):
            processes.start(name, "flavor.cli.flavor_agg", [], environment=environment, log=log / f"{name}.log")
        for i in range(1, edges + 1):
            command = f"{sys.executable} {TRAINER} {format_} {size_bytes}"
            words = [
                "-m",
                command,
                "--client",
                f"edge-{i}",
                "--workspace",
                str(log / f"edge-{i}"),
                "--input",
                folder,
            ]
            words += ["-e", f"sh {EVALUATOR}"] if evaluated else []
            processes.start(
                f"edge-{i}", "flavor.cli.flavor_fl", words, environment=environment, log=log / f"edge-{i}.log"
            )
        processes.wait(["coordinator"], 3600)
        runs = RunStore(connect(url), "overhead", url)
        view = runs.read()
        if view.state != "finished":
            raise SystemExit(f"the run is {view.state}: {view.reason}")
        done = list(closed_rounds(runs, open_store(store)))
        opened, closed = [each.opened_ms for each in done], done[-1].closed_ms
        check(open_store(store).open(view.global_model.model), edges, rounds)
        processes.wait([f"edge-{i}" for i in range(1, edges + 1)], 60)
        watch.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lengths = [b - a for a, b in zip(opened, [*opened[1:], closed], strict=True)][1:]
    seconds = statistics.median(lengths) / 1000
    print("rounds:", " ".join(f"{ms / 1000:.3f}" for ms in lengths), file=sys.stderr)
    return {
        "edges": edges,
        "bytes": size_bytes,
        "format": format_,
        "rounds": rounds,
        "s_per_round": seconds,
        "worst_s": max(lengths) / 1000,
        "target_s": target_s if target_s is not None else "",
        "first_round_s": opened[0] / 1000 - began,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory_mib": watch.peak_mib,
    }


class ProcessGroupAndServer:
    """The embedded server and the processes on it, ended in the right order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> tuple[ProcessGroup, str, str]:
        self._server = embedded_server()
        url = self._server.__enter__()
        self._group = ProcessGroup()
        return self._group, url, open_store(str(self._folder / "store"), create=True).url

    def __exit__(self, *exc: object) -> None:
        self._group.__exit__(*exc)
        self._server.__exit__(None, None, None)


def idle_edge(base: Path | None) -> dict[str, Any]:
    """The resident memory of an edge agent (without its trainer) that waits for the first round."""
    with (
        tempfile.TemporaryDirectory(dir=base, prefix="overhead-") as folder,
        ProcessGroupAndServer(Path(folder)) as both,
    ):
        processes, url, store = both
        environment = {**os.environ, "FLAVOR_REDIS_URL": url, "FLAVOR_STORE": store, "FLAVOR_RUN": "idle"}
        log = Path(folder)
        serve = ["serve", "--rounds", "1", "--min-clients", "2"]
        processes.start("coordinator", "flavor.cli.main", serve, environment=environment, log=log / "coordinator.log")
        words = [
            "-m",
            f"{sys.executable} {TRAINER} pickle 4096",
            "--client",
            "edge-1",
            "--workspace",
            str(log / "edge-1"),
        ]
        processes.start("edge", "flavor.cli.flavor_fl", words, environment=environment, log=log / "edge.log")
        runs = RunStore(connect(url), "idle", url)
        while runs.clients(["edge-1"])["edge-1"][0].state != "ready":
            time.sleep(0.1)
        memory = psutil.Process(processes.pid("edge")).memory_full_info()
        return {
            "what": "idle edge agent",
            "rss_mib": memory.rss / MIB,
            "pss_mib": memory.pss / MIB,
            "target_mib": 60,
        }


def check(model: Path, edges: int, rounds: int) -> None:
    """The closed form: each round adds the mean of 0.001·i weighted by i+1."""
    weights = np.arange(1, edges + 1) / sum(range(1, edges + 1))
    expected = rounds * float(np.sum(weights * 0.001 * np.arange(edges)))
    file = TensorFile.open(model)
    for name in file.names:
        np.testing.assert_allclose(file.tensor(name), expected, rtol=1e-4, atol=1e-7)


def compare_evaluated(options: argparse.Namespace) -> None:
    """Rounds without evaluation and with an evaluator that costs nothing, in one sitting; the target is 1.6 times."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(options.evaluated):
        for evaluated, seconds in found.items():
            row = measure(
                options.edges,
                options.bytes,
                options.rounds,
                options.format,
                None,
                base=options.base,
                evaluated=evaluated,
            )
            seconds.append(row["s_per_round"])
    without, judged = (statistics.median(seconds) for seconds in found.values())
    rows = [{"edges": options.edges, "without_s": without, "evaluated_s": judged, "times": judged / without}]
    print(f"{table(rows)}\ntarget: at most 1.6 times; written to {save('overhead-evaluated', rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, default=2)
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--format", choices=["pickle", "torch", "safetensors"], default="pickle")
    parser.add_argument(
        "--evaluated", type=int, metavar="PAIRS", help="so many runs without and with --evaluate every, by turns"
    )
    parser.add_argument("--base", type=Path, help="where the folders of a run are made")
    parser.add_argument("--table", action="store_true", help="all the configurations with a target")
    options = parser.parse_args()
    rows = []
    if options.evaluated:
        compare_evaluated(options)
        return
    chosen = TARGETS if options.table else [(options.edges, options.bytes, options.rounds, options.format, None)]
    for configuration in chosen:
        rows.append(measure(*configuration, base=options.base))
        print(table(rows[-1:]), flush=True)
    if options.table:
        idle = idle_edge(options.base)
        print(table([idle]))
        print(f"\n{table(rows)}\nwritten to {save('overhead', rows)}")


if __name__ == "__main__":
    main()
