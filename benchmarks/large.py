"""A large model on one machine: memory, disk and seconds of rounds at four sites.

Four real edges, one coordinator, one aggregator, one Redis server, and a folder as the store. The model is a folder of
safetensors shards, and the sites train it with `large_trainer.py`, whose files are holes but for one number in each
tensor. The result of the last round is checked against the closed form. All settings are the defaults.

    python benchmarks/large.py --gb 2
    python benchmarks/large.py --gb 20 --rounds 2

Memory is the kernel's: `peak` is VmHWM of one process, the most that it ever had resident, with the pages of mapped
files; `anonymous` is the largest RssAnon that was seen, resident pages that no file is behind. `disk` is the most that
the files of all parties occupied at a time; a file with several names counts once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from large_trainer import write_model
from machine import save
from overhead import ProcessGroupAndServer

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.checkpoints import TensorFile
from flavor.checkpoints.safetensors.header import TensorSpec
from flavor.ledger.rounds import closed_rounds
from flavor.store.open import open_store

TRAINER = Path(__file__).with_name("large_trainer.py")
MIB, GB = 2**20, 10**9
SHARDS, TENSORS = 7, 12
"""Files of the model, and tensors in each."""
ALLOWED_MIB = 200
"""Memory that the aggregator may have resident beside one shard."""
ROLES = {"coordinator": "coordinator", "aggregator": "aggregator", "edge": "edges"}


class Watch(threading.Thread):
    """Samples memory of each role's processes, without trainers, and what the files below a folder occupy."""

    def __init__(self, pids: dict[str, int], folder: Path) -> None:
        super().__init__(daemon=True)
        self._pids, self._folder, self._over = pids, folder, threading.Event()
        self.peak_mib = dict.fromkeys(ROLES.values(), 0.0)
        self.anonymous_mib = dict.fromkeys(ROLES.values(), 0.0)
        self.disk_gb = 0.0

    def run(self) -> None:
        turn = 0
        while not self._over.wait(0.2):
            for name, pid in self._pids.items():
                self._look(ROLES[name.partition("-")[0]], pid)
            if turn % 10 == 0:
                self.disk_gb = max(self.disk_gb, occupied_bytes(self._folder) / GB)
            turn += 1

    def _look(self, role: str, pid: int) -> None:
        try:
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                if not any(str(TRAINER) in word for word in each.cmdline()) or each.pid == pid:
                    found = status_mib(each.pid)
                    self.peak_mib[role] = max(self.peak_mib[role], found["VmHWM"])
                    self.anonymous_mib[role] = max(self.anonymous_mib[role], found["RssAnon"])
        except (psutil.Error, OSError, KeyError):
            return

    def stop(self) -> None:
        self._over.set()
        self.join()


def status_mib(pid: int) -> dict[str, float]:
    """The counts of /proc/PID/status, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}


def occupied_bytes(folder: Path) -> int:
    """What the files occupy: holes count nothing, and a file with several names counts once."""
    return sum({found.st_ino: found.st_blocks * 512 for found in files(folder)}.values())


def files(folder: Path) -> Iterator[os.stat_result]:
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(at, name))
            except FileNotFoundError:
                continue


def measure(gb: float, sites: int, rounds: int, base: Path | None) -> dict[str, Any]:
    elements = int(gb * GB) // 4 // SHARDS // TENSORS
    shards = {
        f"model-{shard:05d}-of-{SHARDS:05d}.safetensors": [
            TensorSpec(f"layer{shard}.{number}", np.dtype(np.float32), (elements,)) for number in range(TENSORS)
        ]
        for shard in range(1, SHARDS + 1)
    }
    with (
        tempfile.TemporaryDirectory(dir=base, prefix="large-") as name,
        ProcessGroupAndServer(Path(name)) as (processes, url, store),
    ):
        folder = Path(name)
        free_gb = shutil.disk_usage(folder).free / GB
        if free_gb < (rounds + 1) * gb + 1:
            raise SystemExit(f"{folder}: {free_gb:.0f} GB are free, and the global models take {rounds * gb + gb:.0f}")
        write_model(folder / "initial", shards, {spec.name: 0.0 for specs in shards.values() for spec in specs})
        environment = {**os.environ, "FLAVOR_REDIS_URL": url, "FLAVOR_STORE": store, "FLAVOR_RUN": "large"}
        serve = ["serve", "--rounds", str(rounds), "--min-clients", str(sites), "--keep-rounds", "1"]
        serve += ["--init-model", str(folder / "initial")]
        begun = [("coordinator", "flavor.cli.main", serve), ("aggregator-1", "flavor.cli.flavor_agg", [])]
        for i in range(1, sites + 1):
            words = ["-m", f"{sys.executable} {TRAINER}", "--client", f"edge-{i}", "--format", "sharded"]
            words += ["--workspace", str(folder / f"edge-{i}"), "--input", name]
            begun.append((f"edge-{i}", "flavor.cli.flavor_fl", words))
        began = time.time()
        for each, module, words in begun:
            processes.start(each, module, words, environment=environment, log=folder / f"{each}.log")
        watch = Watch({each: processes.pid(each) for each, _, _ in begun}, folder)
        watch.start()
        try:
            processes.wait(["coordinator"], 6 * 3600)
        finally:
            for each, _, _ in begun:
                print(f"--- {each}\n{(folder / f'{each}.log').read_text()[-1500:]}", file=sys.stderr)
        whole_s = time.time() - began
        runs = RunStore(connect(url), "large", url)
        view = runs.read()
        if view.state != "finished":
            raise SystemExit(f"the run is {view.state}: {view.reason}")
        done = list(closed_rounds(runs, open_store(store)))
        check(open_store(store).local(view.global_model.model.path), sites, rounds)
        watch.stop()
    shard_mib = gb * GB / SHARDS / MIB
    return {
        "gb": gb,
        "sites": sites,
        "rounds": rounds,
        "first_round_after_s": done[0].opened_ms / 1000 - began,
        "s_per_round": (done[-1].closed_ms - done[0].opened_ms) / 1000 / rounds,
        "whole_s": whole_s,
        "shard_mib": shard_mib,
        **{f"{role}_peak_mib": peak for role, peak in watch.peak_mib.items()},
        **{f"{role}_anonymous_mib": peak for role, peak in watch.anonymous_mib.items()},
        "allowed_mib": shard_mib + ALLOWED_MIB,
        "disk_gb": watch.disk_gb,
    }


def check(model: Path, sites: int, rounds: int) -> None:
    """The closed form: each round adds the mean of 0.001·i, weighted by i+1, to the first number of each tensor."""
    weights = np.arange(1, sites + 1) / sum(range(1, sites + 1))
    expected = rounds * float(np.sum(weights * 0.001 * np.arange(sites)))
    file = TensorFile.open(model)
    if len(file) != SHARDS * TENSORS:
        raise SystemExit(f"the global model has {len(file)} tensors, not {SHARDS * TENSORS}")
    for name in file.names:
        tensor = file.tensor(name)
        np.testing.assert_allclose(tensor[0], expected, rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(tensor[1:1000], 0)
        np.testing.assert_array_equal(tensor[-1000:], 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=20, help="size of the model in GB (10^9 bytes)")
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--base", type=Path, help="where the folders of the run are made")
    options = parser.parse_args()
    row = measure(options.gb, options.sites, options.rounds, options.base)
    for name, value in row.items():
        print(f"{name:>28}  {value:.4g}")
    is_small = row["aggregator_peak_mib"] <= row["allowed_mib"]
    print(f"aggregator: {'within' if is_small else 'NOT within'} one shard and {ALLOWED_MIB} MiB")
    print(f"written to {save('large', [row])}")


if __name__ == "__main__":
    main()
