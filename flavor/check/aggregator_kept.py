"""The life of an aggregator that is started once and driven by two events: AggregateStarted and AggregateFinished.

It is the only client, `aggregator`, of a bus of its own, as under `flavor-agg --init-once`. At the end of the run its
WaitEvent raises `RunOver`, a `SystemExit` with code 0, so the process should end by itself. A process that does not end
has caught that exception or waits for something else. After every run, `flavor-agg` would wait for it for ten seconds,
and then kill it in the middle of its work.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import NoReturn

from flavor.check.aggregator_checks import ENDS, FINISHED, LIVES, WAITS
from flavor.check.aggregator_process import REPAIR, CheckedAggregator, Life
from flavor.check.fake_bus import FakeBus
from flavor.check.folders import Stamp, stamp
from flavor.check.output import Screen
from flavor.check.report import Report
from flavor.check.round_files import CheckedFiles
from flavor.check.script import END_S, Ended, Late
from flavor.counted import counted
from flavor.records.names import Event

CLIENT = "aggregator"
_ASKED_S = 0.2
"""A process that asked for the round this long ago and has set nothing since, waits for it."""
_OWN = (Event.AGGREGATE_STARTED, Event.AGGREGATE_FINISHED, Event.PROCESS_FINISHED)
_WAIT_FIRST = (
    "begin with WaitEvent('AggregateStarted'), and call GetPaths after it; "
    "if it is to be started anew in each round, leave out --init-once"
)
_PATHS_AGAIN = "the paths are others in each round, and the old ones gone: call GetPaths after each WaitEvent"
_WRONG_EVENT = "an aggregator waits with WaitEvent('AggregateStarted') and answers with SetEvent('AggregateFinished')"


class Once(Life):
    """Starts the command at the beginning and keeps it."""

    def __init__(
        self, aggregator: CheckedAggregator, folder: Path, report: Report, screen: Screen, *, log: str
    ) -> None:
        self._bus = FakeBus(
            aggregator.rounds,
            client=CLIENT,
            starts=Event.AGGREGATE_STARTED,
            on_set=self._about_to_set,
            on_wait=self._enters_wait,
            on_ask=self._asks,
        )
        super().__init__(aggregator, folder, report, screen, self._bus, log=log)
        self._rounds = aggregator.rounds
        self._stack = contextlib.ExitStack()
        self._round = 0
        self._files: CheckedFiles | None = None
        # What the server's threads note while the command waits for their answer:
        self._open = False  # AggregateStarted is set, AggregateFinished is not
        self._taken = False  # WaitEvent has returned in this round
        self._waits_again = self._error = False
        self._early = 0  # how often it has finished an aggregation that was not asked for
        self._at_event: Stamp | None = None  # the global model when AggregateFinished was set
        self._foreign = ""  # what it wants with an event that is not an aggregator's

    def start(self) -> None:
        """See `Life`: start the command, before there is anything to aggregate."""
        self._stack.enter_context(self._bus)
        self._launch({"FLAVOR_CLIENT": CLIENT, "FLAVOR_REDIS_URL": self._bus.url})

    def aggregate(self, round_: int, files: CheckedFiles, where: str) -> None:
        """See `Life`: set AggregateStarted, and wait until the command waits for the next round."""
        self._files, self._at_event = files, None
        self._announce(files)
        self._await_looking(where)
        self._taken = self._waits_again = False
        self._round, self._open = round_, True
        self._bus.events.start_round(round_)
        self._await_finished(where)
        self._await_return(files, where)
        self._look_at_files(files, where)
        self.report.passed(FINISHED)

    def watch(self) -> None:
        """See `Life`: also fail where the command has ended."""
        self._alarm()
        if self._script.has_ended and not self._open and self._round < self._rounds:
            self._ended_between()

    def end(self) -> None:
        """See `Life`."""
        self._bus.finish()
        limit_s = min(END_S, self._aggregator.timeout_s)
        try:
            self._script.wait("the aggregator to end", lambda: False, limit_s=limit_s)
        except Late:
            self.fail(ENDS, f"still running {limit_s:g} s after the end of the run")
        except Ended:
            if self._script.exit_code() != 0:
                self._died(ENDS, "after the last round", REPAIR)
        self.report.passed(ENDS, f"exit code 0 after {counted(self._rounds, 'round')}")

    def stop(self) -> None:
        """See `Life`."""
        super().stop()
        self._stack.close()

    def _alarm(self) -> None:
        """Fail where the command waits for an event that never comes, or sets Error."""
        if self._foreign:
            check = FINISHED if self._foreign.startswith("set") else WAITS
            self.fail(check, f"it {self._foreign}, which is no event of an aggregator", hint=_WRONG_EVENT)
        if self._error:
            self.fail(FINISHED, f"round {self._round}: the aggregator set the event Error")

    # -- the steps of a round

    def _await_looking(self, where: str) -> None:
        """Wait until the command calls WaitEvent, and check that it does nothing before."""
        try:
            self._script.wait(
                "the aggregator to wait for AggregateStarted",
                lambda: self._early > 0 or (self._looks() and not self._script.has_ended),
            )
        except Ended:
            self._ended_between()
        except Late:
            self._check_early(where)
            self.fail(WAITS, f"{where}: it did not wait for AggregateStarted within {self._script.limit}")
        self._check_early(where)
        self.report.passed(WAITS)

    def _looks(self) -> bool:
        """Return whether it looks for the next round; SetEvent, too, may ask for the round's number."""
        asked_s = time.monotonic() - self._bus.looking_since
        return self._bus.waiting or (self._bus.looking and asked_s > _ASKED_S)

    def _check_early(self, where: str) -> None:
        if self._early:
            self.fail(WAITS, f"{where}: it set AggregateFinished before AggregateStarted")
        if self._target() is not None:
            self.fail(WAITS, f"{where}: it wrote the global model before AggregateStarted")

    def _await_finished(self, where: str) -> None:
        def finished() -> bool:
            return self._bus.events.is_set(Event.AGGREGATE_FINISHED, self._round)

        try:
            self._script.wait(f"AggregateFinished ({where})", lambda: finished() or self._waits_again)
        except Ended:
            hint = None
            if self._script.exit_code() != 0:
                stale = any(f"round-{old}/" in self._script.last_words() for old in range(1, self._round))
                hint = _PATHS_AGAIN if stale else REPAIR
            self._died(FINISHED, f"in {where}, before AggregateFinished", hint)
        except Late:
            self.fail(FINISHED, f"{where}: not set within {self._script.limit} after AggregateStarted")
        if not finished():
            self.fail(FINISHED, f"{where}: it waits for the next round without having set it")

    def _await_return(self, files: CheckedFiles, where: str) -> None:
        """Wait until the command calls WaitEvent again, and check that the model was complete at AggregateFinished."""
        last = self._round >= self._rounds
        try:
            # a command that comes back late has only set the event too early
            self._script.wait("the aggregator to wait for the next round", lambda: self._looks() or self._early > 1)
        except Ended:
            pass
        except Late:
            detail = f"it did not wait for the next round within {self._script.limit} after AggregateFinished"
            self.fail(ENDS if last else LIVES, f"{where}: {detail}")
        if self._early and not self._looks():
            self.fail(WAITS, f"{where}: it aggregated again before the next AggregateStarted")
        if stamp(files.global_model) != self._at_event:
            what = "came" if self._at_event is None else "changed"
            self.fail(FINISHED, f"{where}: the global model {what} after AggregateFinished")
        if self._script.has_ended and not last:
            self._ended_between()
        if not last:
            self.report.passed(LIVES)

    # -- how it ends too early

    def _ended_between(self) -> NoReturn:
        hint = REPAIR if self._script.exit_code() != 0 else None
        if self._round:
            self._died(LIVES, f"after AggregateFinished of round {self._round}", hint)
        if hint is None or "nothing has set these paths yet" in self._script.last_words():
            hint = _WAIT_FIRST
        self._died(WAITS, "before AggregateStarted", hint)

    # -- in the server's threads

    def _about_to_set(self, key: str) -> None:
        event = key.rpartition(":event:")[2]
        if key == self._bus.keys.taken:
            self._taken = True
        elif event == Event.AGGREGATE_FINISHED:
            if self._open:
                self._open = False
                self._at_event = self._target()
            else:  # setting it twice is harmless, doing the work twice is not
                self._early += self._round == 0 or self._target() != self._at_event
        elif event == Event.ERROR:
            self._error = True
        elif event in tuple(Event) and event not in _OWN:
            self._foreign = f"set {event}"

    def _target(self) -> Stamp | None:
        return stamp(self._files.global_model) if self._files else None

    def _enters_wait(self) -> None:
        self._waits_again = self._open and self._taken

    def _asks(self, key: str) -> None:
        event = key.rpartition(":event:")[2]
        if event in tuple(Event) and event not in (*_OWN, Event.ERROR):
            self._foreign = f"asks for {event}"
