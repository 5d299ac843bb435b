"""What the store has of one evaluation, for people who look at it: who has signed its record, and what sites report.

A site's report is shown only if an aggregator has inspected and accepted it: the accepted result names its digest.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from flavor.bus.runs import RunStore
from flavor.errors import (
    BadObjectPath,
    DigestMismatch,
    InvalidInfo,
    InvalidRecord,
    InvalidSetting,
    ObjectMissing,
    ObjectWithheld,
    OtherProtocol,
    RunError,
    StoreError,
    StoreUnavailable,
)
from flavor.ledger.archive import Archive
from flavor.ledger.closed_evaluation import closed_evaluation
from flavor.ledger.evaluation import read_manifest
from flavor.ledger.keys import fingerprint
from flavor.records.evaluation import EvaluationSummary
from flavor.records.evaluation_report import Image, Report
from flavor.records.images import picture_of
from flavor.records.info import MAX_BYTES, parse_info
from flavor.records.merged_report import merge_reports
from flavor.records.objects import ObjectRef
from flavor.results.reports import image_in, report_in
from flavor.store.protocol import ObjectStore
from flavor.store.url import package_scheme
from flavor.view.drawn import drawn

_PATIENCE_S = 2.0
"""How long one call reads the store, which may be a slow bucket; the next call goes on."""
_MOST_VALUES = 1_000_000
"""Numbers, and labels, of the reports that are merged."""
_MOST_KEPT = 4
"""Evaluations, and single reports, that are remembered."""
_KINDS = {".png": "image/png", ".jpg": "image/jpeg"}
_SPOILED = (ObjectMissing, DigestMismatch, BadObjectPath, ObjectWithheld, InvalidInfo)
"""What is wrong with a single object: the other sites' reports are read all the same."""


def _shown_url(store: ObjectStore | None) -> str:
    return "" if store is None or package_scheme(store.url) else store.url


class EvaluationReports:
    """The reports of the evaluations of one run. May be called by several threads."""

    def __init__(
        self, runs: RunStore, store: ObjectStore | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runs, self._store, self._clock = runs, store, clock
        self._url = _shown_url(store)
        self._lock = threading.Lock()
        self._kept = OrderedDict[tuple[int, int, int], _Known]()

    def read(self, summary: EvaluationSummary) -> dict[str, Any]:
        """Read on, and return what is known of an evaluation.

        Keys: `round`, `evaluation`, `signed_by` (the fingerprint of the aggregator's key; '' where that is not known),
        `public_key`, `unsigned` (why it is not known), `sites` (those that have a report), `missing` (site to why its
        report cannot be read), `read` and `of` (numbers of results), `merged` (see `drawn`; None where there is
        nothing, or not yet), `unmerged` (why there is nothing), `store` (its URL; '' where there is none, and for a
        package's store, whose URL may hold a secret), `silent` (why the store cannot be read; '' where it can) and
        `is_complete` (False where there is more to read, or `silent`). Raises `RunError` and `BusUnavailable`.
        """
        with self._lock:
            known = self._of(summary)
            silent = "" if self._store is not None else "the page has no access to the run's store"
            if self._store is not None:
                try:
                    self._read_on(self._store, known)
                except (StoreError, OSError) as error:
                    silent = str(error)
            return {
                "round": known.round,
                "evaluation": known.number,
                **known.signed,
                "sites": known.sites,
                "missing": known.missing,
                "read": len(known.results) - len(known.waiting),
                "of": len(known.results),
                "merged": known.merged,
                "unmerged": known.unmerged,
                "store": self._url,
                "silent": silent,
                "is_complete": not silent and not known.waiting,
            }

    def of_site(self, summary: EvaluationSummary, site: str) -> dict[str, Any]:
        """Return what one site reports: `site`, `examples`, and `results` (see `drawn`).

        Raises `RunError` where the site has no report in this evaluation, `StoreError` and `InvalidInfo`.
        """
        with self._lock:
            report = self._report(self._of(summary), site)
        results = drawn(report.to_plain()["results"])
        return {"site": site, "examples": report.dataset_size, "results": results}

    def image(self, summary: EvaluationSummary, site: str, digest: str) -> tuple[bytes, str]:
        """Return the bytes of an image that a site's report names by this digest, and its media type.

        Raises as `of_site`, and `InvalidInfo` for bytes that are no image of that type, or have too many pixels.
        """
        with self._lock:
            known = self._of(summary)
            report = self._report(known, site)
        image = next((each for each in report.images if each.digest == digest), None)
        if image is None:
            raise RunError(f"the report of {site[:80]!r} has no such image")
        return self._checked(image, known, site)

    def _checked(self, image: Image, known: _Known, site: str) -> tuple[bytes, str]:
        assert self._store is not None
        data = image_in(self._store, image, run=self._runs.run, round_=known.round, number=known.number, site=site)
        try:
            found = picture_of(data)
        except ValueError as error:
            raise InvalidInfo(f"an image of {site} {error}") from None
        if found.extension != image.extension:
            raise InvalidInfo(f"an image of {site} is {found.extension}, and is said to be {image.extension}")
        return data, _KINDS[found.extension]

    def _of(self, summary: EvaluationSummary) -> _Known:
        key = summary.round, summary.number, summary.closed_ms
        if key not in self._kept:
            try:
                view = closed_evaluation(self._runs, self._store, summary)
            except (StoreError, OSError) as error:
                raise RunError(
                    f"the evaluation of the model of round {summary.round} cannot be read: {error}"
                ) from None
            if view is None:
                raise RunError(f"Redis no longer has the evaluation of the model of round {summary.round}")
            results = {site: each.result.info for site, each in sorted(view.accepted.items()) if each.result}
            self._kept[key] = _Known(summary, results, view.manifest)
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _read_on(self, store: ObjectStore, known: _Known) -> None:
        """Read the record, and then the reports of sites one after another. Raises `StoreError` for a failing store."""
        until = self._clock() + _PATIENCE_S
        if known.manifest is not None and not any(known.signed.values()):
            known.signed = _signed(Archive(store, self._runs.run), known.manifest)
        while known.waiting and self._clock() < until:
            site = known.waiting[-1]
            try:
                report = self._report_of(store, known, site)
            except StoreUnavailable:
                raise
            except _SPOILED as error:
                known.missing[site], report = str(error), None
            known.waiting.pop()
            if report is not None:
                known.take(site, report)
        if not known.waiting:
            known.merge()

    def _report(self, known: _Known, site: str) -> Report:
        if self._store is None:
            raise RunError("the page has no access to the run's store: start `flavor ui` with --store")
        if site not in known.results:
            raise RunError(f"{site[:80]!r} has no result in the evaluation of the model of round {known.round}")
        if site not in known.last:
            report = self._report_of(self._store, known, site)
            if report is None:
                raise RunError(f"{site} has written no result.json for the model of round {known.round}")
            known.last[site] = report
        known.last.move_to_end(site)
        while len(known.last) > _MOST_KEPT:
            known.last.popitem(last=False)
        return known.last[site]

    def _report_of(self, store: ObjectStore, known: _Known, site: str) -> Report | None:
        info = parse_info(store.read(known.results[site], most=MAX_BYTES), where=f"info.json of {site}")
        return report_in(store, info, run=self._runs.run, round_=known.round, number=known.number, site=site)


class _Known:
    """What is known of the reports of one evaluation."""

    def __init__(
        self, summary: EvaluationSummary, results: Mapping[str, ObjectRef], manifest: ObjectRef | None
    ) -> None:
        self.round, self.number, self.results, self.manifest = summary.round, summary.number, results, manifest
        self.signed = {"signed_by": "", "public_key": "", "unsigned": ""}
        self.waiting = sorted(results, reverse=True)
        """The sites whose results were not read yet, the next one last."""
        self.sites, self.missing = list[str](), dict[str, str]()
        self.merged: dict[str, Any] | None = None
        self.unmerged = ""
        self.last = OrderedDict[str, Report]()
        """Reports that were asked for one by one."""
        self._whole, self._values = dict[str, Report](), 0

    def take(self, site: str, report: Report) -> None:
        """Note the report of one more site, and keep it until all are merged."""
        self.sites.append(site)
        self._values += _size(report)
        if self._values <= _MOST_VALUES:
            self._whole[site] = report
        else:
            self._whole.clear()

    def merge(self) -> None:
        """Merge the reports, once."""
        if self.merged is not None or self.unmerged or not self.sites:
            return
        if self._values > _MOST_VALUES:
            self.unmerged = f"the sites report more than {_MOST_VALUES} values: choose a site"
        else:
            self.merged = drawn(merge_reports(self._whole))
        self._whole.clear()


def _size(report: Report) -> int:
    """Return how many numbers and labels a report has."""
    flat = [len(each.labels) + len(each.values) for each in (*report.tables, *report.bars)]
    square = [len(each.y_labels) + len(each.x_labels) * (1 + len(each.y_labels)) for each in report.heatmaps]
    lines = [sum(map(len, (*each.x_values, *each.y_values))) for each in report.plots]
    return sum((*flat, *square, *lines))


def _signed(archive: Archive, ref: ObjectRef) -> dict[str, str]:
    """Return who has signed the record of an evaluation, or why that is not known. Raises `StoreUnavailable`."""
    try:
        manifest = read_manifest(archive, ref)
        if manifest.is_signed():
            return {"signed_by": fingerprint(manifest.public_key), "public_key": manifest.public_key, "unsigned": ""}
        why = "its signature is not that of the key that it names"
    except (ObjectMissing, InvalidRecord, InvalidSetting, BadObjectPath, ObjectWithheld, OtherProtocol) as error:
        why = str(error)
    return {"signed_by": "", "public_key": "", "unsigned": why}
