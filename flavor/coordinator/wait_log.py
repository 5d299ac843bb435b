"""Reports and logs what the run waits for whenever that changes, so that the log always says it.

Sites that come and go can change what a run waits for at any rate, so that there are bounds. An unusual wait is
reported and added to the log as often as `ClientLog` allows; beyond that it replaces the entry that this coordinator
wrote last. A usual wait is logged once it has lasted for some seconds, as no wait of a fast round does. One that its
decision calls long is reported once until the run moves.

While missing clients may be coming back to a coordinator that has just begun, or to a server that was away, the run
seems to wait for less than before. That goes on with the wait before, and so does the same wait after it: each has the
time when that began.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from flavor.bus.runs import RunStore
from flavor.coordinator.client_log import ClientLog
from flavor.errors import BusUnavailable
from flavor.policy.decision import Decision
from flavor.view.facts import LogTail, time_of
from flavor.view.observer import Observer
from flavor.view.round_events import RoundWaiting, RunWaiting
from flavor.view.waiting import SETTLED_S, logged_wait

_What = tuple[int | None, str]


class Waits:
    """Reports and logs what one run waits for: a round, or the run itself between rounds, and the reason."""

    def __init__(self, runs: RunStore, client_log: ClientLog, observer: Observer) -> None:
        self._runs, self._client_log, self._observer = runs, client_log, observer
        self._began = time.monotonic()
        self._told: _What | None = None
        self._has_told_long = False
        self._written: _What | None = None
        self._is_written_held = False
        self._written_at = 0.0
        self._entry = ""  # the id of the log entry that was written last
        self._newest: tuple[_What, int] | None = None  # what was written last, and since when that has lasted
        self._before: tuple[_What, int] | None = None  # the same of before missing clients could come back
        self._is_in_grace = False  # whether something was written since missing clients may be coming back
        self.is_lenient: Callable[[], bool] = lambda: False
        """Whether missing clients may be coming back."""

    def take_over(self, round_: int | None) -> None:
        """Take over what the log says that the run, or this round, waits for: it is not written again."""
        logged = logged_wait(LogTail(self._runs), round_)
        self._written = (round_, logged.reason) if logged is not None else None
        self._is_written_held = logged is not None and logged.is_held
        if self._written is not None and logged is not None and logged.since_ms is not None:
            self._newest = self._written, logged.since_ms

    def has_moved(self) -> None:
        """Record that the run has moved: what it waits for next is new."""
        self._written, self._began = None, time.monotonic()
        self._newest = self._before = None
        self._has_told_long = False
        if self._told is not None and self._told[0] is None:
            self._told = None

    def note(self, decision: Decision) -> None:
        """Note that the run or a round waits, as decided."""
        if decision.is_usual:
            self.usual(decision.round, decision.reason)
            if decision.is_long and not self._has_told_long:
                self._has_told_long = True
                self._observer.hear(waiting(decision.round, decision.reason))
        else:
            is_postponed = decision.postponed is not None
            self.unusual(decision.round, decision.reason, is_postponed=is_postponed, since_ms=decision.since_ms)

    def usual(self, round_: int | None, reason: str) -> None:
        """Note that a round, or the run between rounds, waits for what comes by itself, such as updates of clients."""
        now = time.monotonic()
        if (round_, reason) != self._written and now - max(self._began, self._written_at) >= SETTLED_S:
            with contextlib.suppress(BusUnavailable):  # a server without room: only the log needs this
                if self._write((round_, reason), is_allowed=self._client_log.allows_usual_wait()):
                    self._observer.hear(waiting(round_, reason, is_routine=True))

    def unusual(
        self, round_: int | None, reason: str, *, is_postponed: bool = False, since_ms: int | None = None
    ) -> None:
        """Note that the run or a round waits for what may not come by itself, since `since_ms`; None for now.

        A reason to end the round that `is_postponed` says nothing of waiting: the line on the terminal adds that.
        """
        what, is_held = (round_, reason), not is_postponed
        is_written = what == self._written and is_held == self._is_written_held
        if is_written and what == self._told:
            return
        is_allowed = self._client_log.allows_unusual_wait()
        if is_allowed and what != self._told:
            event = waiting(round_, reason)
            if is_postponed and round_ is not None:
                event = waiting(round_, f"round {round_}: {reason}", names_round=False)
            self._observer.hear(event)
            self._told = what
        if not is_written:
            self._write(what, is_allowed=is_allowed, is_held=is_held, since_ms=since_ms)

    def for_store(self, round_: int | None, reason: str) -> None:
        """Note that the coordinator cannot go on without the store. `CoordinatorWait` bounds how often."""
        self._write((round_, reason), is_allowed=True, is_held=True)

    def _write(self, what: _What, *, is_allowed: bool, is_held: bool = False, since_ms: int | None = None) -> bool:
        """Write into the log what the run waits for; return whether it was written."""
        now = time.monotonic()
        if not is_allowed and (not self._entry or now - self._written_at < SETTLED_S):
            return False
        round_, reason = what
        replaces = "" if is_allowed else self._entry
        lasted_ms = self._since_ms(what)
        since_ms = lasted_ms if lasted_ms is not None else since_ms
        name = waiting(*what).name
        self._entry = self._runs.log(
            name, reason=reason, round_=round_, replaces=replaces, since_ms=since_ms, is_held=is_held
        )
        self._newest = what, since_ms if since_ms is not None else time_of(self._entry)
        self._written, self._is_written_held, self._written_at = what, is_held, now
        return True

    def _since_ms(self, what: _What) -> int | None:
        """Return since when what is written now has lasted; None where it begins now."""
        if not self.is_lenient():
            before, self._before, self._is_in_grace = self._before, None, False
            return before[1] if before is not None and before[0] == what else None
        if self._is_in_grace:  # something has happened since
            return None
        self._before, self._is_in_grace = self._newest, True
        return self._before[1] if self._before is not None and self._before[0][0] == what[0] else None


def waiting(
    round_: int | None, reason: str, *, names_round: bool = True, is_routine: bool = False
) -> RunWaiting | RoundWaiting:
    """Return the event that a run, or this round of it, waits for this reason."""
    if round_ is None:
        return RunWaiting(reason, is_routine=is_routine)
    return RoundWaiting(reason, round_, names_round=names_round, is_routine=is_routine)
