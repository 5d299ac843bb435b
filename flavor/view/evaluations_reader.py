"""Follows the evaluations of a run: what the log and the sites tell of them, without a look at what has not changed.

The log tells when an evaluation begins and when it is over: then its record is read, and that alone. A site tells by
its publication that it has handed in. Beside that, all evaluations are read as far as a credit goes: a publication may
be lost, and nothing tells when an aggregator begins to merge.
"""

from __future__ import annotations

from collections.abc import Mapping

from flavor.bus.runs import RunStore
from flavor.records.names import count
from flavor.view.client_reader import Credit
from flavor.view.evaluations import MOST_OPEN, KnownEvaluations, Name, handed_in_at, read_evaluations, read_news


class EvaluationsReader:
    """What was heard of the evaluations of one run, and is to be read."""

    def __init__(self, runs: RunStore, credit: Credit) -> None:
        self._runs, self._credit = runs, credit
        self._events: dict[Name, str] = {}  # the newest one of each evaluation, of those that are not read yet
        self._handed_in: dict[Name, set[str]] = {}
        self.is_behind = False
        """Whether all evaluations are to be read, once there is credit."""

    def forget(self) -> None:
        """Everything is read now."""
        self._events.clear()
        self._handed_in.clear()
        self.is_behind = False

    def hear(self, client: str, words: str) -> None:
        """Note that a site has handed in, by what its channel has after the site's name."""
        parts = words.split(":")  # round:N:evaluation:K:update
        if len(parts) == 5 and (round_ := count(parts[1])) is not None and (number := count(parts[3])) is not None:
            self._handed_in.setdefault((round_, number), set()).add(client)

    def note(self, fields: Mapping[str, str]) -> None:
        """Note an entry of the log; any but those about evaluations is ignored."""
        event = fields.get("event", "")
        if not event.startswith("evaluation."):
            return
        round_, number = count(fields.get("round")), count(fields.get("evaluation"))
        if round_ is None or number is None:
            self.is_behind = True  # an entry of an earlier release
        else:
            self._events[round_, number] = event

    def read(self, before: KnownEvaluations) -> KnownEvaluations:
        """Return the evaluations now: what the log tells is read at once, the rest with credit."""
        known = before
        if self.is_behind and self._credit.value > 0:
            known = read_evaluations(self._runs, before)
            self._credit.spend(known.commands)
            self.forget()
            return known
        if self._events:
            known = read_news(self._runs, before, self._events)
            self._credit.spend(known.commands)
            self.is_behind = self.is_behind or len(before.open) + len(before.central_open) >= MOST_OPEN
        known = handed_in_at(known, self._handed_in)
        self._events.clear()
        self._handed_in.clear()
        return known
