"""The faults of a soak: drawn from a seed, and what each does to the federation."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from redis.exceptions import RedisError
from soak_driver import AGGREGATORS, EDGES, EVERYTHING, LEASE_S, QUEUE, ROOM, RUN, Driver

from flavor.bus.jobs import RqJobQueue
from flavor.errors import FlavorError
from flavor.parent_death import die_with_parent
from flavor.records.names import Event
from flavor.records.update import Update
from tests.faults.servers import filled

ENDS_S = 30.0
"""A process that was told to end, by SIGTERM or because of a wrong store, does so within this time, faults and all."""
SLOW_BYTES_S = 4000.0
"""Of a throttled link, towards the server."""
WRONG_USE, NO_REDIS = 2, 3
SPARE_BYTES = 2**20
"""What may be written to the store between a look at it and its being full."""


class Fault(NamedTuple):
    """One, as it was drawn."""

    at_s: float
    kind: str
    target: str
    size: float
    """In [0, 1): how long it takes, between the least and the most of its kind."""


KINDS: dict[str, Sequence[str]] = {
    "edge killed": EDGES,
    "edge terminated": EDGES,
    "edge paused": EDGES,
    "site started with a wrong store": EDGES,
    "trainer killed": EDGES,
    "update spoiled": EDGES,
    "aggregator killed": AGGREGATORS,
    "aggregator terminated": AGGREGATORS,
    "aggregator paused": AGGREGATORS,
    "coordinator killed": ["-"],
    "coordinator terminated": ["-"],
    "coordinator paused, another takes over": ["-"],
    "server killed": ["-"],
    "server restarted": ["-"],
    "server stalled": ["-"],
    "server out of memory": ["-"],
    "store without room": ["-"],
    "all connections cut": ["-"],
    "subscribers cut": ["-"],
    "publications swallowed": ["-"],
    "one process cut off": EVERYTHING,
    "one process's network stalled": EVERYTHING,
    "one process's link throttled": EVERYTHING,
    "aggregation enqueued twice more": ["-"],
    "old events replayed": ["-"],
}
"""Whom each kind can happen to."""
OFTEN = ("edge killed", "edge paused")
"""Twice as likely as the others: there are eight of them."""


def drawn(seed: int, seconds: float) -> list[Fault]:
    """The faults of a soak, in order."""
    draw = random.Random(seed)
    kinds = [*KINDS, *OFTEN]
    faults, at_s = [], 0.0
    while at_s < seconds:
        kind = draw.choice(kinds)
        faults.append(Fault(at_s, kind, draw.choice(KINDS[kind]), draw.random()))
        at_s += draw.uniform(0.2, 1.6)
    return faults


class Injector:
    """Carries out faults. Each method returns False where its fault cannot happen now."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.injected: Counter[str] = Counter()
        self._store_full = self._server_full = False
        self._kinds: dict[str, Callable[[Fault], bool]] = {
            "edge killed": lambda fault: self._kill(fault.target),
            "edge terminated": lambda fault: self._terminate(fault.target),
            "site started with a wrong store": self._mistake_store,
            "edge paused": self._pause,
            "trainer killed": self._kill_trainer,
            "update spoiled": self._spoil_update,
            "aggregator killed": self._kill_aggregator,
            "aggregator terminated": lambda fault: self._terminate(fault.target),
            "aggregator paused": self._pause,
            "coordinator killed": lambda fault: self._kill(self.driver.coordinator),
            "coordinator terminated": lambda fault: self._terminate(self.driver.coordinator),
            "coordinator paused, another takes over": self._replace_coordinator,
            "server killed": lambda fault: self._end_server(fault, self.driver.server.kill),
            "server restarted": lambda fault: self._end_server(fault, self.driver.server.shut_down),
            "server stalled": self._stall_server,
            "server out of memory": self._fill_server,
            "store without room": self._fill_store,
            "all connections cut": self._cut_connections,
            "subscribers cut": self._cut_subscribers,
            "publications swallowed": self._swallow_publications,
            "one process cut off": self._cut_off,
            "one process's network stalled": self._stall_network,
            "one process's link throttled": self._throttle,
            "aggregation enqueued twice more": self._double_job,
            "old events replayed": self._replay_events,
        }
        assert self._kinds.keys() == KINDS.keys()

    def inject(self, fault: Fault) -> None:
        if self._kinds[fault.kind](fault):
            self.injected[fault.kind] += 1

    def _kill(self, name: str) -> bool:
        alive = self.driver.alive(name)
        if alive:
            self.driver.signal(name, signal.SIGKILL)
        return alive

    def _terminate(self, name: str) -> bool:
        """As a supervisor ends it; which must say that it was told to, and soon."""
        alive = self.driver.alive(name)
        if alive:
            self.driver.signal(name, signal.SIGTERM)
            pid = self.driver.processes.pid(name)
            due = time.monotonic() + ENDS_S
            self.driver.after(ENDS_S, lambda: self._must_have_ended(name, pid, due))
        return alive

    def _must_have_ended(self, name: str, pid: int, due: float) -> None:
        runs = name in self.driver.processes.running and self.driver.processes.pid(name) == pid
        if runs and name not in self.driver.stopped and time.monotonic() >= due:  # `settle` may ask earlier
            self.driver.wrong.append(f"{name} (process {pid}) was told to end {ENDS_S:g} s ago, and runs")

    def _mistake_store(self, fault: Fault) -> bool:
        """The site is started again, another folder as store: it says so and ends, and writes nothing there."""
        name = fault.target
        if not self._terminate(name):
            return False
        self.driver.mistaken.add(name)
        elsewhere = self.driver.folder / f"{name}-elsewhere"
        theirs = elsewhere / "notes"  # an empty folder may be where a share is mounted later
        theirs.mkdir(parents=True, exist_ok=True)
        module, words = self.driver.command(name)
        with (self.driver.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *words, "--store", str(elsewhere)],
                env=self.driver.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - the callback is async-signal-safe
            )
        due = time.monotonic() + ENDS_S

        def look() -> None:
            if process.poll() is None and time.monotonic() < due:
                self.driver.after(0.1, look)
                return
            if process.poll() is None:
                process.kill()
                process.wait()
                self.driver.wrong.append(f"{name} ran for {ENDS_S:g} s with a wrong store")
            elif process.returncode not in (WRONG_USE, NO_REDIS):
                self.driver.wrong.append(f"{name} ended with code {process.returncode} for a wrong store")
            if found := [str(path) for path in elsewhere.rglob("*") if path != theirs]:
                self.driver.wrong.append(f"{name} wrote into a wrong store: {found}")
            self.driver.mistaken.discard(name)

        look()
        return True

    def _kill_aggregator(self, fault: Fault) -> bool:
        """The process that works, or the one that would start it again."""
        if fault.size < 0.5 or not self.driver.alive(fault.target):
            return self._kill(fault.target)
        return self._kill_child(self.driver.processes.pid(fault.target))

    def _kill_trainer(self, fault: Fault) -> bool:
        if not self.driver.alive(fault.target):
            return False
        return self._kill_child(self.driver.processes.pid(fault.target))

    def _kill_child(self, parent: int) -> bool:
        with contextlib.suppress(OSError, IndexError):
            os.kill(int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0]), signal.SIGKILL)
            return True
        return False

    def _pause(self, fault: Fault) -> bool:
        alive = self.driver.alive(fault.target)
        if alive:
            self._pause_for(fault.target, 0.3 + fault.size * LEASE_S * 2.5)
        return alive

    def _pause_for(self, name: str, seconds: float) -> None:
        self.driver.stopped.add(name)
        self.driver.signal(name, signal.SIGSTOP)

        def go_on() -> None:
            self.driver.signal(name, signal.SIGCONT)
            self.driver.stopped.discard(name)

        self.driver.after(seconds, go_on)

    def _replace_coordinator(self, fault: Fault) -> bool:
        if not self.driver.alive(self.driver.coordinator) or self.driver.spare in self.driver.processes.running:
            return False
        self._pause_for(self.driver.coordinator, LEASE_S * (1.5 + 2 * fault.size))
        self.driver.start(self.driver.spare)
        self.driver.coordinator, self.driver.spare = self.driver.spare, self.driver.coordinator
        return True

    def _end_server(self, fault: Fault, end: Callable[[], None]) -> bool:
        if not self.driver.answers:
            return False
        end()
        self.driver.server_down = True

        def again() -> None:
            self.driver.server.start()
            self.driver.server_down = self._server_full = False

        self.driver.after(0.1 + 3 * fault.size, again)
        return True

    def _stall_server(self, fault: Fault) -> bool:
        process = self.driver.server.process
        if not self.driver.answers or process is None:
            return False
        process.send_signal(signal.SIGSTOP)
        self.driver.server_stalled = True  # /proc may say so a moment later only

        def go_on() -> None:
            process.send_signal(signal.SIGCONT)
            self.driver.server_stalled = False

        self.driver.after(0.2 + LEASE_S * 1.5 * fault.size, go_on)
        return True

    def _fill_server(self, fault: Fault) -> bool:
        def enlarge() -> None:
            if self.driver.server_down:
                return  # started again, it has no limit
            if not self.driver.answers:
                self.driver.after(0.1, enlarge)
            else:
                self.driver.redis.config_set("maxmemory", 0)
                self._server_full = False

        done = self._asked(lambda: self.driver.redis.config_set("maxmemory", 1))
        if done:
            self._server_full = True
            self.driver.after(0.2 + 3 * fault.size, enlarge)
        return done

    def _fill_store(self, fault: Fault) -> bool:
        """It is made as small as what lies there, nearly, and the rest is taken."""
        store = self.driver.folder / "store"
        if not self.driver.store_is_small or self._store_full:
            return False
        found = os.statvfs(store)
        if not self._resize(f"{(found.f_blocks - found.f_bfree) * found.f_frsize + SPARE_BYTES}"):
            return False
        ballast = filled(store)
        self._store_full = True

        def make_room() -> None:
            ballast.unlink()
            assert self._resize(ROOM)
            self._store_full = False

        self.driver.after(0.2 + LEASE_S * 2 * fault.size, make_room)
        return True

    def _resize(self, size: str) -> bool:
        command = ["mount", "-o", f"remount,size={size}", str(self.driver.folder / "store")]
        return not subprocess.run(command, check=False, capture_output=True).returncode

    def _cut_connections(self, fault: Fault) -> bool:
        for proxy in self.driver.proxies.values():
            proxy.cut()
        return True

    def _cut_subscribers(self, fault: Fault) -> bool:
        return self._asked(lambda: self.driver.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))

    def _swallow_publications(self, fault: Fault) -> bool:
        self._of_proxies(EVERYTHING, "swallow", 0.5 + 3.5 * fault.size)
        return True

    def _cut_off(self, fault: Fault) -> bool:
        self._of_proxies([fault.target], "refuse", 0.3 + LEASE_S * 3 * fault.size)
        self.driver.proxies[fault.target].cut()
        return True

    def _of_proxies(self, names: Sequence[str], fault: str, seconds: float) -> None:
        for name in names:
            setattr(self.driver.proxies[name], fault, True)
            self.driver.after(seconds, lambda proxy=self.driver.proxies[name]: setattr(proxy, fault, False))  # type: ignore[misc]

    def _throttle(self, fault: Fault) -> bool:
        """A heartbeat still fits through it."""
        proxy = self.driver.proxies[fault.target]
        proxy.pace = SLOW_BYTES_S
        self.driver.after(0.3 + LEASE_S * 3 * fault.size, lambda: setattr(proxy, "pace", 0.0))
        return True

    def _stall_network(self, fault: Fault) -> bool:
        proxy = self.driver.proxies[fault.target]
        proxy.flows.clear()
        self.driver.after(0.3 + LEASE_S * 3 * fault.size, proxy.flows.set)
        return True

    def _spoil_update(self, fault: Fault) -> bool:
        """Half of the object that this edge has handed in, until a moment later: then it is whole again for the check.

        The file is another one, as when a store's disk is restored from an older copy: what is being read stays. Not
        where the round has only its quorum without it: then the fault would end the run, as it should.
        """

        def spoil() -> bool:
            store, round_ = self.driver.folder / "store", self.driver.runs.read().round
            handed_in = self.driver.runs.updates(round_, [fault.target]).get(fault.target)
            path = handed_in.object.path if isinstance(handed_in, Update) else ""
            whole = store / path
            if not path or not whole.is_file():
                return False
            view = self.driver.runs.read_round(round_)
            accepted = [each.object.path for each in view.accepted.values()] if view else []
            others = sum(not (store / f"{other}.whole").exists() for other in accepted if other != path)
            if others < self.driver.needed:
                return False
            aside = whole.with_name(f"{whole.name}.whole")
            if aside.exists():
                return False
            whole.rename(aside)
            half = whole.with_name(f"{whole.name}.half")
            half.write_bytes(aside.read_bytes()[: aside.stat().st_size // 2])
            half.rename(whole)
            self.driver.after(0.5 + 3 * fault.size, lambda: aside.rename(whole))
            return True

        return not self._store_full and self._asked(spoil)

    def _double_job(self, fault: Fault) -> bool:
        def double() -> None:
            view = self.driver.runs.read()
            round_ = self.driver.runs.read_round(view.round)
            if round_ is not None:
                jobs = RqJobQueue(self.driver.server.url, QUEUE, timeout_s=60, patience_s=1)
                for _ in range(2):
                    jobs.aggregate(RUN, view.round, attempt=max(1, round_.attempt))

        return not self._server_full and self._asked(double)  # it would wait until there is room

    def _replay_events(self, fault: Fault) -> bool:
        def replay() -> None:
            round_ = self.driver.runs.read().round - 1
            for client in EDGES if round_ > 0 else ():
                key = self.driver.runs.keys.client(client).event(round_, Event.TRAIN_FINISHED)
                self.driver.redis.publish(key, str(round_))

        return self._asked(replay)

    def _asked(self, ask: Callable[[], object]) -> bool:
        """Something that itself needs a server that answers."""
        if not self.driver.answers:
            return False
        try:
            return ask() is not False
        except (FlavorError, RedisError, OSError):  # it is full, say
            return False
