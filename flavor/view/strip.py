"""The rounds of a run, one row each, oldest first: read once, and again only where something is new."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from flavor.bus.runs import RunStore
from flavor.errors import DamagedRecord, FlavorError
from flavor.ledger.rounds import closed_round
from flavor.records.merging import WEIGHTED, by_sites, is_of_most, sites_of, sites_with
from flavor.records.reporters import reporters_of
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import RoundState
from flavor.records.summary import RoundSummary, kept_metrics, names_of
from flavor.results.best import MergedValue
from flavor.results.rounds import for_people, merged_info, scalars
from flavor.results.summaries import refused_of
from flavor.store.protocol import ObjectStore

_MOST_READ = 200
"""How many rounds that Redis has no summary of are read in one look, the newest first."""
_PATIENCE_S = 2.0
"""How long one look reads such rounds, whose store may be a slow bucket; the next look goes on."""
_AGAIN_S = 60.0
"""After so many seconds a round that could not be read is tried again."""


class Source(StrEnum):
    """Where a row comes from."""

    SUMMARY = "summary"
    """Redis keeps it for the whole run."""
    ROUND = "round"
    """The round itself, in Redis or rebuilt from its manifest, and its merged information in the store."""
    NONE = "none"
    """Neither has it: the round was pruned, and its manifest cannot be read, or has not been read yet."""


@dataclass(frozen=True)
class RoundRow:
    """One round. Times are milliseconds since 1970 by the clock of the Redis server, sizes are bytes."""

    round: int
    state: RoundState
    source: Source
    opened_ms: int = 0
    """0 where that is not known, as with the other numbers."""
    aggregating_ms: int = 0
    """When its first aggregation began."""
    closed_ms: int = 0
    """0 while it is not closed."""
    paused_ms: int = 0
    """For how long the run had ended while the round was not closed: no time of the round."""
    expected: int = 0
    """Number of clients that are expected."""
    contributors: int = 0
    """Number of clients whose updates were aggregated, or are accepted so far."""
    refused: int | None = 0
    """Number of clients of which an update was refused; None where only the manifest is left, which has no refusals."""
    examples: int = 0
    bytes: int = 0
    attempts: int = 0
    openings: int = 1
    """How often it was opened: again after its quorum was lost, and after the run had ended and was resumed."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The merged metrics by their names in the merged information, such as `loss` and `loss (weighted)`."""
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest value over the contributors, by metric; empty where that is not known."""
    few: Mapping[str, int] = field(default_factory=dict)
    """Number of contributors that report a metric, for those that not all report."""
    reporters: Mapping[str, str] = field(default_factory=dict)
    """Which contributors report a metric, as digests; see `flavor.records.reporters`."""
    left_out: int = 0
    """Number of metrics that are not among `metrics`, because there are too many."""

    def sites_with(self, name: str) -> int:
        """Return how many contributors report a metric, by its name in `shown_metrics`."""
        found = name + WEIGHTED if name + WEIGHTED in self.metrics else name
        return sites_with(found, self.few, max(1, self.contributors)) if found in self.metrics else 0

    def merged(self, name: str) -> MergedValue | None:
        """Return a metric by its name in `shown_metrics`, with how many contributors report it; None for no value."""
        value = self.shown_metrics.get(name)
        if value is None:
            return None
        counted = name + WEIGHTED if name + WEIGHTED in self.metrics else name
        return MergedValue.of(
            counted, value, few=self.few, contributors=max(1, self.contributors), reporters=self.reporters
        )

    def is_of_most(self, name: str) -> bool:
        """Return whether most of the contributors report a metric, by its name in `shown_metrics`; see `info`."""
        return is_of_most(self.sites_with(name), self.contributors)

    @property
    def worked_from_ms(self) -> int:
        """When it was opened, later by the time for which the run had ended; 0 where that is not known."""
        return self.opened_ms + self.paused_ms if self.opened_ms else 0

    @property
    def seconds(self) -> float | None:
        """How long it was open and aggregating; None while it is not closed, or where that is not known."""
        return (self.closed_ms - self.worked_from_ms) / 1000 if self.closed_ms and self.opened_ms else None

    @property
    def shown_metrics(self) -> dict[str, float]:
        """The metrics for a table: the means weighted by examples, by the names that the sites use."""
        return for_people(self.metrics)


def row_of_summary(summary: RoundSummary) -> RoundRow:
    """Return the row of a closed round from what Redis keeps of it."""
    return RoundRow(
        round=summary.round,
        state=RoundState.CLOSED,
        source=Source.SUMMARY,
        opened_ms=summary.opened_ms,
        aggregating_ms=summary.aggregating_ms,
        closed_ms=summary.closed_ms,
        paused_ms=summary.paused_ms,
        expected=summary.expected,
        contributors=summary.contributors,
        refused=summary.refused,
        examples=summary.examples,
        bytes=summary.bytes,
        attempts=summary.attempts,
        openings=summary.openings,
        metrics=summary.metrics,
        spread=summary.spread,
        few=summary.few,
        reporters=summary.reporters,
        left_out=summary.left_out,
    )


def row_of_round(view: RoundView, info: Mapping[str, Any] | None = None) -> RoundRow:
    """Return the row of a round, open or closed, from the round itself and its merged information."""
    few, sites = sites_of(info) if info is not None else ({}, 1)
    found = by_sites(scalars(info["metrics"]), few, sites) if info is not None else {}
    metrics = kept_metrics(found)
    accepted = view.accepted
    names = view.contributors or tuple(accepted)
    updates = [accepted[name] for name in names if name in accepted]
    return RoundRow(
        round=view.round,
        state=view.state,
        source=Source.ROUND,
        opened_ms=view.opened_ms,
        aggregating_ms=view.aggregating_ms or 0,
        closed_ms=view.closed_ms or 0,
        paused_ms=view.paused_ms,
        expected=len(view.expected),
        contributors=len(names),
        refused=len(view.refused),
        examples=sum(max(0, update.num_examples) for update in updates),
        bytes=sum(update.size_bytes for update in updates),
        attempts=view.earlier_attempts + view.attempt,
        openings=view.all_openings,
        metrics=metrics,
        few={name: count for name, count in few.items() if name in metrics or name + WEIGHTED in metrics},
        reporters=reporters_of(names),
        left_out=len(names_of(found) - names_of(metrics)),
    )


class Strip:
    """The rows of one run. Not thread-safe: `History` has the lock."""

    def __init__(
        self, runs: RunStore, store: ObjectStore | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runs, self._store, self._clock = runs, store, clock
        self._incarnation: object = None
        self.generation = 0
        """Grows when the run turns out to be another one, or one that was rebuilt: then all is read again."""
        self._taken = 0  # entries of Redis' list of closed rounds that were read
        self._last = ""  # the newest of them
        self._closed: dict[int, RoundRow] = {}
        self._complete = 0  # all rounds up to this one are in `_closed`
        self._unread: dict[int, float | None] = {}  # rounds that could not be read, with the time of the attempt
        self._current: RoundRow | None = None

    @property
    def closed(self) -> Mapping[int, RoundRow]:
        """The closed rounds, as they were read last."""
        return self._closed

    def look(self, current: RoundView | None = None) -> RunView:
        """Read what is new. `current` is the newest round, if the caller has just read it.

        Raises `RunNotFound`, `BusUnavailable` and `DamagedRecord`.
        """
        view = self._runs.read()
        if view.incarnation != self._incarnation:
            self._forget()
            self._incarnation = view.incarnation
        self._take_summaries()
        self._current = None
        newest = view.round
        if newest and newest not in self._closed:
            if current is None or current.round != newest:
                current = self._runs.read_round(newest)
            if current is not None and current.state is not RoundState.CLOSED:
                self._current = row_of_round(current)
                newest -= 1
        self._fill(newest)
        return view

    def rows(self, after: int = 0) -> list[RoundRow]:
        """Return the rows of the rounds after this one, oldest first; the newest of them may be open."""
        found = [self._closed[number] for number in range(max(0, after) + 1, self._complete + 1)]
        if self._current is not None and self._current.round > after:
            found.append(self._current)
        return found

    def _forget(self) -> None:
        self._closed, self._complete, self._unread = {}, 0, {}
        self._taken, self._last = 0, ""
        self.generation += 1

    def _take_summaries(self) -> None:
        """Read the new entries of the list of closed rounds, and the newest known one, to see whether it still stands.

        It does not after a failover to a server that had not heard of it: then its round is done again.
        """
        texts = self._runs.summaries(max(0, self._taken - 1))
        if self._taken:
            if texts[:1] != [self._last]:
                self._forget()
                texts = self._runs.summaries()
            else:
                texts = texts[1:]
        for text in texts:
            self._taken, self._last = self._taken + 1, text
            with contextlib.suppress(DamagedRecord):
                row = row_of_summary(RoundSummary.from_json(text))
                self._closed[row.round] = row
                self._unread.pop(row.round, None)

    def _fill(self, newest: int) -> None:
        """Have a row for each closed round up to `newest`."""
        for number in range(self._complete + 1, newest + 1):
            if number not in self._closed:
                self._unread[number] = None
                self._closed[number] = RoundRow(number, RoundState.CLOSED, Source.NONE)
        self._complete = max(self._complete, newest)
        now = self._clock()
        due = [number for number, tried in self._unread.items() if tried is None or now - tried >= _AGAIN_S]
        for number in sorted(due, reverse=True)[:_MOST_READ]:
            if self._clock() >= now + _PATIENCE_S:
                break
            row = self._read(number, newest)
            if row is None:
                self._unread[number] = now
            else:
                self._closed[number] = row
                del self._unread[number]

    def _read(self, number: int, newest: int) -> RoundRow | None:
        """Return the row of a closed round that Redis has no summary of; None where it cannot be read."""
        try:
            view = closed_round(self._runs, self._store, number, newest=newest + 1)
        except (FlavorError, OSError):
            return None
        if view is None:
            return None
        info: Mapping[str, Any] | None = None
        if self._store is not None:
            with contextlib.suppress(FlavorError, OSError):
                info = merged_info(view, self._store)
        return replace(row_of_round(view, info), refused=refused_of(view))
