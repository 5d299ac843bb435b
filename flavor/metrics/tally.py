"""Count what the events of a run say: verdicts, attempts to aggregate, and how long rounds took."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flavor.metrics.reasons import class_of
from flavor.records.evaluation import AUTOMATIC, EvaluationKind
from flavor.view.client_events import ClientLeft, ClientLost, ClientStopped, UpdateAccepted, UpdateRefused
from flavor.view.evaluation_events import EvaluationClosed, EvaluationFailed, EvaluationSkipped
from flavor.view.events import KINDS
from flavor.view.round_events import (
    AggregationBegun,
    AttemptFailed,
    AttemptGivenBack,
    RoundClosed,
    RoundOpened,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStopped,
)

_ROUNDS_KEPT = 50
"""How many of the newest closed rounds the median is of."""
_GOODBYES = (ClientLeft.name, ClientLost.name, ClientStopped.name)
_ENDINGS = (RunFailed.name, RunFinished.name, RunStopped.name)
_EVALUATED = {EvaluationClosed.name: "closed", EvaluationFailed.name: "failed", EvaluationSkipped.name: "skipped"}
OUTCOMES = tuple(_EVALUATED.values())
"""What becomes of an evaluation."""
_OUTCOMES = {AggregationBegun.name: "begun", AttemptFailed.name: "failed", AttemptGivenBack.name: "given back"}


@dataclass
class Total:
    """How many there were, and their seconds together."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.seconds += seconds


@dataclass
class Tally:
    """What a run's events say, as far as they have been heard. All numbers only grow while one run goes on."""

    after: str = ""
    """The id of the newest entry that was heard; '' before the first."""
    events: Counter[str] = field(default_factory=Counter)
    """How many there were of each kind of event."""
    updates: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many updates had a verdict, by the verdict and the class of its reason."""
    attempts: Counter[str] = field(default_factory=Counter)
    """How many attempts to aggregate there were, by what became of them."""
    evaluations: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many evaluations are over, by their kind and by what became of them."""
    failed_in_a_row: Counter[str] = field(default_factory=Counter)
    """How many evaluations of a kind have failed since the last one with a result."""
    rounds: Total = field(default_factory=Total)
    """Closed rounds, from their first opening on, without the time for which the run had ended."""
    aggregations: Total = field(default_factory=Total)
    """Closed rounds, from their last attempt on."""
    gone_ms: dict[str, int] = field(default_factory=dict)
    """When the run last heard that a client is gone, by the server's clock."""
    _opened: dict[int, int] = field(default_factory=dict)
    _ended_ms: int | None = None
    _begun: dict[int, int] = field(default_factory=dict)
    _newest: deque[float] = field(default_factory=lambda: deque(maxlen=_ROUNDS_KEPT))

    @property
    def last_s(self) -> float | None:
        """How long the newest closed round took; None where that is not known."""
        return self._newest[-1] if self._newest else None

    @property
    def median_s(self) -> float | None:
        """The median of how long the newest closed rounds took; None where that is not known."""
        return statistics.median(self._newest) if self._newest else None

    def begun_ms(self, round_: int) -> int | None:
        """When the last attempt to aggregate a round that is not closed began; None where none has begun."""
        return self._begun.get(round_)

    def hear(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Count the entries of the run's log, in their order: `id`, `time_ms`, `event`, `round`, `client`, `reason`."""
        for entry in entries:
            self.after = str(entry["id"])
            name, at_ms = str(entry.get("event", "")), int(entry["time_ms"])
            self.events[name if name in KINDS else "other"] += 1
            if name == UpdateAccepted.name:
                self.updates["accepted", ""] += 1
            elif name == UpdateRefused.name:
                self.updates["refused", class_of(str(entry.get("reason") or ""))] += 1
            elif name in _EVALUATED:
                self._hear_evaluation(name, entry.get("evaluation"))
            elif name in _GOODBYES:
                self.gone_ms[str(entry.get("client", ""))] = at_ms
            elif name == RunResumed.name:
                self._resumed(at_ms)
            elif name in _ENDINGS:
                self._ended_ms = at_ms
            self._hear_round(name, entry.get("round"), at_ms)

    def _hear_evaluation(self, name: str, number: object) -> None:
        kind = EvaluationKind.of(number if isinstance(number, int) else AUTOMATIC).value
        self.evaluations[kind, _EVALUATED[name]] += 1
        if name == EvaluationFailed.name:
            self.failed_in_a_row[kind] += 1
        elif name == EvaluationClosed.name:
            self.failed_in_a_row[kind] = 0

    def _resumed(self, at_ms: int) -> None:
        """Take the time for which the run had ended out of its round; where that is not known, forget the round."""
        ended_ms, self._ended_ms = self._ended_ms, None
        if ended_ms is None:
            self._opened.clear()
        else:
            self._opened = {number: opened_ms + max(0, at_ms - ended_ms) for number, opened_ms in self._opened.items()}

    def _hear_round(self, name: str, number: object, at_ms: int) -> None:
        if name in _OUTCOMES:
            self.attempts[_OUTCOMES[name]] += 1
        if not isinstance(number, int | str) or not str(number).isdecimal():
            return
        round_ = int(number)
        if name == RoundOpened.name:
            self._opened[round_] = at_ms
        elif name == AggregationBegun.name:
            self._begun[round_] = at_ms
        elif name == RoundClosed.name:
            if (opened_ms := self._opened.pop(round_, None)) is not None:
                self.rounds.add((at_ms - opened_ms) / 1000)
                self._newest.append((at_ms - opened_ms) / 1000)
            if (begun_ms := self._begun.pop(round_, None)) is not None:
                self.aggregations.add((at_ms - begun_ms) / 1000)
