"""The time that a small aggregation adds to a round: the gap between two rounds, as a subscriber of Redis sees it."""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from overhead import TRAINER, ProcessGroupAndServer

from flavor.bus.connection import connect

EDGES = 2
BYTES = 4096
TARGET_MS = 40.0


class Listener(threading.Thread):
    """Notes when each client's TrainStarted and TrainFinished of each round is published."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.seen: dict[tuple[str, int], dict[str, float]] = {}
        self._pubsub = connect(url).pubsub()
        self._pubsub.psubscribe("flavor:*:client:*:round:*:event:Train*")
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.is_set():
            message = self._pubsub.get_message(timeout=0.2)
            at = time.monotonic()
            if message is None or message["type"] != "pmessage":
                continue
            words = _text(message["channel"]).split(":")
            client, round_, event = words[-5], int(words[-3]), words[-1]
            self.seen.setdefault((event, round_), {}).setdefault(client, at)

    def stop(self) -> None:
        self._done.set()
        self.join()
        self._pubsub.close()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def small_rounds(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Run `rounds` rounds of two edges with a model of 4 KiB; a row for each rule."""
    return [_measured(folder / str(number), rounds, rule) for number, rule in enumerate(("fedavg", "diloco", "median"))]


def _measured(folder: Path, rounds: int, rule: str) -> dict[str, Any]:
    folder.mkdir()
    with ProcessGroupAndServer(folder) as (processes, url, store):
        listener = Listener(url)
        listener.start()
        environment = {**os.environ, "FLAVOR_REDIS_URL": url, "FLAVOR_STORE": store, "FLAVOR_RUN": "small"}
        serve = ["serve", "--rounds", str(rounds), "--min-clients", str(EDGES), "--aggregator", rule]
        started: list[tuple[str, str, list[str]]] = [
            ("coordinator", "flavor.cli.main", serve),
            ("aggregator", "flavor.cli.flavor_agg", []),
        ]
        for i in range(1, EDGES + 1):
            words = ["-m", f"{sys.executable} {TRAINER} pickle {BYTES}", "--client", f"edge-{i}"]
            words += ["--workspace", str(folder / f"edge-{i}"), "--input", str(folder)]
            started.append((f"edge-{i}", "flavor.cli.flavor_fl", words))
        for name, module, words in started:
            processes.start(name, module, words, environment=environment, log=folder / f"{name}.log")
        processes.wait(["coordinator"], 600)
        listener.stop()
        processes.wait([f"edge-{i}" for i in range(1, EDGES + 1)], 60)
    first, last = [], []
    for round_ in range(2, rounds):  # the first round's gap has the start of everything in it
        finished = listener.seen[("TrainFinished", round_)]
        began = listener.seen[("TrainStarted", round_ + 1)]
        if len(finished) == len(began) == EDGES:
            first.append((min(began.values()) - max(finished.values())) * 1e3)
            last.append((max(began.values()) - max(finished.values())) * 1e3)
    measured = statistics.median(last)
    return {
        "rule": rule,
        "edges": EDGES,
        "bytes": BYTES,
        "gaps": len(last),
        "to_the_first_start_ms": statistics.median(first),
        "to_the_last_start_ms": measured,
        "p90_ms": statistics.quantiles(last, n=10)[8],
        "target": f"<= {TARGET_MS:g} ms",
        "met": "yes" if measured <= TARGET_MS else "NO",
    }
