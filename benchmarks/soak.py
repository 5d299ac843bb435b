"""Random faults for minutes on end, against a run with eight edges; then its recorded history is checked.

One Redis (append-only, behind a proxy), a coordinator and a second one now and then, two aggregators, eight edges with
a trainer each. Every second or so something happens to one of them, drawn from the seed: it is killed, paused past its
lease, cut off, hears no publication. What ended is started again, as a supervisor would. At the end, without faults,
two more rounds must close; then `tests/faults/history.py` checks the whole run: each round committed once, from exactly
the recorded contributors, nothing acknowledged lost, rounds only up.

    python benchmarks/soak.py --minutes 10 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import save, table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "faults"))
from history import History  # noqa: E402
from servers import Proxy, Server  # noqa: E402

from flavor.bus.connection import connect  # noqa: E402
from flavor.bus.runs import RunStore  # noqa: E402
from flavor.bus.state import RoundState  # noqa: E402
from flavor.coordinator.jobs import RqJobQueue  # noqa: E402
from flavor.errors import FlavorError  # noqa: E402
from flavor.local.processes import ProcessGroup  # noqa: E402
from flavor.store.objects import open_store  # noqa: E402

RUN, QUEUE = "soak", "soak"
EDGES = [f"c{number}" for number in range(1, 9)]
AGGREGATORS = ["aggregator-1", "aggregator-2"]
COORDINATORS = ["coordinator-1", "coordinator-2"]
TRAINER = f"{sys.executable} {ROOT / 'tests' / 'integration' / 'toy_trainer.py'} --rounds endless"
LEASE_S = 2.0
LONG_S = 120.0
"""No round may take longer than this, faults and all."""


class Soak:
    """One run under fire."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.server = Server(folder / "redis")
        self.proxy = Proxy(self.server.port)
        self.store = open_store(f"{folder}/store", create=True)
        self.redis = connect(self.server.url)  # the checker's own way, around the proxy
        self.runs = RunStore(self.redis, RUN, self.server.url)
        self.injected: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._stopped: set[str] = set()
        self._resting: dict[str, float] = {}
        self._spare = COORDINATORS[1]
        self.server_down = False
        self.faults: list[Callable[[], str | None]] = [
            self.kill_edge,
            self.kill_edge,
            self.pause_edge,
            self.kill_aggregator,
            self.pause_aggregator,
            self.kill_coordinator,
            self.replace_coordinator,
            self.kill_server,
            self.stall_server,
            self.cut_connections,
            self.cut_subscribers,
            self.swallow_publications,
            self.double_job,
            self.replay_events,
        ]

    # -- processes

    def start(self, processes: ProcessGroup) -> None:
        self.processes = processes
        self._environment = {
            **os.environ,
            "FLAVOR_REDIS_URL": self.proxy.url,
            "FLAVOR_STORE": self.store.url,
            "FLAVOR_RUN": RUN,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        self._start(COORDINATORS[0])
        for name in (*AGGREGATORS, *EDGES):
            self._start(name)

    def _start(self, name: str) -> None:
        if name in self.processes.names:
            self.processes.restart(name, most=10**9)
            return
        if name in COORDINATORS:
            module = "flavor.cli.main"
            words = ["serve", "--rounds", "1000000", "--min-clients", "8", "--quorum", "4", "--queue", QUEUE]
            words += ["--on-quorum-lost", "wait", "--keep-rounds", "0", "--round-timeout-s", "20"]
            words += ["--heartbeat-timeout-s", str(LEASE_S), "--aggregation-lease-s", str(LEASE_S)]
            words += ["--aggregation-attempts", "1000"]
        elif name in AGGREGATORS:
            module, words = "flavor.cli.aggregator", ["--queue", QUEUE]
        else:
            module = "flavor.cli.edge"
            words = ["-m", TRAINER, "--client", name, "--workspace", str(self.folder / name), "--format", "pickle"]
        log = self.folder / f"{name}.log"
        self.processes.start(name, module, words, environment=self._environment, log=log)

    def _signal(self, name: str, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.processes.pid(name), number)

    def _alive(self, names: list[str]) -> list[str]:
        return [name for name in names if name in self.processes.running and name not in self._stopped]

    def supervise(self) -> None:
        """Start again what has ended, after a moment; carry out what is due."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        for name in self.processes.names:
            if name == self._spare or name in self.processes.running:
                continue
            if name not in self._resting:
                self._resting[name] = now + self.random.uniform(0.0, 1.5)
            elif now >= self._resting[name]:
                del self._resting[name]
                self.restarts[name.rstrip("0123456789").rstrip("-")] += 1
                self._start(name)

    def _after(self, seconds: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), action))

    def settle(self) -> None:
        """Carry out all that is due later, now: whatever is paused goes on."""
        while self._later:
            heapq.heappop(self._later)[2]()

    def _pause(self, name: str, seconds: float) -> None:
        self._stopped.add(name)
        self._signal(name, signal.SIGSTOP)

        def go_on() -> None:
            self._signal(name, signal.SIGCONT)
            self._stopped.discard(name)

        self._after(seconds, go_on)

    # -- faults: each returns what it did, or None if it could not

    def kill_edge(self) -> str | None:
        return self._kill(EDGES, "edge killed")

    def kill_aggregator(self) -> str | None:
        return self._kill(AGGREGATORS, "aggregator killed")

    def kill_coordinator(self) -> str | None:
        return self._kill([name for name in COORDINATORS if name != self._spare], "coordinator killed")

    def _kill(self, names: list[str], what: str) -> str | None:
        alive = self._alive(names)
        if not alive:
            return None
        self._signal(self.random.choice(alive), signal.SIGKILL)
        return what

    def pause_edge(self) -> str | None:
        return self._pause_one(EDGES, "edge paused")

    def pause_aggregator(self) -> str | None:
        return self._pause_one(AGGREGATORS, "aggregator paused")

    def _pause_one(self, names: list[str], what: str) -> str | None:
        alive = self._alive(names)
        if not alive:
            return None
        seconds = self.random.choice([0.3, 1.0, LEASE_S * 1.5, LEASE_S * 2.5])
        self._pause(self.random.choice(alive), seconds)
        return f"{what} past its lease" if seconds > LEASE_S else what

    def replace_coordinator(self) -> str | None:
        current = next(name for name in COORDINATORS if name != self._spare)
        if not self._alive([current]):
            return None
        self._pause(current, LEASE_S * 3)
        self._start(self._spare)
        self._spare = current
        return "coordinator paused, another takes over"

    def kill_server(self) -> str | None:
        if self.server_down:
            return None
        self.server.kill()
        self.server_down = True

        def again() -> None:
            self.server.start()
            self.server_down = False

        self._after(self.random.uniform(0.1, 3.0), again)
        return "server killed"

    def stall_server(self) -> str | None:
        if self.server_down or self.server.process is None:
            return None
        process = self.server.process
        process.send_signal(signal.SIGSTOP)
        self._after(self.random.uniform(0.2, LEASE_S * 1.5), lambda: process.send_signal(signal.SIGCONT))
        return "server stalled"

    def cut_connections(self) -> str | None:
        self.proxy.cut()
        return "connections cut"

    def cut_subscribers(self) -> str | None:
        return self._asked(lambda: self.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub"), "subscribers cut")

    def swallow_publications(self) -> str | None:
        self.proxy.swallow = True
        self._after(self.random.uniform(0.5, 4.0), lambda: setattr(self.proxy, "swallow", False))
        return "publications swallowed"

    def double_job(self) -> str | None:
        def double() -> None:
            view = self.runs.read()
            round_ = self.runs.read_round(view.round)
            if round_ is not None:
                jobs = RqJobQueue(self.server.url, QUEUE, timeout_s=60)
                for _ in range(2):
                    jobs.aggregate(RUN, view.round, attempt=max(1, round_.attempt))

        return self._asked(double, "aggregation enqueued twice more")

    def replay_events(self) -> str | None:
        def replay() -> None:
            round_ = self.runs.read().round - 1
            if round_ > 0:
                for client in EDGES:
                    key = self.runs.keys.client(client).event(round_, "TrainFinished")  # type: ignore[arg-type]
                    self.redis.publish(key, str(round_))

        return self._asked(replay, "old events replayed")

    def _asked(self, ask: Callable[[], object], what: str) -> str | None:
        """Something that itself needs a server that answers."""
        if self.server_down or any(True for _ in self._later if self._is_stalled()):
            return None
        try:
            ask()
        except (FlavorError, OSError):
            return None
        return what

    def _is_stalled(self) -> bool:
        process = self.server.process
        return process is not None and Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T"

    def rounds(self) -> int:
        """Rounds that are closed; the server must answer."""
        view = self.runs.find()
        if view is None or not view.round:
            return 0
        round_ = self.runs.read_round(view.round)
        return view.round if round_ is not None and round_.state is RoundState.CLOSED else view.round - 1


def soak(minutes: float, seed: int, folder: Path) -> dict[str, Any]:
    made = Soak(folder, seed)
    print(f"seed {seed}: {minutes:g} minutes, {len(EDGES)} edges; logs in {folder}", flush=True)
    with contextlib.closing(made.server), contextlib.closing(made.proxy), ProcessGroup() as processes:
        made.start(processes)
        tick = threading.Event()
        wait_for(made, 1, "the first round")
        end = time.monotonic() + 60 * minutes
        shown = time.monotonic()
        while time.monotonic() < end:
            made.supervise()
            what = made.random.choice(made.faults)()
            if what is not None:
                made.injected[what] += 1
            until = time.monotonic() + made.random.uniform(0.2, 1.6)
            while time.monotonic() < until:
                made.supervise()
                tick.wait(0.05)
            if time.monotonic() - shown > 30 and not made.server_down and not made._is_stalled():
                shown = time.monotonic()
                print(f"  {made.rounds()} rounds, {made.injected.total()} faults", flush=True)
        made.settle()
        made.proxy.swallow = False
        wait_for(made, made.rounds() + 2, "two rounds without faults")
        closed = made.rounds()
        journals = {name: folder / name / "output" / "acknowledged" for name in EDGES}
        history = History(made.runs, made.store, journals)
        history.check()
        lost = len(history.lost())
        acknowledged = sum(len(path.read_text().splitlines()) for path in journals.values() if path.exists())
        contributors = sum(len(view.contributors) for n in history.closed() if (view := made.runs.read_round(n)))
    for what, number in sorted(made.injected.items()):
        print(f"  {number:5d}  {what}")
    print(f"  restarts: {dict(made.restarts)}")
    return {
        "seed": seed,
        "minutes": minutes,
        "rounds": closed,
        "faults": made.injected.total(),
        "by_kind": dict(sorted(made.injected.items())),
        "acknowledged_events": acknowledged,
        "updates_aggregated": contributors,
        "updates_lost": lost,
    }


def wait_for(made: Soak, rounds: int, what: str) -> None:
    """Wait until so many rounds are closed, with supervision and no faults."""
    deadline = time.monotonic() + LONG_S
    tick = threading.Event()
    while made.rounds() < rounds:
        made.supervise()
        if time.monotonic() > deadline:
            view = made.runs.find()
            raise SystemExit(f"{what}: not within {LONG_S:g} s; the run is {view}; logs in {made.folder}")
        tick.wait(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--seed", type=int, action="append", help="may be repeated; one soak each  [default: a new one]"
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs and the store")
    options = parser.parse_args()
    rows = []
    for seed in options.seed or [random.SystemRandom().randrange(10**6)]:
        folder = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-"))
        rows.append(soak(options.minutes, seed, folder))
        if not options.keep:
            import shutil

            shutil.rmtree(folder, ignore_errors=True)
    print(table([{key: value for key, value in row.items() if key != "by_kind"} for row in rows]))
    print("every invariant held")
    print(f"written to {save('soak', rows)}")


if __name__ == "__main__":
    main()
