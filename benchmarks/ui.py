"""What a page costs and how soon it shows what happens: `flavor ui` as a process, and readers of its stream.

    python benchmarks/ui.py                      # both
    python benchmarks/ui.py commands --rounds 200

`commands`: Redis commands a round of a run of `overhead.py`, by `INFO commandstats`, which counts those in scripts too:
without a page, with one and with ten, by turns; `own_percent` is the part that the page itself has sent, without those
in scripts. `big`: a run of 2,000 clients and 1,000 rounds: the time until everything has come that a page shows first,
the time of a scrape, and memory. Both: how late an entry of the log comes to a reader of the stream, from the time that
Redis gives it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from machine import save, table
from overhead import TRAINER

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.local.processes import ProcessGroup
from flavor.records.client import ClientStatus
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.pulse import Doing, Load, Pulse
from flavor.records.reported import Reported
from flavor.records.summary import RoundSummary
from flavor.records.update import Update
from flavor.records.verdict import Verdict
from flavor.store.open import open_store

MIB = 2**20
TOKEN, BIG = "coordinator", "big"
TARGETS = {"latency_p95_s": 1.0, "commands_more_percent": 1.0, "first_s": 1.0, "scrape_s": 0.1, "memory_mib": 100.0}


class Page:
    """`flavor ui` as a process."""

    def __init__(self, processes: ProcessGroup, url: str, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        environment = {**os.environ, "FLAVOR_REDIS_URL": url}
        processes.start(
            "ui", "flavor.cli.main", ["ui", "--no-open", "--port", str(self.port)], environment=environment, log=log
        )
        self._processes = processes
        until("the page answers", self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("/healthz")[0] == 200
        return False

    def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    @property
    def memory_mib(self) -> float:
        """The resident memory of the process."""
        return float(psutil.Process(self._processes.pid("ui")).memory_info().rss) / MIB


class Reader(threading.Thread):
    """An open page: reads a stream to its end. `late_ms` has the age of each entry of the log when it came."""

    def __init__(self, page: Page, run: str) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
        self._run = run
        self.late_ms: list[float] = []
        self.documents = self.patches = self.bytes = 0
        self._is_first = True
        self.has_document = threading.Event()
        self.start()

    def run(self) -> None:
        """Read."""
        with contextlib.suppress(OSError, AttributeError, ValueError, http.client.HTTPException):
            self._connection.request("GET", f"/api/stream?run={self._run}")
            answer, event = self._connection.getresponse(), ""
            while line := answer.readline():
                self.bytes += len(line)
                if line.startswith(b"event: "):
                    event = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    self._take(event, line[6:])

    def _take(self, event: str, data: bytes) -> None:
        if event == "document":
            self.documents += 1
            self.has_document.set()
        elif event == "patch":
            self.patches += 1
        elif event == "log":
            now_ms = time.time() * 1000
            entries = json.loads(data)
            if not self._is_first:  # what had happened before
                self.late_ms += [now_ms - entry["time_ms"] for entry in entries]
            self._is_first = False

    def close(self) -> None:
        """End the stream."""
        with contextlib.suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self.join(5.0)


def until(what: str, holds: Callable[[], object], timeout_s: float = 120.0) -> None:
    """Wait until this holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.02)


def calls(redis: Any) -> int:
    """The number of commands of the server, with those in scripts."""
    return sum(int(each["calls"]) for each in redis.info("commandstats").values())


def own_calls(redis: Any) -> int:
    """The commands that the board of the page has sent, without those in scripts."""
    return sum(int(each.get("tot-cmds", 0)) for each in redis.client_list() if each["name"] == "flavor-board")


@contextlib.contextmanager
def small_run(folder: Path, rounds: int, edges: int) -> Iterator[tuple[ProcessGroup, str, RunStore]]:
    """A run of `overhead.py` that has begun: real edges, trainers and aggregators, whose training costs nothing."""
    with embedded_server() as url, ProcessGroup() as processes:
        store = open_store(str(folder / "store"), create=True).url
        environment = {**os.environ, "FLAVOR_REDIS_URL": url, "FLAVOR_STORE": store, "FLAVOR_RUN": "overhead"}
        serve = ["serve", "--rounds", str(rounds), "--min-clients", str(edges), "--keep-rounds", "1"]
        processes.start("coordinator", "flavor.cli.main", serve, environment=environment, log=folder / "coordinator")
        for name in ("aggregator-1", "aggregator-2"):
            processes.start(name, "flavor.cli.flavor_agg", [], environment=environment, log=folder / name)
        runs = RunStore(connect(url), "overhead", url)
        until("there is a run", lambda: runs.find() is not None)
        yield processes, url, runs


def start_edges(processes: ProcessGroup, url: str, folder: Path, edges: int) -> None:
    """Start the edges of a `small_run`."""
    store = str(folder / "store")
    environment = {**os.environ, "FLAVOR_REDIS_URL": url, "FLAVOR_STORE": store, "FLAVOR_RUN": "overhead"}
    command = f"{sys.executable} {TRAINER} pickle 4096"
    for name in (f"edge-{number}" for number in range(1, edges + 1)):
        words = ["-m", command, "--client", name, "--workspace", str(folder / name), "--input", str(folder)]
        processes.start(name, "flavor.cli.flavor_fl", words, environment=environment, log=folder / f"{name}.log")


def run_with(pages: int, rounds: int, edges: int) -> dict[str, Any]:
    """Do a run with so many open pages."""
    with tempfile.TemporaryDirectory(prefix="ui-") as name, small_run(Path(name), rounds, edges) as begun:
        processes, url, runs = begun
        folder = Path(name)
        page = Page(processes, url, folder / "ui.log") if pages else None
        readers = [Reader(page, "overhead") for _ in range(pages)] if page is not None else []
        start_edges(processes, url, folder, edges)
        until("round 3", lambda: runs.read().round >= 3)
        before, first, own = calls(runs.redis), runs.read().round, own_calls(runs.redis)
        processes.wait(["coordinator"], 3600)
        made, last, own = calls(runs.redis) - before, runs.read().round, own_calls(runs.redis) - own
        times = [runs.summaries()[at] for at in (first, -1)]
        opened, closed = (json.loads(text)["closed_ms"] for text in times)
        for reader in readers:
            reader.close()
        late = sorted(ms for reader in readers for ms in reader.late_ms)
        return {
            "pages": pages,
            "commands_a_round": made / (last - first),
            "own_percent": 100 * own / made,
            "s_a_round": (closed - opened) / 1000 / (last - first - 1),
            "late_p95_s": late[int(len(late) * 0.95)] / 1000 if late else "",
            "late_max_s": late[-1] / 1000 if late else "",
            "memory_mib": page.memory_mib if page is not None else "",
        }


def commands(rounds: int, edges: int, turns: int) -> list[dict[str, Any]]:
    """Return the medians over turns without a page, with one, and with ten."""
    found: dict[int, list[dict[str, Any]]] = {0: [], 1: [], 10: []}
    for _ in range(turns):
        for pages, rows in found.items():
            rows.append(run_with(pages, rounds, edges))
            print(table(rows[-1:]), file=sys.stderr, flush=True)
    rows = []
    for pages, each in found.items():
        row: dict[str, Any] = {"what": "commands", "pages": pages}
        for name in ("commands_a_round", "own_percent", "s_a_round", "late_p95_s", "late_max_s", "memory_mib"):
            row[name] = statistics.median(one[name] for one in each) if each[0][name] != "" else ""
        without = rows[0]["commands_a_round"] if rows else row["commands_a_round"]
        row["more_percent"] = 100 * (row["commands_a_round"] / without - 1)
        rows.append(row)
    return rows


class BigRun:
    """A run with many clients and many closed rounds, as they stand in Redis."""

    def __init__(self, url: str, clients: int, rounds: int) -> None:
        self.runs = RunStore(connect(url), BIG, url)
        redis, keys = self.runs.redis, self.runs.keys
        config = RunConfig(rounds=rounds + 50, store="/nowhere", min_clients=2, heartbeat_timeout_s=60)
        self.runs.create(rounds=config.rounds, config=config.to_mapping())
        redis.set(keys.coordinator, TOKEN)
        self.names = [f"site-{number:04d}" for number in range(clients)]
        now_ms = self.runs.now_ms()
        with redis.pipeline(transaction=False) as step:
            for number in range(1, rounds + 1):
                metrics = {"loss": 1 / number, "val_auc": 1 - 0.5 / number, "loss (weighted)": 1 / number}
                at_ms = now_ms - (rounds - number) * 1000
                summary = RoundSummary(
                    round=number,
                    opened_ms=at_ms,
                    aggregating_ms=at_ms + 800,
                    closed_ms=at_ms + 900,
                    expected=clients,
                    contributors=clients,
                    refused=0,
                    examples=100 * clients,
                    bytes=4096 * clients,
                    attempts=1,
                    openings=1,
                    metrics=metrics,
                )
                step.rpush(keys.closed, summary.closed_at(summary.closed_ms))
            for name in self.names:
                own = keys.client(name)
                step.sadd(keys.members, name).set(own.lease, "x")
                status = ClientStatus(
                    state="ready", host=f"{name}.example.org", pid=1, public_key=f"ed25519:{'a' * 64}"
                )
                pulse = Pulse(Doing.TRAINING, rounds + 1, now_ms, Reported(3, 10, round=rounds + 1), Load(3.0, 4, 5))
                step.hset(own.hash, mapping=status.to_hash() | pulse.to_hash())
            step.hset(keys.state, mapping={"round": str(rounds), "state": "running"})
            closed = {"state": "closed", "expected": "[]", "opened_ms": "1", "deadline_ms": "1", "closed_ms": "2"}
            step.hset(keys.round(rounds), mapping={**closed, "attempt": "1"})
            step.execute()
        self.round = rounds
        self.open()

    def open(self) -> None:
        """Open the next round for all clients."""
        self.round += 1
        self.runs.open_round(TOKEN, self.round, expected=self.names, timeout_s=3600, reason="all are ready")

    def accept(self, name: str) -> None:
        """A client hands in an update, which is accepted."""
        ref = ObjectRef(f"runs/{BIG}/{name}-{self.round}", "0" * 64, 4096)
        update = Update(ref, ObjectRef("", ""), "torch", 100, try_id=f"{name}-{self.round}")
        key = self.runs.keys.client(name).update(self.round)
        with self.runs.redis.pipeline() as step:
            step.hset(key, mapping=update.to_hash()).publish(key, str(self.round))
            step.execute()
        self.runs.judge(self.round, name, Verdict(True, "100 examples", update, try_id=update.try_id))

    def close(self) -> None:
        """Close the round."""
        view = self.runs.read_round(self.round)
        assert view is not None
        self.runs.begin_aggregation(TOKEN, self.round, attempt=1, contributors=list(view.accepted), reason="all are in")
        self.runs.claim_round(self.round, attempt=1, token="w", ttl_s=60)
        model = GlobalModel(ObjectRef(f"runs/{BIG}/model-{self.round}", "0" * 64, 4096), None, None, "torch")
        self.runs.commit_round(self.round, attempt=1, token="w", model=model, reason="closed")

    def beat(self, stop: threading.Event) -> None:
        """Have every client live: a heartbeat each 20 s, in which it tells what it does."""
        redis = connect(self.runs.where)
        pause_s = 20 / len(self.names)
        while not stop.is_set():
            for at in range(0, len(self.names), 20):
                if stop.wait(20 * pause_s):
                    return
                with redis.pipeline(transaction=False) as step:
                    for name in self.names[at : at + 20]:
                        own = self.runs.keys.client(name)
                        step.publish(own.state, "").publish(own.pulse, "")
                    step.execute()


def big(clients: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure a page of a large run: what comes first, a scrape, then events, and memory."""
    with (
        tempfile.TemporaryDirectory(prefix="ui-") as name,
        embedded_server() as url,
        ProcessGroup() as processes,
    ):
        run = BigRun(url, clients, rounds)
        page = Page(processes, url, Path(name) / "ui.log")
        page.get(f"/api/runs/{BIG}")
        idle_mib = page.memory_mib
        first, sizes = [], {}
        for _ in range(5):
            began = time.monotonic()
            for path in ("/", f"/api/runs/{BIG}/rounds"):
                sizes[path] = len(page.get(path)[1])
            reader = Reader(page, BIG)
            reader.has_document.wait(60)
            first.append(time.monotonic() - began)
            reader.close()
            sizes["document"] = reader.bytes
        scrape = []
        for _ in range(5):
            began = time.monotonic()
            status, _ = page.get("/metrics")
            scrape.append(time.monotonic() - began)
        stop = threading.Event()
        beats = threading.Thread(target=run.beat, args=[stop], daemon=True)
        beats.start()
        reader = Reader(page, BIG)
        reader.has_document.wait(60)
        before, began, events = calls(run.runs.redis), time.monotonic(), 0
        while time.monotonic() - began < seconds:
            for each in run.names:
                run.accept(each)
                events += 1
                time.sleep(0.005)
                if time.monotonic() - began >= seconds:
                    break
            else:
                run.close()
                run.open()
        made, took = calls(run.runs.redis) - before, time.monotonic() - began
        late_mib = page.memory_mib
        stop.set()
        beats.join()
        reader.close()
        late = sorted(reader.late_ms)
        cpu = psutil.Process(processes.pid("ui")).cpu_times()
        return [
            {
                "what": f"{clients} clients, {rounds} rounds",
                "first_s": statistics.median(first),
                "document_bytes": sizes["document"],
                "rounds_bytes": sizes[f"/api/runs/{BIG}/rounds"],
                "scrape_s": statistics.median(scrape) if status == 200 else "",
                "events": events,
                "commands_s": made / took,
                "late_p95_s": late[int(len(late) * 0.95)] / 1000 if late else "",
                "late_max_s": late[-1] / 1000 if late else "",
                "idle_mib": idle_mib,
                "memory_mib": late_mib,
                "cpu_s": cpu.user + cpu.system,
            }
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["commands", "big"])
    parser.add_argument("--edges", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long events come in the large run")
    options = parser.parse_args()
    found: list[Sequence[dict[str, Any]]] = []
    if options.what in (None, "commands"):
        found.append(commands(options.rounds, options.edges, options.turns))
        print(table(found[-1]), flush=True)
    if options.what in (None, "big"):
        found.append(big(options.clients, 1000, options.seconds))
        print(table(found[-1]), flush=True)
    if options.what is None:
        print(f"targets: {TARGETS}\nwritten to {save('ui', [row for rows in found for row in rows])}")


if __name__ == "__main__":
    main()
