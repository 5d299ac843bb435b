"""The evaluations of a run as a table: a row for each, with the model, who has judged it, and one metric merged."""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flavor.bus.runs import RunStore
from flavor.errors import StoreError
from flavor.ledger.closed_evaluation import closed_evaluation
from flavor.policy.selection import Select
from flavor.records.counts import CENTRAL_PREFIX, POOLED, bound_of
from flavor.records.evaluation import CENTRAL, EvaluationSummary
from flavor.records.failed_evaluation import FailedEvaluation
from flavor.results.evaluated import evaluated_of, numbers_of
from flavor.results.metric_of_sites import base_of, headline_of, metrics_of
from flavor.store.protocol import ObjectStore

ROWS = 10
"""Evaluations in one page of the table."""
_PATIENCE_S = 1.0
"""How long one call reads evaluations, at least one of them."""
_MOST_KEPT = 200
"""Rows whose sites are remembered."""
_MOST_NAMED = 20
"""Sites of each kind that a row names."""
_LONGEST_REASON = 300
_OF_SITES = ("worst", "worst_not_finite", "unknown")
"""What a row has of `MetricOfSites` that takes the values of single sites."""
_NOTHING: Mapping[str, Any] = {"model": "", "skipped": [], "missing": {}, "all_skipped": 0}
"""What a row has beside the numbers of its evaluation, where nothing is known of that."""


TableEntry = EvaluationSummary | FailedEvaluation | None
"""What a row is of; None for an entry of Redis that is damaged."""


def by_time(closed: Sequence[EvaluationSummary | None], failed: Sequence[FailedEvaluation | None]) -> list[TableEntry]:
    """Return the evaluations with and without a result in the order in which they were over."""
    return sorted([*closed, *failed], key=_over_ms)


def _over_ms(entry: TableEntry) -> int:
    if entry is None:
        return 0
    return entry.over_ms if isinstance(entry, FailedEvaluation) else entry.closed_ms


class JudgedTable:
    """Reads of each evaluation once what its summary does not have. Not thread-safe."""

    def __init__(
        self, runs: RunStore, store: ObjectStore | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runs, self._store, self._clock = runs, store, clock
        self._kept = OrderedDict[int, dict[str, Any]]()

    def page(
        self, entries: Sequence[TableEntry], metric: str, before: int | None, select: Select | None
    ) -> dict[str, Any]:
        """Return the newest `ROWS` of these entries, as `by_time` has them, or those before an entry, newest first.

        There are fewer rows where evaluations of very many sites take long to read: a later call finds them read.
        `metric` names one as curves do; '' takes the one by which the newest evaluation is shown. Keys: `metric` (as
        sites use it), `rows`, `earlier` (how many older ones there are). Those of a row: `at` (its entry), `round`,
        `evaluation`, `opened_ms`, `closed_ms`, `sites`, `expected`, `examples`, `model` (SHA-256), `subject`, `skipped`
        and `missing` (site to reason), of which the first are named, `all_skipped` (the number), `merged` (see
        `MetricOfSites`; None without the metric), `own`, on the operator's own data: name to value, and `failed`: why
        it has no result; '' where it has one.
        """
        base = _base(metric) or self._headline(entries, select)
        last = len(entries) if before is None else min(before, len(entries))
        until, rows, at = self._clock() + _PATIENCE_S, list[dict[str, Any]](), last
        while at > 0 and len(rows) < ROWS and (not rows or self._clock() < until):
            at -= 1
            found = entries[at]
            if isinstance(found, FailedEvaluation):
                rows.append(_failed_row(at, found))
            elif found is not None:
                rows.append(self._row(at, found, base, select))
        return {"metric": base, "rows": rows, "earlier": at}

    @staticmethod
    def _headline(entries: Sequence[TableEntry], select: Select | None) -> str:
        every = [each for each in entries if isinstance(each, EvaluationSummary)]
        by_sites = [each for each in every if each.number != CENTRAL and each.subject.counts]
        newest = next(reversed(by_sites or every), None)
        return _base(headline_of(metrics_of(numbers_of(newest), select), select) or "") if newest is not None else ""

    def _row(self, at: int, summary: EvaluationSummary, base: str, select: Select | None) -> dict[str, Any]:
        known = self._beside(at, summary, select)
        row = {
            "at": at,
            **{name: getattr(summary, name) for name in ("round", "opened_ms", "closed_ms", "sites", "expected")},
            "evaluation": summary.number,
            "subject": summary.subject.to_plain(),
            "examples": summary.examples,
            **{name: value for name, value in known.items() if name != "worst"},
            "merged": None,
            "own": {},
            "own_bound": None,
            "failed": "",
        }
        if summary.number == CENTRAL:
            names = (f"{CENTRAL_PREFIX}{base}", f"{CENTRAL_PREFIX}{POOLED}{base}")
            own = {name: summary.metrics[name] for name in names if name in summary.metrics}
            return {**row, "own": own, "own_bound": summary.metrics.get(bound_of(names[1]))}
        found = next((each for each in metrics_of(numbers_of(summary), select) if each.name == base), None)
        return {**row, "merged": None if found is None else {**asdict(found), **known["worst"].get(base, {})}}

    def _beside(self, at: int, summary: EvaluationSummary, select: Select | None) -> Mapping[str, Any]:
        """Return what an evaluation has beside its numbers; of one that is gone, what its record in the store has."""
        if at not in self._kept:
            view = None
            with contextlib.suppress(StoreError, OSError):  # it cannot be read now
                view = closed_evaluation(self._runs, self._store, summary)
            found: dict[str, Any] = {**_NOTHING, "worst": {}}
            if view is not None and view.closed_ms == summary.closed_ms:
                whole = evaluated_of(self._runs.run, view, summary)
                missing = list(whole.missing.items())[:_MOST_NAMED]
                found = {
                    "model": whole.model,
                    "skipped": list(whole.skipped[:_MOST_NAMED]),
                    "all_skipped": len(whole.skipped),
                    "missing": {site: reason[:_LONGEST_REASON] for site, reason in missing},
                    "worst": {
                        each.name: {name: getattr(each, name) for name in _OF_SITES}
                        for each in metrics_of(whole, select)
                    },
                }
            self._kept[at] = found
        self._kept.move_to_end(at)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return self._kept[at]


def _failed_row(at: int, failed: FailedEvaluation) -> dict[str, Any]:
    return {
        "at": at,
        "round": failed.round,
        "evaluation": failed.number,
        "subject": failed.subject.to_plain(),
        "opened_ms": failed.opened_ms,
        "closed_ms": failed.over_ms,
        **dict.fromkeys(("sites", "expected", "examples"), 0),
        **_NOTHING,
        "merged": None,
        "own": {},
        "own_bound": None,
        "failed": failed.reason,
    }


def _base(metric: str) -> str:
    """Return the name that sites use of a metric as curves name it: `auc` of `central/pooled/auc`."""
    return base_of(metric.removeprefix(CENTRAL_PREFIX))
