"""Reads the closed rounds of a run for an export: from Redis and the store, and from the run's result folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from flavor.bus.runs import RunStore
from flavor.errors import FlavorError, LocalFault, StoreError, StoreUnavailable
from flavor.ledger.closed_evaluation import closed_evaluation
from flavor.ledger.rounds import closed_round
from flavor.plain_file import read_plain
from flavor.records.info import Info
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.results.evaluated import Evaluated, evaluated_of, numbers_of
from flavor.results.kept import folder_of_round, kept_infos
from flavor.results.read_evaluated import results_in, summaries_after
from flavor.results.reading import RoundReading
from flavor.results.rounds import RoundResult, merged_without, round_result
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import require_mounted
from flavor.trackers.tracker import ClosedRound


class EvaluationSource:
    """The evaluations of one run with a result. Asking again reads what is new."""

    def __init__(self) -> None:
        self._incarnation: object = None
        self._taken = 0
        self.found: list[Evaluated] = []
        """In the order in which they were closed."""

    def read(self, runs: RunStore, store: ObjectStore, view: RunView) -> bool:
        """Read those that are new; returns whether there are any.

        What the store no longer has, Redis has of the first metrics. Raises `BusUnavailable`, and `StoreError` for a
        store that may be read later.
        """
        if view.incarnation != self._incarnation:
            self._incarnation, self._taken, self.found = view.incarnation, 0, []
        before = len(self.found)
        for summary in summaries_after(runs, self._taken):
            if summary is not None:
                known = closed_evaluation(runs, store, summary)
                if known is None:
                    self.found.append(replace(numbers_of(summary), run=runs.run))
                else:
                    merged, results = results_in(store, known)
                    self.found.append(evaluated_of(runs.run, known, summary, merged=merged, results=results))
            self._taken += 1
        return len(self.found) > before


class RoundSource:
    """The closed rounds of one run, with all that sites reported, as `metrics.csv` has them."""

    def __init__(
        self, runs: RunStore, store: ObjectStore, *, folder: Path | None = None, tell: Callable[[str], None]
    ) -> None:
        """Read from Redis and the store. A result `folder` of the run still has what the store has no more."""
        self._runs, self._store, self._folder = runs, store, folder
        self._reading = RoundReading("the export", tell)

    def after(self, last: int, view: RunView) -> Iterator[ClosedRound]:
        """Yield the closed rounds after round `last`, oldest first; a round of which nothing is left is left out.

        Call `tell_lacking` afterwards. Raises `BusUnavailable`, and `StoreError` for a store that may be read later.
        """
        for number in range(last + 1, view.round + 1):
            try:
                round_ = closed_round(self._runs, self._store, number, newest=view.round)
            except (StoreUnavailable, LocalFault):
                raise
            except StoreError:  # neither Redis nor the store has it any more
                require_mounted(self._store, self._runs.run)
                self._reading.lacks("all of it", number)
                continue
            if round_ is None:
                return
            found, lacks = self._round(round_, is_last=view.state.ended)
            try:
                require_mounted(self._store, self._runs.run)
            except LocalFault:  # what seemed to be lost was away
                self._reading.forget(number)
                raise
            manifest = round_.manifest.digest if round_.manifest is not None else ""
            yield ClosedRound(found, round_.closed_ms or 0, manifest, is_whole=not lacks)

    def manifest(self, number: int, view: RunView) -> str:
        """Return the SHA-256 of a closed round's manifest; '' where it is not known, or the round is not closed.

        Raises `BusUnavailable`, and `StoreError` for a store that may be read later.
        """
        try:
            round_ = closed_round(self._runs, self._store, number, newest=view.round)
        except (StoreUnavailable, LocalFault):
            raise
        except StoreError:
            return ""
        return round_.manifest.digest if round_ is not None and round_.manifest is not None else ""

    def tell_lacking(self) -> None:
        """Report the rounds of which something is missing."""
        self._reading.tell_lacking()

    def _round(self, view: RoundView, *, is_last: bool) -> tuple[RoundResult, bool]:
        """Return what a round was, and whether something of it is missing."""
        merged = self._kept_merged(view.round)
        if merged is None:
            merged = self._reading.merged(view, self._store)
        known = self._kept_infos(view.round)
        found = self._reading.of_sites(view, self._store, known, is_last=is_last)
        lacks = merged is None or len(found) < len(view.contributors)
        merged = merged_without(view) if merged is None else merged
        try:
            return round_result(view, merged, found), lacks
        except (FlavorError, OSError):
            raise
        except Exception as error:  # what sites wrote, merged by another release
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self._reading.lacks("what it reported", view.round, f"cannot be used, so {{out}} lacks it ({said})")
            return round_result(view, merged_without(view), {}), True

    def _kept_merged(self, number: int) -> dict[str, Any] | None:
        if self._folder is None:
            return None
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads(read_plain(folder_of_round(self._folder, number).with_suffix(".json")))
            if isinstance(found, dict) and all(isinstance(found.get(part), dict) for part in ("metadata", "metrics")):
                return dict(found)
        return None

    def _kept_infos(self, number: int) -> dict[str, Info]:
        return {} if self._folder is None else kept_infos(folder_of_round(self._folder, number))
