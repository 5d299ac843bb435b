"""What sites cause, in the log and on the coordinator's terminal: no more of each in a round than is of use."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from flavor.bus.runs import RunStore
from flavor.bus.verdicts import MORE_IS_LEFT_OUT, MOST_ENTRIES, Recorded, late
from flavor.records.verdict import Verdict
from flavor.view.client_events import ClientEvent, ClientLeftOut, UpdateAccepted, UpdateRefused
from flavor.view.observer import Observer

_WAIT_S = 600.0
"""Beside as many lines in each round as a site can cause, one about what the run waits for is shown this often."""


class _Allowance:
    """So many lines at once, and one more each `_WAIT_S`."""

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


class Heard:
    """One way for all of it. The server counts, so that workers and coordinators that follow each other agree."""

    def __init__(self, runs: RunStore, observer: Observer) -> None:
        self._runs, self._observer = runs, observer
        self.round = 0
        """The current one; 0 before the first."""
        self._own: set[tuple[int, str, str]] = set()  # round, client and try of the refusals that were reported here
        self._looked_for: set[int] = set()  # rounds of which entries may have been left out since that was told
        self._waits_of, self._waits, self._of_store = 0, _Allowance(), _Allowance()
        self._usual = _Allowance()

    def note(self, event: ClientEvent) -> None:
        """Log and report what a client has caused: in the event's round, or just now where it names none."""
        round_ = self.round if event.round is None else event.round
        names_round = event.round is not None
        recorded = self._runs.note(event.name, event.client, event.reason, round_=round_, names_round=names_round)
        self._report(recorded, event, round_)

    def refuse(self, round_: int, client: str, verdict: Verdict) -> None:
        """Refuse an update, and report that."""
        self._own.add((round_, client, verdict.try_id))
        self._report(self._runs.judge(round_, client, verdict), UpdateRefused(verdict.reason, client, round_), round_)

    def refuse_late(self, round_: int, client: str, try_id: str) -> None:
        """Refuse an update whose round takes none any more, and report that."""
        recorded = self._runs.refuse_late(round_, client, try_id)
        self._report(recorded, UpdateRefused(late(round_).reason, client, round_, is_late=True), round_)

    def _report(self, recorded: Recorded, event: ClientEvent, round_: int) -> None:
        if recorded in (Recorded.COUNTED, Recorded.LAST):
            self._looked_for.add(round_)
        if recorded in (Recorded.TOLD, Recorded.LAST):
            more = MORE_IS_LEFT_OUT if recorded is Recorded.LAST else ""
            self._observer.hear(replace(event, reason=event.reason + more))

    def hears(self, round_: int, verdicts: Mapping[str, Verdict]) -> bool:
        """These were given in this round, by workers as well; returns whether one of them is a refusal."""
        for client, verdict in verdicts.items():
            if (round_, client, verdict.try_id) not in self._own:
                kind = UpdateAccepted if verdict.accepted else UpdateRefused
                self._observer.hear(kind(verdict.reason, client, round_, is_routine=True))
        refused = not all(verdict.accepted for verdict in verdicts.values())
        if refused:
            self._looked_for.add(round_)
        return refused

    def may_wait(self) -> bool:
        """Whether one more line about what the run waits for is of use: sites that come and go can make many."""
        self._allow_anew()
        return self._waits.take()

    def may_wait_as_usual(self) -> bool:
        """The same of what is nothing unusual, which has its own share of entries in the log."""
        self._allow_anew()
        return self._usual.take()

    def _allow_anew(self) -> None:
        if self._waits_of != self.round:
            self._waits_of, self._waits, self._usual = self.round, _Allowance(), _Allowance()

    def may_tell_of_store(self) -> bool:
        """The same of the store, which has its own share of lines: it can say something else each second."""
        return self._of_store.take()

    def round_is_over(self, round_: int) -> None:
        """Log and report how much was left out of this round, if anything was."""
        self._own = {each for each in self._own if each[0] > round_}
        if round_ in self._looked_for:
            self._looked_for.discard(round_)
            for client, number in self._runs.take_left_out(round_).items():
                self._tell_left_out(client, number, _in_round(round_))

    def run_is_over(self) -> None:
        """Log and tell how much was left out that was not told, in a line for each client."""
        rounds, self._looked_for = sorted(self._looked_for), set()
        new = {round_: self._runs.take_left_out(round_) for round_ in rounds}
        for client in sorted({client for numbers in new.values() for client in numbers}):
            of = [round_ for round_, numbers in new.items() if client in numbers]
            where = _in_round(of[0]) if len(of) == 1 else f"in {len(of)} rounds"
            self._tell_left_out(client, sum(new[round_][client] for round_ in of), where)

    def _tell_left_out(self, client: str, number: int, where: str) -> None:
        what = "1 more entry is" if number == 1 else f"{number} more entries are"
        event = ClientLeftOut(f"{what} left out of what it caused {where}", client)
        self._runs.log(event.name, client=client, reason=event.reason)
        self._observer.hear(event)


def _in_round(round_: int) -> str:
    return f"in round {round_}" if round_ else "before the first round"
