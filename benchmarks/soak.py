"""Random faults for minutes on end, against a run with eight edges; then its recorded history is checked.

One Redis (append-only), a coordinator and a second one now and then, two aggregators, eight enrolled edges with a
trainer each; a proxy before each of them. Every second or so something happens to one of them: it is killed, told to
end by SIGTERM, paused past its lease, cut off, throttled, hears no publication, finds Redis full, away or restarted,
has its update spoiled, the store's disk full (for root alone), or is started with a wrong store (a site). What ended is
started again, as a supervisor would. At half time the history is checked, Redis loses everything, and `flavor recover`
rebuilds the run from the store. At the end, without faults, two more rounds must close; then `tests/faults/history.py`
checks the run again: each round committed once, from exactly the recorded contributors, nothing acknowledged lost,
rounds only up. The store is audited both times, as `flavor verify` does. A round that loses its quorum waits, as
`flavor serve` has it by default; with `--on-quorum-lost retry` it is opened again.

The same seed draws the same faults, at the same times and against the same processes; what those are doing then is up
to the machine. A fault that cannot happen then, because its target is down already, does not count.

    python benchmarks/soak.py --minutes 10 --seed 1
"""

from __future__ import annotations

import argparse
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
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from machine import save, table
from redis.exceptions import RedisError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "faults"))
from history import Broken, History  # noqa: E402
from servers import Proxy, Server, filled, tmpfs  # noqa: E402

from flavor.bus.connection import connect  # noqa: E402
from flavor.bus.runs import RunStore  # noqa: E402
from flavor.coordinator.jobs import RqJobQueue  # noqa: E402
from flavor.errors import FlavorError  # noqa: E402
from flavor.ledger.archive import Archive  # noqa: E402
from flavor.ledger.audit import audit  # noqa: E402
from flavor.local.processes import ProcessGroup  # noqa: E402
from flavor.programs.parent_death import die_with_parent  # noqa: E402
from flavor.records.names import Event  # noqa: E402
from flavor.records.states import RoundState  # noqa: E402
from flavor.store.open import open_store  # noqa: E402

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
LATE_S = 5.0
"""A schedule that ran later than this is told: its faults came closer together than they were drawn."""
ENDS_S = 30.0
"""Who was told to end, by SIGTERM or because of a wrong store, does so within this time, faults and all."""
SLOW_BYTES_S = 4000.0
"""Of a throttled link, towards the server."""
WRONG_USE, NO_REDIS = 2, 3
SPARE_BYTES = 2**20
"""What may be written to the store between a look at it and its being full."""
ROOM = "1g"
"""Of the store's file system, where it has one of its own."""
ANSWER_S = 10.0
"""An update that comes while its round is being closed is refused within this time."""


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


class Soak:
    """One run under fire."""

    def __init__(self, folder: Path, seed: int, on_quorum_lost: str) -> None:
        self.folder, self.seed = folder, seed
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
        self.injected: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self.figures: Counter[str] = Counter()
        self.longest_round_s = 0.0
        self.rounds_audited = 0
        self.on_quorum_lost = on_quorum_lost
        self.wrong: list[str] = []
        """What was noticed on the way and must not be."""
        self._handed_in = folder / "handed-in"
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._tick = threading.Event()
        self._stopped: set[str] = set()
        self._mistaken: set[str] = set()
        self._store_full = False
        self._resting: dict[str, float] = {}
        self._coordinator, self._spare = COORDINATORS
        self._server_stalled = False
        self._server_down = self._server_full = False
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
            "coordinator killed": lambda fault: self._kill(self._coordinator),
            "coordinator terminated": lambda fault: self._terminate(self._coordinator),
            "coordinator paused, another takes over": self._replace_coordinator,
            "server killed": lambda fault: self._end_server(fault, self.server.kill),
            "server restarted": lambda fault: self._end_server(fault, self.server.shut_down),
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

    # -- processes

    def start(self, processes: ProcessGroup) -> None:
        self.processes = processes
        self._tokens = {name: self._enrolled(name) for name in EDGES}
        for name in (self._coordinator, *AGGREGATORS, *EDGES):
            self._start(name)

    def _enrolled(self, name: str) -> str:
        """The join token of an edge, which may send nothing but what a site may."""
        command = [sys.executable, "-m", "flavor.cli.main", "enroll", RUN, name]
        command += ["--redis-url", self.server.url, "--public-url", self.proxies[name].url]
        return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout.strip()

    def _start(self, name: str) -> None:
        if name in self.processes.names:
            self.processes.restart(name, most=10**9)
            return
        module, words = self._command(name)
        self.processes.start(name, module, words, environment=self._environment(name), log=self.folder / f"{name}.log")

    def _command(self, name: str) -> tuple[str, list[str]]:
        """Its module and arguments."""
        if name in COORDINATORS:
            module = "flavor.cli.main"
            words = [
                "serve",
                "--rounds",
                "1000000",
                "--min-clients",
                "8",
                "--quorum",
                str(QUORUM[self.on_quorum_lost]),
                "--queue",
                QUEUE,
            ]
            words += ["--on-quorum-lost", self.on_quorum_lost, "--round-attempts", "1000000"]
            words += ["--keep-rounds", "0", "--round-timeout-s", str(ROUND_TIMEOUT_S[self.on_quorum_lost])]
            words += ["--heartbeat-timeout-s", str(LEASE_S), "--aggregation-lease-s", str(LEASE_S)]
            words += ["--aggregation-attempts", "1000", "--quarantine-after", "0"]
        elif name in AGGREGATORS:
            module, words = "flavor.cli.aggregator", ["--queue", QUEUE]
        else:
            module = "flavor.cli.edge"
            words = ["-m", TRAINER, "--workspace", str(self.folder / name), "--format", "pickle"]
        return module, words

    def _environment(self, name: str) -> dict[str, str]:
        bus = {"FLAVOR_REDIS_URL": self.proxies[name].url, "FLAVOR_RUN": RUN}
        return {
            **os.environ,
            **({"FLAVOR_JOIN": self._tokens[name]} if name in EDGES else bus),
            "FLAVOR_STORE": self.store.url,
            "FLAVOR_JOURNAL": str(self._handed_in),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def _signal(self, name: str, number: signal.Signals) -> None:
        both = name in AGGREGATORS and number in (signal.SIGSTOP, signal.SIGCONT)  # which nothing passes on
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if both else os.kill)(self.processes.pid(name), number)

    def _alive(self, name: str) -> bool:
        return name in self.processes.running and name not in self._stopped

    def supervise(self) -> None:
        """Start again what has ended, after a moment; carry out what is due.

        If this is not called again for long, the soak itself is stuck: it says where, and ends.
        """
        faulthandler.dump_traceback_later(2 * LONG_S, exit=True)
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        running = self.processes.running
        if self._coordinator not in running and self._spare in running:  # that one went on in time
            self._coordinator, self._spare = self._spare, self._coordinator
        for name in self.processes.names:
            if name == self._spare or name in self._mistaken or name in self.processes.running:
                continue
            if name not in self._resting:
                moment = random.Random(f"{self.seed}/{name}/{self.restarts[name]}")
                self._resting[name] = now + moment.uniform(0.0, 1.5)
            elif now >= self._resting[name]:
                del self._resting[name]
                self.restarts[name] += 1
                self._start(name)

    def look_again(self, seconds: float) -> None:
        """Supervise, and wait for a moment: for loops that look for something until a deadline."""
        self.supervise()
        self._tick.wait(seconds)

    def _after(self, seconds: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), action))

    def settle(self) -> None:
        """Carry out all that is due later, now: whatever is paused goes on."""
        while self._later:
            heapq.heappop(self._later)[2]()

    # -- faults: False if it could not happen now

    def inject(self, fault: Fault) -> None:
        if self._kinds[fault.kind](fault):
            self.injected[fault.kind] += 1

    def _kill(self, name: str) -> bool:
        alive = self._alive(name)
        if alive:
            self._signal(name, signal.SIGKILL)
        return alive

    def _terminate(self, name: str) -> bool:
        """As a supervisor ends it; which must say that it was told to, and soon."""
        alive = self._alive(name)
        if alive:
            self._signal(name, signal.SIGTERM)
            pid = self.processes.pid(name)
            due = time.monotonic() + ENDS_S
            self._after(ENDS_S, lambda: self._must_have_ended(name, pid, due))
        return alive

    def _must_have_ended(self, name: str, pid: int, due: float) -> None:
        runs = name in self.processes.running and self.processes.pid(name) == pid
        if runs and name not in self._stopped and time.monotonic() >= due:  # `settle` may ask earlier
            self.wrong.append(f"{name} (process {pid}) was told to end {ENDS_S:g} s ago, and runs")

    def _mistake_store(self, fault: Fault) -> bool:
        """The site is started again, another folder as store: it says so and ends, and writes nothing there."""
        name = fault.target
        if not self._terminate(name):
            return False
        self._mistaken.add(name)
        elsewhere = self.folder / f"{name}-elsewhere"
        theirs = elsewhere / "notes"  # an empty folder may be where a share is mounted later
        theirs.mkdir(parents=True, exist_ok=True)
        module, words = self._command(name)
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *words, "--store", str(elsewhere)],
                env=self._environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - the callback is async-signal-safe
            )
        due = time.monotonic() + ENDS_S

        def look() -> None:
            if process.poll() is None and time.monotonic() < due:
                self._after(0.1, look)
                return
            if process.poll() is None:
                process.kill()
                process.wait()
                self.wrong.append(f"{name} ran for {ENDS_S:g} s with a wrong store")
            elif process.returncode not in (WRONG_USE, NO_REDIS):
                self.wrong.append(f"{name} ended with code {process.returncode} for a wrong store")
            if found := [str(path) for path in elsewhere.rglob("*") if path != theirs]:
                self.wrong.append(f"{name} wrote into a wrong store: {found}")
            self._mistaken.discard(name)

        look()
        return True

    def _kill_aggregator(self, fault: Fault) -> bool:
        """The process that works, or the one that would start it again."""
        if fault.size < 0.5 or not self._alive(fault.target):
            return self._kill(fault.target)
        return self._kill_child(self.processes.pid(fault.target))

    def _kill_trainer(self, fault: Fault) -> bool:
        if not self._alive(fault.target):
            return False
        return self._kill_child(self.processes.pid(fault.target))

    def _kill_child(self, parent: int) -> bool:
        with contextlib.suppress(OSError, IndexError):
            os.kill(int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0]), signal.SIGKILL)
            return True
        return False

    def _pause(self, fault: Fault) -> bool:
        alive = self._alive(fault.target)
        if alive:
            self._pause_for(fault.target, 0.3 + fault.size * LEASE_S * 2.5)
        return alive

    def _pause_for(self, name: str, seconds: float) -> None:
        self._stopped.add(name)
        self._signal(name, signal.SIGSTOP)

        def go_on() -> None:
            self._signal(name, signal.SIGCONT)
            self._stopped.discard(name)

        self._after(seconds, go_on)

    def _replace_coordinator(self, fault: Fault) -> bool:
        if not self._alive(self._coordinator) or self._spare in self.processes.running:
            return False
        self._pause_for(self._coordinator, LEASE_S * (1.5 + 2 * fault.size))
        self._start(self._spare)
        self._coordinator, self._spare = self._spare, self._coordinator
        return True

    def _end_server(self, fault: Fault, end: Callable[[], None]) -> bool:
        if not self.answers:
            return False
        end()
        self._server_down = True

        def again() -> None:
            self.server.start()
            self._server_down = self._server_full = False

        self._after(0.1 + 3 * fault.size, again)
        return True

    def _stall_server(self, fault: Fault) -> bool:
        process = self.server.process
        if not self.answers or process is None:
            return False
        process.send_signal(signal.SIGSTOP)
        self._server_stalled = True  # /proc may say so a moment later only

        def go_on() -> None:
            process.send_signal(signal.SIGCONT)
            self._server_stalled = False

        self._after(0.2 + LEASE_S * 1.5 * fault.size, go_on)
        return True

    def _fill_server(self, fault: Fault) -> bool:
        def enlarge() -> None:
            if self._server_down:
                return  # started again, it has no limit
            if not self.answers:
                self._after(0.1, enlarge)
            else:
                self.redis.config_set("maxmemory", 0)
                self._server_full = False

        done = self._asked(lambda: self.redis.config_set("maxmemory", 1))
        if done:
            self._server_full = True
            self._after(0.2 + 3 * fault.size, enlarge)
        return done

    def _fill_store(self, fault: Fault) -> bool:
        """It is made as small as what lies there, nearly, and the rest is taken."""
        store = self.folder / "store"
        if not self.store_is_small or self._store_full:
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

        self._after(0.2 + LEASE_S * 2 * fault.size, make_room)
        return True

    def _resize(self, size: str) -> bool:
        command = ["mount", "-o", f"remount,size={size}", str(self.folder / "store")]
        return not subprocess.run(command, check=False, capture_output=True).returncode

    def _cut_connections(self, fault: Fault) -> bool:
        for proxy in self.proxies.values():
            proxy.cut()
        return True

    def _cut_subscribers(self, fault: Fault) -> bool:
        return self._asked(lambda: self.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))

    def _swallow_publications(self, fault: Fault) -> bool:
        self._of_proxies(EVERYTHING, "swallow", 0.5 + 3.5 * fault.size)
        return True

    def _cut_off(self, fault: Fault) -> bool:
        self._of_proxies([fault.target], "refuse", 0.3 + LEASE_S * 3 * fault.size)
        self.proxies[fault.target].cut()
        return True

    def _of_proxies(self, names: Sequence[str], fault: str, seconds: float) -> None:
        for name in names:
            setattr(self.proxies[name], fault, True)
            self._after(seconds, lambda proxy=self.proxies[name]: setattr(proxy, fault, False))  # type: ignore[misc]

    def _throttle(self, fault: Fault) -> bool:
        """A heartbeat still fits through it."""
        proxy = self.proxies[fault.target]
        proxy.pace = SLOW_BYTES_S
        self._after(0.3 + LEASE_S * 3 * fault.size, lambda: setattr(proxy, "pace", 0.0))
        return True

    def _stall_network(self, fault: Fault) -> bool:
        proxy = self.proxies[fault.target]
        proxy.flows.clear()
        self._after(0.3 + LEASE_S * 3 * fault.size, proxy.flows.set)
        return True

    def _spoil_update(self, fault: Fault) -> bool:
        """Half of the object that this edge has handed in, until a moment later: then it is whole again for the check.

        The file is another one, as when a store's disk is restored from an older copy: what is being read stays. Not
        where the round has no more than its quorum without it: then it would end the run, as it should.
        """

        def spoil() -> bool:
            store, round_ = self.folder / "store", self.runs.read().round
            path = self.runs.updates(round_, [fault.target]).get(fault.target, {}).get("path", "")
            whole = store / path
            if not path or not whole.is_file():
                return False
            view = self.runs.read_round(round_)
            accepted = [verdict.path for verdict in view.verdicts.values() if verdict.accepted] if view else []
            if (
                sum(not (store / f"{other}.whole").exists() for other in accepted if other != path)
                < QUORUM[self.on_quorum_lost]
            ):
                return False
            aside = whole.with_name(f"{whole.name}.whole")
            if aside.exists():
                return False
            whole.rename(aside)
            half = whole.with_name(f"{whole.name}.half")
            half.write_bytes(aside.read_bytes()[: aside.stat().st_size // 2])
            half.rename(whole)
            self._after(0.5 + 3 * fault.size, lambda: aside.rename(whole))
            return True

        return not self._store_full and self._asked(spoil)

    def _double_job(self, fault: Fault) -> bool:
        def double() -> None:
            view = self.runs.read()
            round_ = self.runs.read_round(view.round)
            if round_ is not None:
                jobs = RqJobQueue(self.server.url, QUEUE, timeout_s=60, patience_s=1)
                for _ in range(2):
                    jobs.aggregate(RUN, view.round, attempt=max(1, round_.attempt))

        return not self._server_full and self._asked(double)  # it would wait until there is room

    def _replay_events(self, fault: Fault) -> bool:
        def replay() -> None:
            round_ = self.runs.read().round - 1
            for client in EDGES if round_ > 0 else ():
                key = self.runs.keys.client(client).event(round_, Event.TRAIN_FINISHED)
                self.redis.publish(key, str(round_))

        return self._asked(replay)

    def _asked(self, ask: Callable[[], object]) -> bool:
        """Something that itself needs a server that answers."""
        if not self.answers:
            return False
        try:
            return ask() is not False
        except (FlavorError, RedisError, OSError):  # it is full, say
            return False

    @property
    def answers(self) -> bool:
        """Whether the server runs, and is not stopped."""
        return not (self._server_down or self._server_stalled)

    # -- what became of the run

    def rounds(self) -> int:
        """Rounds that are closed; the server must answer."""
        view = self.runs.find()
        if view is None or not view.round:
            return 0
        round_ = self.runs.read_round(view.round)
        return view.round if round_ is not None and round_.state is RoundState.CLOSED else view.round - 1

    def check(self) -> None:
        """Raise `Broken` unless all holds since the start, or since the run was rebuilt; counts what it checks.

        Leaves the run held still, so that nothing is closed that was not checked; `go_on` ends that.
        """
        history = self._held()
        closed = [view for number in history.closed() if (view := self.runs.read_round(number)) is not None]
        lasted = {view.round: (view.closed_ms - view.opened_ms) / 1000 for view in closed if view.closed_ms is not None}
        found = {
            "rounds_checked": len(closed),
            "rounds_reopened": sum(view.openings > 1 for view in closed),
            "acknowledged_events": sum(map(len, history.events.values())),
            "updates_acknowledged": len(history.acknowledged()),
            "updates_aggregated": sum(len(view.contributors) for view in closed),
            "updates_lost": len(history.lost_updates()),
        }
        self.figures.update(found)
        self.longest_round_s = max([self.longest_round_s, *lasted.values()])
        print(f"  checked: {', '.join(f'{number} {what}' for what, number in found.items())}", flush=True)
        history.check()
        if long := {number: seconds for number, seconds in lasted.items() if seconds > LONG_S}:
            raise Broken(f"I4: rounds that took longer than {LONG_S:g} s: {long}")
        self._audit(history)
        if self.wrong:
            raise Broken("; ".join(self.wrong))

    def _held(self) -> History:
        """The run as it is recorded, held still.

        What came while its round was being closed has had the time to be refused before.
        """
        deadline = time.monotonic() + ANSWER_S
        while True:
            self._hold()
            journals = {name: self.folder / name / "output" / "acknowledged" for name in EDGES}
            history = History(self.runs, self.store, journals, self._handed_in)
            if not history.lost_updates() or time.monotonic() > deadline:
                return history
            self.go_on()
            self.look_again(0.2)

    def _hold(self) -> None:
        """Have the coordinator stop where nothing is being aggregated: no round is opened or closed then."""
        deadline = time.monotonic() + LONG_S
        while True:
            for name in self._to_coordinators(signal.SIGSTOP):
                os.waitid(os.P_PID, self.processes.pid(name), os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                self.proxies[name].cut()  # what it has sent arrives now, or never
            for _ in range(2):  # whatever has arrived is done before the second answer
                self.redis.ping()
            view = self.runs.read_round(self.runs.read().round)
            if view is None or view.state is not RoundState.AGGREGATING:
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"round {view.round} is not aggregated within {LONG_S:g} s; logs in {self.folder}")
            self.go_on()
            self.look_again(0.05)

    def go_on(self) -> None:
        """End what `check` began."""
        self._to_coordinators(signal.SIGCONT)

    def _to_coordinators(self, number: signal.Signals) -> list[str]:
        """Send them a signal; those that run."""
        running = [name for name in COORDINATORS if name in self.processes.running]
        for name in running:
            self._signal(name, number)
        return running

    def _audit(self, history: History) -> None:
        """Raise `Broken` unless the store alone, all rounds since the start, is in order, and Redis has the same ones.

        A manifest is in place before the next round is opened: that of the newest closed round may not be, yet.
        """
        settled = max(int(entry["round"]) for entry in history.log if entry["event"] == "round.opened") - 1
        found = audit(Archive(self.store, RUN))
        wrong = [str(problem) for problem in found.problems if problem.round <= settled]
        digests = {link.round: link.digest for link in found.chain.links}
        for number in history.closed():
            view = self.runs.read_round(number)
            known = view.manifest.digest if view is not None and view.manifest is not None else "none"
            stored = digests.get(number, "none" if number <= settled else known)
            if stored != known:
                wrong.append(f"round {number}: its manifest is {known} on Redis, and {stored} in the store")
        if wrong:
            raise Broken(f"the store: {'; '.join(wrong)}")
        self.rounds_audited = found.chain.closed

    def lose_everything(self) -> int:
        """Redis comes back empty, and an operator rebuilds the run; returns its newest round.

        To be called while `check` holds the run still: so every round was checked that is lost here. What is left of
        these rounds, their manifests and objects, is audited again by the last check.
        """
        before = self.rounds()
        self.server.kill()
        self.go_on()
        shutil.rmtree(self.server.folder)
        self.server.folder.mkdir()
        self.server.start()
        command = [sys.executable, "-m", "flavor.cli.main", "recover", "--run", RUN]
        command += ["--redis-url", self.server.url, "--store", self.store.url, "--untrusted"]
        deadline = time.monotonic() + LONG_S
        while (done := subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)).returncode:
            if time.monotonic() > deadline:  # until then a coordinator may still be on its way out
                raise SystemExit(f"the run could not be rebuilt: {done.stderr}; logs in {self.folder}")
        found = self.rounds()
        if found < before:
            raise SystemExit(f"{before} rounds were closed, and the run was rebuilt after round {found}")
        for name in EDGES:  # what was acknowledged by the server that is gone was checked before
            (self.folder / name / "output" / "acknowledged").write_text("")
        self._handed_in.write_text("")
        return found

    def close(self) -> None:
        self.redis.close()
        self.server.close()
        for proxy in self.proxies.values():
            proxy.close()
        if self.store_is_small:  # it is gone with its file system
            shutil.copytree(self.folder / "store", self.folder / "store-at-the-end")
        self._mounts.close()


def soak(minutes: float, seed: int, folder: Path, on_quorum_lost: str) -> dict[str, Any]:
    """One soak's figures; `broken` says what does not hold, and is '' where everything does."""
    made = Soak(folder, seed, on_quorum_lost)
    quorum = f"a lost quorum: {made.on_quorum_lost}"
    print(f"seed {seed}: {minutes:g} minutes, {len(EDGES)} edges; {quorum}; logs in {folder}", flush=True)
    faults = drawn(seed, 60 * minutes)
    half = len(faults) // 2
    broken = ""
    with contextlib.closing(made), ProcessGroup() as processes:
        made.start(processes)
        try:
            wait_for(made, 1, "the first round")
            under_fire(made, faults[:half])
            wait_for(made, made.rounds() + 2, "two rounds without faults, at half time")
            made.check()
            rebuilt = made.lose_everything()
            print(f"  Redis lost everything; the run was rebuilt after round {rebuilt}", flush=True)
            wait_for(made, rebuilt + 1, "the first round after that")
            under_fire(made, faults[half:])
            wait_for(made, made.rounds() + 2, "two rounds without faults")
            made.check()
        except Broken as error:
            broken = str(error)
        rounds = made.rounds()
        made.go_on()
    for what, number in sorted(made.injected.items()):
        print(f"  {number:5d}  {what}")
    print(f"  restarts: {dict(sorted(made.restarts.items()))}")
    return {
        "seed": seed,
        "minutes": minutes,
        "rounds": rounds,
        "faults": made.injected.total() + 1,
        "by_kind": {**dict(sorted(made.injected.items())), "server lost everything": 1},
        "on_quorum_lost": made.on_quorum_lost,
        **made.figures,
        "rounds_audited": made.rounds_audited,
        "longest_round_s": made.longest_round_s,
        "broken": broken,
    }


def under_fire(made: Soak, faults: Sequence[Fault]) -> None:
    """Inject these as they are due, then mend everything."""
    began = shown = time.monotonic()
    late_s = 0.0
    for fault in faults:
        due = began + fault.at_s - faults[0].at_s
        while time.monotonic() < due:
            made.look_again(0.05)
        late_s = max(late_s, time.monotonic() - due)
        made.inject(fault)
        if time.monotonic() - shown > 30 and made.answers:
            shown = time.monotonic()
            print(f"  {made.rounds()} rounds, {made.injected.total()} faults", flush=True)
    if late_s > LATE_S:
        print(f"  the faults came up to {late_s:.1f} s later than they were drawn", flush=True)
    made.settle()


def wait_for(made: Soak, rounds: int, what: str) -> None:
    """Wait until so many rounds are closed, with supervision and no faults."""
    deadline = time.monotonic() + LONG_S
    while made.rounds() < rounds:
        made.look_again(0.1)
        if time.monotonic() > deadline:
            view = made.runs.find()
            raise SystemExit(f"{what}: not within {LONG_S:g} s; the run is {view}; logs in {made.folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--seed", type=int, action="append", help="may be repeated; one soak each  [default: a new one]"
    )
    parser.add_argument("--on-quorum-lost", choices=sorted(QUORUM), default="wait")
    parser.add_argument("--keep", action="store_true", help="keep the logs and the store")
    options = parser.parse_args()
    rows = []
    for seed in options.seed or [random.SystemRandom().randrange(10**6)]:
        folder = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-"))
        rows.append(soak(options.minutes, seed, folder, options.on_quorum_lost))
        if not options.keep and not rows[-1]["broken"]:
            shutil.rmtree(folder, ignore_errors=True)
    print(table([{key: value for key, value in row.items() if key not in ("by_kind", "broken")} for row in rows]))
    kinds = sum((Counter(row["by_kind"]) for row in rows), Counter[str]())
    print(table([{"fault": kind, "times": number} for kind, number in kinds.most_common()]))
    if broken := [f"seed {row['seed']}: {row['broken']}" for row in rows if row["broken"]]:
        raise SystemExit("\n".join(broken))
    print("every invariant held")
    print(f"written to {save('soak', rows)}")


if __name__ == "__main__":
    main()
