"""Time until the first round of a local run, and the cost of its own processes: `flavor run` with E edges.

The trainers are those of `overhead.py`, with 4 KiB of weights. Seconds count from the start of the command to the
opening of round 1, which is when all edges are ready; memory is that of flavor's own processes then, without
trainers and server: resident (RSS), and with what processes share counted once (PSS). CPU seconds are those of
everything but the trainers, to the end of two rounds.

    python benchmarks/local_run.py                 # 4 and 32 edges, five times each
    python benchmarks/local_run.py --edges 8 --times 1
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from machine import save, table
from overhead import TRAINER

from flavor.bus.connection import connect

MIB = 2**20
SIZES = (4, 32)
DEADLINE_S = 120.0


def measure(edges: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="local-run-") as folder:
        out, spent = Path(folder) / "out", Path(folder) / "spent"
        spent.mkdir()
        script = Path(folder) / "trainer.py"
        script.write_text(COUNTED.format(folder=str(TRAINER.parent), spent=str(spent)))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        words = ["run", "-m", f"{sys.executable} {script} pickle 4096", "--edges", str(edges), "--rounds", "2"]
        command = [sys.executable, "-P", "-m", "flavor.cli.main", *words, "--run", "bench", "--out", str(out)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            opened = first_round(out, process) - began
            rss, pss = memory(process.pid)
            _, said = process.communicate()
        if process.returncode != 0:
            raise SystemExit(said.decode())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        trainers = sum(float(path.read_text()) for path in spent.iterdir())
        return {"edges": edges, "first_round_s": opened, "cpu_s": cpu - trainers, "rss_mib": rss, "pss_mib": pss}


COUNTED = """
import atexit, os, pathlib, sys, time
atexit.register(lambda: pathlib.Path({spent!r}, os.environ["FLAVOR_CLIENT"]).write_text(str(time.process_time())))
sys.path.insert(0, {folder!r})
import overhead_trainer
overhead_trainer.main()
"""


def first_round(out: Path, process: subprocess.Popen[bytes]) -> float:
    """Return when round 1 was opened."""
    deadline = time.monotonic() + DEADLINE_S
    place = out / "redis" / "url"
    while not (place.exists() and place.read_text()):
        assert process.poll() is None, "the run has ended"
        assert time.monotonic() < deadline, "no server"
        time.sleep(0.005)
    redis = connect(place.read_text())
    while not redis.exists("flavor:{bench}:round:1"):
        assert process.poll() is None, "the run has ended"
        assert time.monotonic() < deadline, "no round"
        time.sleep(0.005)
    redis.close()
    return time.monotonic()


def memory(pid: int) -> tuple[float, float]:
    """MiB of a local run's own processes: RSS and PSS."""
    rss = pss = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            command = " ".join(process.cmdline())
            if ("trainer.py pickle" in command and "flavor.cli" not in command) or "--unixsocket" in command:
                continue
            info = process.memory_full_info()
        except psutil.Error:
            continue
        rss, pss = rss + info.rss / MIB, pss + info.pss / MIB
    return rss, pss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    for edges in [options.edges] if options.edges else SIZES:
        measured = [measure(edges) for _ in range(options.times)]
        rows.append({name: statistics.median(row[name] for row in measured) for name in measured[0]})
        print(table(rows[-1:]), flush=True)
    if not options.edges:
        print(f"written to {save('local_run', rows)}")


if __name__ == "__main__":
    main()
