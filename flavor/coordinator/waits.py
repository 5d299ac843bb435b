"""What the run waits for, told and written into its log whenever it changes, so that the log always says it.

Sites can make a run's sentence change as often as they come and go. So there are bounds: what is unusual is told and
added to the log as often as `Heard` allows, and beyond that takes the place of the entry that this coordinator has
written last. What is nothing unusual is written once it has lasted for some seconds, which it does in no fast round.
"""

from __future__ import annotations

import contextlib
import time

from flavor.bus.runs import RunStore
from flavor.coordinator.heard import Heard
from flavor.errors import BusUnavailable
from flavor.view.observer import Observer
from flavor.view.round_events import RoundWaiting, RunWaiting
from flavor.view.waiting import SETTLED_S, logged_wait

_What = tuple[int | None, str]


class Waits:
    """What one run waits for, as its coordinator sees it. A reason is that of a round, or of the run between rounds."""

    def __init__(self, runs: RunStore, heard: Heard, observer: Observer) -> None:
        self._runs, self._heard, self._observer = runs, heard, observer
        self._began = time.monotonic()
        self._told: _What | None = None
        self._written: _What | None = None
        self._written_at = 0.0
        self._entry = ""  # of what was written

    def take_over(self, round_: int | None) -> None:
        """What the log says that the run, or this round, waits for, need not be written again."""
        logged = logged_wait(self._runs, round_)
        self._written = (round_, logged.reason) if logged is not None else None

    def has_moved(self) -> None:
        """The run has gone on: whatever it waits for now is new."""
        self._written, self._began = None, time.monotonic()
        if self._told is not None and self._told[0] is None:
            self._told = None

    def usual(self, round_: int, reason: str) -> None:
        """A round takes its time, for this reason."""
        now = time.monotonic()
        if (round_, reason) != self._written and now - max(self._began, self._written_at) >= SETTLED_S:
            with contextlib.suppress(BusUnavailable):  # a server without room: nothing but the log needs this
                if self._write((round_, reason), is_allowed=self._heard.may_wait_as_usual()):
                    self._observer.hear(waiting(round_, reason, is_routine=True))

    def unusual(self, round_: int | None, reason: str, *, names_round: bool = True) -> None:
        """The run or a round waits for what may not come by itself; see `RoundWaiting` for `names_round`."""
        what = (round_, reason)
        if what == self._written == self._told:
            return
        is_allowed = self._heard.may_wait()
        if is_allowed and what != self._told:
            self._observer.hear(waiting(round_, reason, names_round=names_round))
            self._told = what
        if what != self._written:
            self._write(what, is_allowed=is_allowed)

    def for_store(self, round_: int | None, reason: str) -> None:
        """The coordinator cannot go on without the store; `CoordinatorWait` tells that, in its bounds."""
        self._write((round_, reason), is_allowed=True)

    def _write(self, what: _What, *, is_allowed: bool) -> bool:
        """Write it into the log; whether that was allowed."""
        now = time.monotonic()
        if not is_allowed and (not self._entry or now - self._written_at < SETTLED_S):
            return False
        round_, reason = what
        replaces = "" if is_allowed else self._entry
        self._entry = self._runs.log(waiting(*what).name, reason=reason, round_=round_, replaces=replaces)
        self._written, self._written_at = what, now
        return True


def waiting(
    round_: int | None, reason: str, *, names_round: bool = True, is_routine: bool = False
) -> RunWaiting | RoundWaiting:
    """The event that a run, or this round of it, waits for this."""
    if round_ is None:
        return RunWaiting(reason, is_routine=is_routine)
    return RoundWaiting(reason, round_, names_round=names_round, is_routine=is_routine)
