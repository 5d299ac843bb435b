"""The federation under faults: its server, proxies and processes, which are started again as by a supervisor."""

from __future__ import annotations

import contextlib
import faulthandler
import heapq
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.local.processes import ProcessGroup
from flavor.policy.mode import SYNC, Buffered
from flavor.records.states import RoundState
from flavor.store.open import open_store
from tests.faults.servers import Proxy, Server, tmpfs

ROOT = Path(__file__).resolve().parents[1]
RUN, QUEUE = "soak", "soak"
EDGES = [f"c{number}" for number in range(1, 9)]
AGGREGATORS = ["aggregator-1", "aggregator-2"]
COORDINATORS = ["coordinator-1", "coordinator-2"]
EVERYTHING = [*EDGES, *AGGREGATORS, *COORDINATORS]
TRAINER = f"{sys.executable} {ROOT / 'tests' / 'integration' / 'toy_trainer.py'} --rounds endless"
QUORUM = {"wait": 4, "retry": 7}
ROUND_TIMEOUT_S = {"wait": 20.0, "retry": 3.0}
"""By `--on-quorum-lost`: with more to lose and less time, rounds do lose their quorum, and are opened again."""
LEASE_S = 2.0
LONG_S = 120.0
"""No round may take longer than this, faults and all."""
ROOM = "1g"
"""Size of the store's file system, where it has one of its own."""


class Driver:
    """Starts the processes of one run, and starts again what has ended."""

    def __init__(self, folder: Path, seed: int, on_quorum_lost: str, mode: str = SYNC) -> None:
        self.folder, self.seed, self.mode = folder, seed, mode
        buffered = Buffered.parse(mode)
        self.buffer = buffered.buffer if buffered is not None else None
        self.needed = self.buffer or QUORUM[on_quorum_lost]
        """The updates that a round needs: an asynchronous one closes with them, and is given no quorum."""
        users = folder / "users.acl"  # beside the data, which Redis loses
        users.touch()
        self.server = Server(folder / "redis", "--aclfile", str(users))
        self.proxies = {name: Proxy(self.server.port) for name in EVERYTHING}
        self._mounts = contextlib.ExitStack()
        self.store_is_small = os.geteuid() == 0
        if self.store_is_small:
            self._mounts.enter_context(tmpfs(folder / "store", ROOM))
        self.store = open_store(f"{folder}/store", create=True)
        self.redis = connect(self.server.url)  # the checker's own way, around the proxies
        self.runs = RunStore(self.redis, RUN, self.server.url)
        self.restarts: Counter[str] = Counter()
        self.on_quorum_lost = on_quorum_lost
        self.wrong: list[str] = []
        """Findings on the way that must not occur."""
        self.handed_in = folder / "handed-in"
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._tick = threading.Event()
        self.stopped: set[str] = set()
        self.mistaken: set[str] = set()
        self._resting: dict[str, float] = {}
        self.coordinator, self.spare = COORDINATORS
        self.server_stalled = False
        self.server_down = False

    def start_all(self, processes: ProcessGroup) -> None:
        self.processes = processes
        self._tokens = {name: self._enrolled(name) for name in EDGES}
        for name in (self.coordinator, *AGGREGATORS, *EDGES):
            self.start(name)

    def _enrolled(self, name: str) -> str:
        """The join token of an edge, which may send nothing but what a site may."""
        command = [sys.executable, "-m", "flavor.cli.main", "enroll", RUN, name]
        command += ["--redis-url", self.server.url, "--public-url", self.proxies[name].url]
        return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout.strip()

    def start(self, name: str) -> None:
        if name in self.processes.names:
            self.processes.restart(name, most=10**9)
            return
        module, words = self.command(name)
        self.processes.start(name, module, words, environment=self.environment(name), log=self.folder / f"{name}.log")

    def command(self, name: str) -> tuple[str, list[str]]:
        """Its module and arguments."""
        if name in COORDINATORS:
            module = "flavor.cli.main"
            words = [
                "serve",
                "--rounds",
                "1000000",
                "--min-clients",
                "8",
                "--queue",
                QUEUE,
                "--mode",
                self.mode,
            ]
            words += ["--quorum", str(self.needed)] if self.buffer is None else []
            words += ["--on-quorum-lost", self.on_quorum_lost, "--round-attempts", "1000000"]
            words += ["--keep-rounds", "0", "--round-timeout-s", str(ROUND_TIMEOUT_S[self.on_quorum_lost])]
            words += ["--heartbeat-timeout-s", str(LEASE_S), "--aggregation-lease-s", str(LEASE_S)]
            words += ["--aggregation-attempts", "1000", "--quarantine-after", "0"]
        elif name in AGGREGATORS:
            module, words = "flavor.cli.flavor_agg", ["--queue", QUEUE]
        else:
            module = "flavor.cli.flavor_fl"
            words = ["-m", TRAINER, "--workspace", str(self.folder / name), "--format", "pickle"]
        return module, words

    def environment(self, name: str) -> dict[str, str]:
        bus = {"FLAVOR_REDIS_URL": self.proxies[name].url, "FLAVOR_RUN": RUN}
        return {
            **os.environ,
            **({"FLAVOR_JOIN": self._tokens[name]} if name in EDGES else bus),
            "FLAVOR_STORE": self.store.url,
            "FLAVOR_JOURNAL": str(self.handed_in),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def signal(self, name: str, number: signal.Signals) -> None:
        both = name in AGGREGATORS and number in (signal.SIGSTOP, signal.SIGCONT)  # which nothing passes on
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if both else os.kill)(self.processes.pid(name), number)

    def alive(self, name: str) -> bool:
        return name in self.processes.running and name not in self.stopped

    def supervise(self) -> None:
        """Start again what has ended, after a moment; carry out what is due.

        If this is not called again for long, the soak itself is stuck: it says where, and ends.
        """
        faulthandler.dump_traceback_later(2 * LONG_S, exit=True)
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        running = self.processes.running
        if self.coordinator not in running and self.spare in running:  # that one went on in time
            self.coordinator, self.spare = self.spare, self.coordinator
        for name in self.processes.names:
            if name == self.spare or name in self.mistaken or name in self.processes.running:
                continue
            if name not in self._resting:
                moment = random.Random(f"{self.seed}/{name}/{self.restarts[name]}")
                self._resting[name] = now + moment.uniform(0.0, 1.5)
            elif now >= self._resting[name]:
                del self._resting[name]
                self.restarts[name] += 1
                self.start(name)

    def look_again(self, seconds: float) -> None:
        """Supervise, and wait for a moment: for loops that look for something until a deadline."""
        self.supervise()
        self._tick.wait(seconds)

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), action))

    def settle(self) -> None:
        """Carry out all that is due later, now: all that is paused goes on."""
        while self._later:
            heapq.heappop(self._later)[2]()

    @property
    def answers(self) -> bool:
        """Whether the server runs, and is not stopped."""
        return not (self.server_down or self.server_stalled)

    def rounds(self) -> int:
        """Rounds that are closed; the server must answer."""
        view = self.runs.find()
        if view is None or not view.round:
            return 0
        round_ = self.runs.read_round(view.round)
        return view.round if round_ is not None and round_.state is RoundState.CLOSED else view.round - 1

    def close(self) -> None:
        self.redis.close()
        self.server.close()
        for proxy in self.proxies.values():
            proxy.close()
        if self.store_is_small:  # it is gone with its file system
            shutil.copytree(self.folder / "store", self.folder / "store-at-the-end")
        self._mounts.close()
