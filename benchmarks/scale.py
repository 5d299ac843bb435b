"""How many clients one coordinator and one Redis serve: simulated edges speak the protocol, without trainers.

The simulator plays E edges over a few connections: each holds a lease, announces itself, takes every task, sets
TrainStarted and TrainFinished and hands in an update of a few bytes, which a real aggregator inspects and aggregates.
The coordinator and the aggregator are the real processes. At the end every round must have all E contributors, and
every event that was set must be there.

    python benchmarks/scale.py                     # 100 to 2,000 edges, 20 rounds each
    python benchmarks/scale.py --edges 500 --rounds 5
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import save, table

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.keys import RunKeys
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC, Subscription
from flavor.checkpoints import TensorFileWriter, TensorSpec
from flavor.local.processes import ProcessGroup
from flavor.records.client import ClientStatus
from flavor.records.info import CONFUSION, info_bytes
from flavor.records.names import Event
from flavor.store.open import open_store
from flavor.store.paths import named, update_prefix

RUN = "scale"
LEASE_MS = 600_000
BATCH = 200
SIZES = (100, 250, 500, 1000, 2000)
MIB = 2**20


class Edges(threading.Thread):
    """E simulated edges."""

    def __init__(self, url: str, store: Path, count: int) -> None:
        super().__init__(daemon=True)
        self._redis = connect(url)
        self._keys = RunKeys(RUN)
        self._clients = {f"c{number:04d}": self._keys.client(f"c{number:04d}") for number in range(count)}
        self._store = store
        self._done: dict[str, int] = dict.fromkeys(self._clients, 0)
        self._object, self._digest, self._size = self._made()
        pattern = f"{self._keys.prefix}to:*:round:*:task"
        self._subscription = Subscription(connect(url), url, channels=[self._keys.state], patterns=[pattern])
        self.events = 0

    def _made(self) -> tuple[Path, str, int]:
        path = self._store / "the-update"
        with TensorFileWriter(path, [TensorSpec("w", np.dtype(np.float32), (8,))]) as writer:
            writer.write("w", np.ones(8, np.float32))
        info = {"metadata": {"epoch": 1, "datasetSize": 1, "importance": 1.0}, "metrics": dict.fromkeys(CONFUSION, -1)}
        self._info = info_bytes(info)
        return path, writer.sha256, writer.size_bytes

    def join_run(self) -> None:
        """Every edge takes its lease."""
        self._subscription.open()
        with self._redis.pipeline(transaction=False) as step:
            for name, keys in self._clients.items():
                step.set(keys.lease, f"simulator:{name}", nx=True, px=LEASE_MS)
            step.execute()

    def _announce(self) -> None:
        """Every edge says that it is ready, as edges do whenever the run's hash is published on."""
        names = list(self._clients)
        for start in range(0, len(names), BATCH):
            with self._redis.pipeline(transaction=False) as step:
                for name in names[start : start + BATCH]:
                    keys = self._clients[name]
                    step.hset(keys.hash, mapping=ClientStatus("ready", host="simulator").to_hash())
                    step.publish(keys.state, "ready")
                step.execute()

    def run(self) -> None:
        while True:
            woken = self._subscription.wait(5.0)
            if RESYNC in woken or self._keys.state in woken or not woken:
                state, round_ = self._redis.hmget(self._keys.state, "state", "round")
                if state not in (None, "waiting", "running"):
                    return
                if state == "waiting":
                    self._announce()
                woken = [keys.task(int(round_ or 0)) for keys in self._clients.values()]
            tasks: dict[str, int] = {}
            for channel in woken:
                parsed = self._keys.parse_client_channel(channel)
                if parsed is not None and parsed[1].endswith(":task"):
                    tasks[parsed[0]] = int(parsed[1].split(":")[1])
            new = [(name, round_) for name, round_ in tasks.items() if round_ > self._done.get(name, round_)]
            for start in range(0, len(new), BATCH):
                self._work(new[start : start + BATCH])

    def _work(self, tasks: Sequence[tuple[str, int]]) -> None:
        with self._redis.pipeline(transaction=False) as reads:
            for name, round_ in tasks:
                reads.hget(self._clients[name].task(round_), "opened_ms")
            given = reads.execute()
        with self._redis.pipeline(transaction=False) as step:
            for (name, round_), opened in zip(tasks, given, strict=True):
                if opened is None:
                    continue
                keys = self._clients[name]
                path = named(update_prefix(RUN, round_, name), "update", self._digest, ".safetensors")
                target = self._store / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._object, target)  # a file of its own, as every edge has
                step.set(keys.started, str(round_))
                for event in (Event.TRAIN_STARTED, Event.TRAIN_FINISHED):
                    step.set(keys.event(round_, event), "1", nx=True)
                    step.publish(keys.event(round_, event), str(round_))
                digest = hashlib.sha256(self._info).hexdigest()
                info_path = named(update_prefix(RUN, round_, name), "info", digest, ".json")
                (self._store / info_path).write_bytes(self._info)
                of_info = {"info_path": info_path, "info_digest": digest, "num_examples": "1"}
                fields = {"path": path, "digest": self._digest, "size": str(self._size), "format": "safetensors"}
                step.hset(keys.update(round_), mapping=fields | of_info)
                step.publish(keys.update(round_), str(round_))
                self._done[name] = round_
                self.events += 3
            step.execute()

    def lost(self, rounds: int) -> int:
        """How many of the events that were set are not there."""
        missing = 0
        for keys in self._clients.values():
            names = [
                keys.event(n, e) for n in range(1, rounds + 1) for e in (Event.TRAIN_STARTED, Event.TRAIN_FINISHED)
            ]
            missing += len(names) - self._redis.exists(*names)
        return missing


def measure(edges: int, rounds: int) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="scale-") as folder,
        embedded_server() as url,
        ProcessGroup() as processes,
    ):
        log, store = Path(folder), open_store(f"{folder}/store", create=True)
        environment = {**os.environ, "FLAVOR_REDIS_URL": url, "FLAVOR_STORE": store.url, "FLAVOR_RUN": RUN}
        words = ["serve", "--rounds", str(rounds), "--min-clients", str(edges), "--keep-rounds", "0"]
        words += ["--heartbeat-timeout-s", "600", "--aggregation-lease-s", "60"]
        processes.start("coordinator", "flavor.cli.main", words, environment=environment, log=log / "coordinator.log")
        processes.start("aggregator", "flavor.cli.flavor_agg", [], environment=environment, log=log / "aggregator.log")
        simulator = Edges(url, Path(folder) / "store", edges)
        simulator.join_run()
        simulator.start()
        began = time.monotonic()
        peak = cpu = 0.0
        coordinator = psutil.Process(processes.pid("coordinator"))
        while "coordinator" in processes.running:
            processes.wait(["coordinator"], 0.2)
            try:
                peak = max(peak, coordinator.memory_info().rss / MIB)
                cpu = sum(coordinator.cpu_times()[:2])
            except psutil.Error:
                break
        wall = time.monotonic() - began
        runs = RunStore(connect(url), RUN, url)
        view = runs.read()
        if view.state != "finished":
            raise SystemExit(f"the run is {view.state}: {view.reason}; {(log / 'coordinator.log').read_text()[-2000:]}")
        views = [runs.read_round(number) for number in range(1, rounds + 1)]
        short = sum(edges - len(each.contributors) for each in views if each)
        lost = simulator.lost(rounds)
        opened = [each.opened_ms for each in views if each] + [views[-1].closed_ms]
        seconds = [(b - a) / 1000 for a, b in itertools.pairwise(opened)]
        commands = runs.redis.info("stats")["total_commands_processed"]
    if short or lost:
        raise SystemExit(f"{edges} edges: {short} updates and {lost} events were lost")
    median = statistics.median(seconds)
    return {
        "edges": edges,
        "rounds": rounds,
        "s_per_round": median,
        "ms_per_round_and_edge": 1000 * median / edges,
        "events_per_s": 3 * edges / median,
        "redis_commands_per_s": commands / wall,
        "coordinator_mib": peak,
        "coordinator_cpu_s": cpu,
        "lost": short + lost,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    rows = []
    for edges in [options.edges] if options.edges else SIZES:
        rows.append(measure(edges, options.rounds))
        print(table(rows[-1:]), flush=True)
    print()
    print(table(rows))
    if not options.edges:
        first, last = rows[0], rows[-1]
        growth = last["s_per_round"] / first["s_per_round"] / (last["edges"] / first["edges"])
        print(f"\nfrom {first['edges']} to {last['edges']} edges: {growth:.2f} of a straight line through 0")
        print(f"written to {save('scale', rows)}")


if __name__ == "__main__":
    main()
