"""What has happened in a run, round by round: rows, timelines and curves, for people and programs that look at it.

A `History` reads Redis and the run's store, and remembers what it has read: asking again costs what is new.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.errors import RunError
from flavor.evaluation_settings import select_of
from flavor.records.counts import POOLED
from flavor.records.evaluation import EvaluationSummary
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import RoundState
from flavor.results.table_columns import ruled_columns
from flavor.store.protocol import ObjectStore
from flavor.view.curves import Curves, merged_curves, metric_names, with_sites
from flavor.view.judged import JudgedModels
from flavor.view.reports import EvaluationReports
from flavor.view.site_values import SiteValues
from flavor.view.strip import RoundRow, Source, Strip
from flavor.view.timeline import ClientRound, Outcome, PhaseSpan, RoundTimeline, read_client, read_timeline

__all__ = [
    "ClientRound",
    "Curves",
    "History",
    "Outcome",
    "PhaseSpan",
    "RoundRow",
    "RoundTimeline",
    "Source",
]


class History:
    """The rounds of one run. May be called by several threads.

    Without a `store`, nothing is known of what Redis no longer has, but for what sites reported, which a local run's
    result `folder` keeps. All methods raise `RunNotFound`, `BusUnavailable`
    and `DamagedRecord`; what the store does not have, or cannot give, is left out, and the result says so.
    """

    def __init__(self, runs: RunStore, store: ObjectStore | None, *, folder: Path | None = None) -> None:
        self._runs, self._store, self._folder = runs, store, folder
        self._lock = threading.Lock()
        self._strip = Strip(runs, store)
        self._judged, self._judged_of = JudgedModels(runs, store), 0
        self._reports = EvaluationReports(runs, store)  # has a lock of its own: the store may be slow
        self._values_lock = threading.Lock()  # the store may be slow, and only curves wait for it
        self._values, self._values_of = SiteValues(runs, store, folder=folder), 0

    def strip(self, after: int = 0, *, current: RoundView | None = None) -> list[RoundRow]:
        """Return a row for each round after `after`, oldest first: all closed ones, and the open one.

        Costs one or two round trips to Redis, and what the new rounds have. `current` is the newest round, if the
        caller has just read it: that saves the second one. A row of `Source.NONE` has only its number: a later call
        may know more.
        """
        with self._lock:
            self._strip.look(current)
            return self._strip.rows(after)

    def timeline(self, round_: int) -> RoundTimeline:
        """Return one round with what each client did in it. Raises `RunError` for a round that has not been opened."""
        with self._lock:
            view = self._strip.look()
            rows = self._strip.rows(round_ - 1)
        if round_ < 1 or not rows or rows[0].round != round_:
            raise RunError(f"run {self._runs.run!r} has no round {round_}: the newest is {self._newest()}")
        goes_on = not view.state.ended and view.round == round_
        now_ms = self._runs.now_ms()
        return read_timeline(self._runs, self._store, rows[0], now_ms=now_ms, goes_on=goes_on, folder=self._folder)

    def client(self, client: str, most: int = 50) -> list[tuple[int, ClientRound]]:
        """Return what one client did in the newest rounds in which its update was judged, oldest first.

        Only the newest `most` rounds are searched, and only what Redis still has of them.
        """
        with self._lock:
            view = self._strip.look()
            rows = self._strip.rows(max(0, view.round - most))
        return read_client(self._runs, rows, client, now_ms=self._runs.now_ms())

    def curves(self, metric: str, sites: Sequence[str] | None = None, most_sites: int = 50) -> Curves:
        """Return the curves of one metric over all closed rounds: merged, and of single sites.

        `sites` are the sites to show, of whom the first `most_sites` are taken; None shows the first `most_sites` of
        the run by name that have the metric, () shows none. A metric that no round has gives curves of None alone.
        Reads the store for two seconds at most: where `is_complete` is False, a later call may know more.
        """
        with self._lock:
            self._strip.look()
            rows = [row for row in self._strip.rows() if row.state is RoundState.CLOSED]
            generation = self._strip.generation
        merged = merged_curves(metric, rows)
        every = self._runs.members() if sites is None else list(dict.fromkeys(sites))
        names = every[:most_sites]
        if metric.startswith(POOLED):  # which no single site has
            return merged
        if not names or not rows:
            return replace(merged, left_out=len(every) - len(names))
        with self._values_lock:
            if generation != self._values_of:
                self._values.forget()
                self._values_of = generation
            values, whole = self._values.of(metric, names, merged.rounds)
            whole = [round_ for round_ in merged.rounds if round_ in whole]
            values = {round_: values[round_] for round_ in merged.rounds if round_ in values}
        return with_sites(merged, names, values, are_all=sites is None, left_out=len(every) - len(names), whole=whole)

    def metric_names(self) -> list[str]:
        """Return the names of all metrics of the closed rounds, as the sites use them; see `metric_names`."""
        with self._lock:
            self._strip.look()
            return metric_names(self._strip.rows())

    def judged_curves(self, metric: str) -> Curves:
        """Return the curves of a metric of evaluations over the rounds whose global models were judged, without sites.

        They are no curves of what training scripts report: see `flavor.view.judged`.
        """
        with self._lock:
            judged, view = self._look_at_judged()
            return judged.curves(metric, select_of(RunConfig.known(view.config)), view.best)

    def judged_names(self) -> list[str]:
        """Return the names of all metrics of the evaluations."""
        with self._lock:
            return self._look_at_judged()[0].names()

    def evaluation(self, round_: int | None = None, number: int | None = None) -> dict[str, Any]:
        """Return one evaluation in full; see `JudgedModels.evaluation`. Raises `RunError` where there is none."""
        with self._lock:
            judged, view = self._look_at_judged()
            return judged.evaluation(
                round_, number, select_of(RunConfig.known(view.config)), ruled_columns(view.config)
            )

    def evaluations(self, metric: str = "", before: int | None = None) -> dict[str, Any]:
        """Return the newest evaluations as rows of a table, or those before an entry; see `JudgedTable.page`.

        `best` is the best model by the run's `--select`, or else the best of the rounds by the values of the metric:
        `round`, `metric` and `selected`; None where that is not known.
        """
        with self._lock:
            judged, view = self._look_at_judged()
            return judged.table(metric, before, select_of(RunConfig.known(view.config)), view.best)

    def reports(self, round_: int, number: int) -> dict[str, Any]:
        """Return what the store has of one evaluation; see `EvaluationReports.read`. Reads for two seconds at most."""
        return self._reports.read(self._summary(round_, number))

    def report_of_site(self, round_: int, number: int, site: str) -> dict[str, Any]:
        """Return what a site reports in one evaluation; see `EvaluationReports.of_site`."""
        return self._reports.of_site(self._summary(round_, number), site)

    def report_image(self, round_: int, number: int, site: str, digest: str) -> tuple[bytes, str]:
        """Return an image that a site reports, and its media type; see `EvaluationReports.image`."""
        return self._reports.image(self._summary(round_, number), site, digest)

    def _summary(self, round_: int, number: int) -> EvaluationSummary:
        with self._lock:
            return self._judged.summary(round_, number)

    def _look_at_judged(self) -> tuple[JudgedModels, RunView]:
        view = self._strip.look()
        if self._judged_of != self._strip.generation:
            self._judged.forget()
            self._judged_of = self._strip.generation
        return self._judged, view

    def _newest(self) -> int:
        return self._runs.read().round
