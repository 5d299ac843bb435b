"""Logs and reports what sites cause, within bounds: a site must not be able to fill the log or the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from flavor.bus.runs import RunStore
from flavor.bus.verdicts import MORE_IS_LEFT_OUT, MOST_ENTRIES, Recorded, late
from flavor.counted import are
from flavor.records.update import Refused, Update
from flavor.records.verdict import Verdict
from flavor.view.client_events import ClientEvent, ClientLeftOut, UpdateAccepted, UpdateRefused
from flavor.view.observer import Observer

_WAIT_S = 600.0
"""Seconds after which one more line about what the run waits for is allowed, once those of a round are used up."""


class _Allowance:
    """Allows `MOST_ENTRIES` lines at once, and one more each `_WAIT_S`."""

    def __init__(self) -> None:
        self._left, self._at = float(MOST_ENTRIES), time.monotonic()

    def take(self) -> bool:
        """Whether there is one left, which is taken."""
        now = time.monotonic()
        self._left = min(MOST_ENTRIES, self._left + (now - self._at) / _WAIT_S)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class ClientLog:
    """The one way into the log for what sites cause. The server counts, for workers and all coordinators of the run."""

    def __init__(self, runs: RunStore, observer: Observer) -> None:
        self._runs, self._observer = runs, observer
        self.round = 0
        """The number of the current round; 0 before the first."""
        self._own: set[tuple[int, str, str]] = set()  # round, client and try of the refusals that were reported here
        self._looked_for: set[int] = set()  # rounds of which entries may have been left out since that was told
        self._waits_of, self._waits, self._of_store = 0, _Allowance(), _Allowance()
        self._usual = _Allowance()

    def note(self, event: ClientEvent) -> None:
        """Log and report what a client caused. An event that names no round counts for the current one."""
        round_ = self.round if event.round is None else event.round
        names_round = event.round is not None
        recorded = self._runs.note(event.name, event.client, event.reason, round_=round_, names_round=names_round)
        self._report(recorded, event, round_)

    def note_once(self, event: ClientEvent) -> None:
        """Log and report what a client cannot cause again until an operator acts, such as its quarantine.

        It is told even if the client has reached its limit of entries: else a flood would hide it.
        """
        self._runs.log(event.name, client=event.client, reason=event.reason)
        self._observer.hear(event)

    def refuse(self, round_: int, client: str, verdict: Verdict, *, task_round: int | None = None) -> None:
        """Refuse an update, and report the refusal. `task_round` is the round of its task, where that is earlier."""
        self._own.add((round_, client, verdict.try_id))
        recorded = self._runs.judge(round_, client, verdict, task_round=task_round)
        self._report(recorded, UpdateRefused(verdict.reason, client, round_), round_)

    def refuse_late(self, round_: int, client: str, handed_in: Update | Refused) -> None:
        """Refuse an update that arrived after its round was closed for updates, and report the refusal."""
        recorded = self._runs.refuse_late(round_, client, handed_in.try_id, handed_in.measured)
        self._report(recorded, UpdateRefused(late(round_).reason, client, round_, is_late=True), round_)

    def _report(self, recorded: Recorded, event: ClientEvent, round_: int) -> None:
        if recorded in (Recorded.COUNTED, Recorded.LAST):
            self._looked_for.add(round_)
        if recorded in (Recorded.TOLD, Recorded.LAST):
            more = MORE_IS_LEFT_OUT if recorded is Recorded.LAST else ""
            self._observer.hear(replace(event, reason=event.reason + more))

    def report_verdicts(self, round_: int, verdicts: Mapping[str, Verdict]) -> bool:
        """Report verdicts of a round that this coordinator has not reported itself; return whether one is a refusal."""
        for client, verdict in verdicts.items():
            if (round_, client, verdict.try_id) not in self._own:
                kind = UpdateAccepted if verdict.accepted else UpdateRefused
                self._observer.hear(kind(verdict.reason, client, round_, is_routine=True))
        refused = not all(verdict.accepted for verdict in verdicts.values())
        if refused:
            self._looked_for.add(round_)
        return refused

    def allows_unusual_wait(self) -> bool:
        """Whether one more line about an unusual wait is allowed, which uses it up. Sites can cause many of them."""
        self._allow_anew()
        return self._waits.take()

    def allows_usual_wait(self) -> bool:
        """Whether one more line about a usual wait is allowed, which uses it up. These lines have their own bound."""
        self._allow_anew()
        return self._usual.take()

    def _allow_anew(self) -> None:
        if self._waits_of != self.round:
            self._waits_of, self._waits, self._usual = self.round, _Allowance(), _Allowance()

    def allows_store_line(self) -> bool:
        """Whether one more line about the store is allowed, which uses it up. Its error can differ each second."""
        return self._of_store.take()

    def end_round(self, round_: int) -> None:
        """Log and report how many entries of this round were left out, if any were."""
        self._own = {each for each in self._own if each[0] > round_}
        if round_ in self._looked_for:
            self._looked_for.discard(round_)
            for client, number in self._runs.take_left_out(round_).items():
                self._tell_left_out(client, number, _in_round(round_))

    def end_run(self) -> None:
        """Log and report how many entries were left out and not reported yet: one line for each client."""
        rounds, self._looked_for = sorted(self._looked_for), set()
        new = {round_: self._runs.take_left_out(round_) for round_ in rounds}
        for client in sorted({client for numbers in new.values() for client in numbers}):
            of = [round_ for round_, numbers in new.items() if client in numbers]
            where = _in_round(of[0]) if len(of) == 1 else f"in {len(of)} rounds"
            self._tell_left_out(client, sum(new[round_][client] for round_ in of), where)

    def _tell_left_out(self, client: str, number: int, where: str) -> None:
        what = f"{number} more {'entry' if number == 1 else 'entries'} {are(number)}"
        self.note_once(ClientLeftOut(f"{what} left out of what it caused {where}", client))


def _in_round(round_: int) -> str:
    return f"in round {round_}" if round_ else "before the first round"
