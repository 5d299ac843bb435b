"""Checks whether a run under faults lost or doubled anything: its history, and its records in the store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

from soak_driver import COORDINATORS, EDGES, LONG_S, ROOT, RUN, Driver

from flavor.ledger.archive import Archive
from flavor.ledger.audit import audit
from flavor.records.states import RoundState
from tests.faults.history import Broken, History

ANSWER_S = 10.0
"""An update that comes while its round is being closed is refused within this time."""


class Auditor:
    """Checks the run while nothing moves in it."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.figures: Counter[str] = Counter()
        self.longest_round_s = 0.0
        self.rounds_audited = 0

    def check(self) -> None:
        """Raise `Broken` unless all holds since the start, or since the run was rebuilt; counts what it checks.

        Leaves the run held still, so that nothing is closed that was not checked; `go_on` ends that.
        """
        history = self._held()
        closed = [view for number in history.closed() if (view := self.driver.runs.read_round(number)) is not None]
        lasted = {view.round: (view.closed_ms - view.opened_ms) / 1000 for view in closed if view.closed_ms is not None}
        found = {
            "rounds_checked": len(closed),
            "rounds_reopened": sum(view.openings > 1 for view in closed),
            "acknowledged_events": sum(map(len, history.events.values())),
            "updates_acknowledged": len(history.acknowledged()),
            "updates_aggregated": sum(len(view.contributors) for view in closed),
            "updates_stale": sum(client in view.since for view in closed for client in view.contributors),
            "updates_lost": len(history.lost_updates()),
        }
        self.figures.update(found)
        self.longest_round_s = max([self.longest_round_s, *lasted.values()])
        print(f"  checked: {', '.join(f'{number} {what}' for what, number in found.items())}", flush=True)
        history.check()
        if long := {number: seconds for number, seconds in lasted.items() if seconds > LONG_S}:
            raise Broken(f"I4: rounds that took longer than {LONG_S:g} s: {long}")
        self._audit(history)
        if self.driver.wrong:
            raise Broken("; ".join(self.driver.wrong))

    def _held(self) -> History:
        """The run as it is recorded, held still.

        What came while its round was being closed has had the time to be refused before.
        """
        deadline = time.monotonic() + ANSWER_S
        while True:
            self._hold()
            journals = {name: self.driver.folder / name / "output" / "acknowledged" for name in EDGES}
            history = History(self.driver.runs, self.driver.store, journals, self.driver.handed_in)
            if not history.lost_updates() or time.monotonic() > deadline:
                return history
            self.go_on()
            self.driver.look_again(0.2)

    def _hold(self) -> None:
        """Have the coordinator stop where nothing is being aggregated: no round is opened or closed then."""
        deadline = time.monotonic() + LONG_S
        while True:
            for name in self._to_coordinators(signal.SIGSTOP):
                os.waitid(os.P_PID, self.driver.processes.pid(name), os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                self.driver.proxies[name].cut()  # what it has sent arrives now, or never
            for _ in range(2):  # all that has arrived is done before the second answer
                self.driver.redis.ping()
            view = self.driver.runs.read_round(self.driver.runs.read().round)
            if view is None or view.state is not RoundState.AGGREGATING:
                return
            if time.monotonic() > deadline:
                logs = self.driver.folder
                raise SystemExit(f"round {view.round} is not aggregated within {LONG_S:g} s; logs in {logs}")
            self.go_on()
            self.driver.look_again(0.05)

    def go_on(self) -> None:
        """End what `check` began."""
        self._to_coordinators(signal.SIGCONT)

    def _to_coordinators(self, number: signal.Signals) -> list[str]:
        """Send them a signal; those that run."""
        running = [name for name in COORDINATORS if name in self.driver.processes.running]
        for name in running:
            self.driver.signal(name, number)
        return running

    def _audit(self, history: History) -> None:
        """Raise `Broken` unless the store alone, all rounds since the start, is in order, and Redis has the same ones.

        A manifest is in place before the next round is opened: that of the newest closed round may not be, yet.
        """
        settled = max(int(entry["round"]) for entry in history.log if entry["event"] == "round.opened") - 1
        found = audit(Archive(self.driver.store, RUN))
        wrong = [str(problem) for problem in found.problems if problem.round <= settled]
        digests = {link.round: link.digest for link in found.chain.links}
        for number in history.closed():
            view = self.driver.runs.read_round(number)
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
        before = self.driver.rounds()
        self.driver.server.kill()
        self.go_on()
        shutil.rmtree(self.driver.server.folder)
        self.driver.server.folder.mkdir()
        self.driver.server.start()
        command = [sys.executable, "-m", "flavor.cli.main", "recover", "--run", RUN]
        command += ["--redis-url", self.driver.server.url, "--store", self.driver.store.url, "--untrusted"]
        deadline = time.monotonic() + LONG_S
        while (done := subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)).returncode:
            if time.monotonic() > deadline:  # until then a coordinator may still be on its way out
                raise SystemExit(f"the run could not be rebuilt: {done.stderr}; logs in {self.driver.folder}")
        found = self.driver.rounds()
        if found < before:
            raise SystemExit(f"{before} rounds were closed, and the run was rebuilt after round {found}")
        for name in EDGES:  # what was acknowledged by the server that is gone was checked before
            (self.driver.folder / name / "output" / "acknowledged").write_text("")
        self.driver.handed_in.write_text("")
        return found
