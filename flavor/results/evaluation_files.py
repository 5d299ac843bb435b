"""Writes the evaluations of a run into its result folder: two tables, and what each evaluation was merged from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flavor.atomic import write_json, write_whole
from flavor.bus.runs import RunStore
from flavor.errors import InvalidRecord, StoreError
from flavor.ledger.closed_evaluation import closed_evaluation
from flavor.plain_file import read_plain
from flavor.records.evaluation import EvaluationSummary
from flavor.records.run import RunView
from flavor.results.chosen_evaluation import chosen_of
from flavor.results.evaluated import (
    Evaluated,
    evaluated_of,
    name_of,
    numbers_of,
    with_central,
)
from flavor.results.evaluation_tables import EvaluationTables
from flavor.results.failed_evaluations import write_failed
from flavor.results.kept_evaluation import completed, is_of, sites_with_reports
from flavor.results.read_evaluated import (
    BEST,
    FOLDER,
    OF_SITES,
    REPORTS,
    RULES,
    failed_after,
    is_automatic,
    results_in,
    summaries_after,
)
from flavor.results.reports import Reports, reports_in
from flavor.results.selected import Selected, selected_of
from flavor.results.site_results import SiteResults
from flavor.results.table_columns import ruled_columns
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import require_mounted


class EvaluationFiles:
    """What a result folder has of evaluations. It has nothing of a run of which no model was judged."""

    def __init__(self, out: Path, tell: Callable[[str], None]) -> None:
        self._out, self._folder = out, out / FOLDER
        self._tell = tell
        self._tables = EvaluationTables(out, tell)
        self._looked = self._looked_failed = 0  # entries of the run's lists that were read
        self._best: Selected | None = None
        self._ruled = frozenset[str]()
        self.found: list[Evaluated] = []
        """The evaluations in the folder, in the order in which they were closed."""

    @property
    def by_round(self) -> list[Evaluated]:
        """The newest evaluation of each round's model that the coordinator has opened, by round.

        It has the metrics on the operator's own data as well.
        """
        own = {each.round: each for each in self.found if each.is_central}
        found = own | {each.round: with_central(each, own.get(each.round)) for each in self.found if is_automatic(each)}
        return [found[round_] for round_ in sorted(found)]

    @property
    def newest(self) -> Evaluated | None:
        """The newest evaluation, with what is known of its model on the operator's own data; None for none."""
        return chosen_of(self.found)

    def update(self, runs: RunStore, store: ObjectStore, view: RunView, *, is_last: bool = False) -> None:
        """Write the evaluations that were closed since the last call.

        Raises `StoreError` for a store that may be read later, unless this `is_last`.
        """
        failed = failed_after(runs, self._looked_failed)
        write_failed(self._folder, [each for each in failed if each is not None])
        self._looked_failed += len(failed)
        for summary in summaries_after(runs, self._looked):
            if summary is not None:
                self.found.append(self._written(runs, store, summary, is_last=is_last))
            self._looked += 1
        if not self.found:
            return
        ruled = ruled_columns(view.config)
        self._tables.write(self.found, ruled)
        if ruled != self._ruled:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_json(self._folder / RULES, {"metrics": sorted(ruled)})
            self._ruled = ruled
        best = selected_of(view)
        if best is not None and best != self._best:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_json(self._folder / BEST, best._asdict())
            self._best = best

    def _written(self, runs: RunStore, store: ObjectStore, summary: EvaluationSummary, *, is_last: bool) -> Evaluated:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        name = name_of(summary.round, summary.number)
        of_sites, merged_path = self._folder / f"{name}{OF_SITES}", self._folder / f"{name}.json"
        known: Evaluated | None = None
        with contextlib.suppress(InvalidRecord, FileNotFoundError):  # it is written again
            known = Evaluated.from_json(read_plain(of_sites), str(of_sites))
            if known.closed_ms == summary.closed_ms:
                return known
            known = known if is_of(known, runs.run, summary) else None
        if known is not None and not known.unread:
            return known
        try:
            view = closed_evaluation(runs, store, summary)
        except StoreError:
            if not is_last:
                raise
            view = None
        if view is None:
            if known is not None:
                return known
            self._tell(f"the evaluation of the model of round {summary.round}: Redis has its merged metrics alone")
            return numbers_of(summary)
        merged: dict[str, Any] | None = None
        results = SiteResults({}, {})
        reports = Reports()
        try:
            merged, results = results_in(store, view)
            reports = reports_in(store, results.infos, run=runs.run, round_=view.round, number=view.number)
            require_mounted(store, runs.run)
        except StoreError as error:
            if not is_last:
                raise
            self._tell(f"{self._out} lacks the files of the evaluation of the model of round {view.round}: {error}")
            if known is not None:
                return known
        found = evaluated_of(runs.run, view, summary, merged=merged, results=results)
        if known is not None:
            found = completed(found, known)
        if merged is not None:
            write_json(merged_path, merged)
        elif known is None or not merged_path.exists():
            self._tell(f"{merged_path}: the merged information is no longer in the store, or was changed there")
        for site, why in found.unread.items():
            self._tell(f"{self._folder / name}: it lacks what {site} has measured: {why}")
        self._write_reports(reports, name, is_known=known is not None)
        write_whole(of_sites, json.dumps(json.loads(found.to_json()), indent=1).encode())
        return found

    def _write_reports(self, reports: Reports, name: str, *, is_known: bool) -> None:
        """Write the reports of an evaluation, unless the folder `is_known` to have those of more of its sites."""
        path = self._folder / f"{name}{REPORTS}"
        kept = sites_with_reports(path) if is_known else frozenset[str]()
        if len(kept) > len(reports.sites):
            return
        for site, why in reports.missing.items():
            self._tell(f"{self._folder / name}: it lacks what {site} reported beside its metrics: {why}")
        if reports:
            write_json(path, reports.to_plain())
