"""The evaluations of a run over its rounds: curves of a metric of the global models, and one evaluation in full.

A curve has the evaluations that the coordinator has opened, by sites and on the operator's own data. Those that
somebody asks for may be of a few sites alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from flavor.bus.runs import RunStore
from flavor.policy.selection import Select
from flavor.records.evaluation import BestModel, EvaluationKind, EvaluationSummary
from flavor.records.own_evaluations import own_evaluations
from flavor.records.states import RoundState
from flavor.results.best import BestRound, MergedValue, best_of
from flavor.results.evaluated_table import described
from flavor.results.metric_of_sites import better_of
from flavor.results.read_evaluated import chosen_among, failed_after, numbered_among, summaries_after, whole_of
from flavor.store.protocol import ObjectStore
from flavor.view.curves import Curves, merged_curves, metric_names
from flavor.view.judged_table import JudgedTable, TableEntry, by_time
from flavor.view.strip import RoundRow, Source

MOST_SITES = 200
"""Sites of one evaluation that are described."""
_MOST_KEPT = 8
"""Described evaluations that are remembered."""


class JudgedModels:
    """The evaluations of one run. Not thread-safe: `History` has the lock. Asking again costs what is new."""

    def __init__(self, runs: RunStore, store: ObjectStore | None) -> None:
        self._runs, self._store = runs, store
        self.forget()

    def forget(self) -> None:
        """Read everything again: the run is another one."""
        self._entries = list[TableEntry]()  # of Redis' lists, as they came, None for those that are damaged
        self._closed = self._failed = 0  # entries of either list
        self._rows, self._own = dict[int, RoundRow](), dict[int, RoundRow]()  # by sites, on the operator's own data
        self._described = OrderedDict[tuple[int, ...], dict[str, Any]]()
        self._table = JudgedTable(self._runs, self._store)

    def _look(self) -> None:
        closed, failed = summaries_after(self._runs, self._closed), failed_after(self._runs, self._failed)
        self._closed, self._failed = self._closed + len(closed), self._failed + len(failed)
        self._entries += by_time(closed, failed)
        read = [summary for summary in closed if summary is not None]
        self._rows |= {summary.round: row_of_evaluation(summary) for summary in own_evaluations(read)}
        of_own = own_evaluations(read, EvaluationKind.CENTRAL)
        self._own |= {summary.round: row_of_evaluation(summary) for summary in of_own}

    def rows(self) -> list[RoundRow]:
        """Return each evaluation in the form of a round, by round."""
        self._look()
        both = {
            round_: replace(row, metrics={**row.metrics, **self._own[round_].metrics}) if round_ in self._own else row
            for round_, row in self._rows.items()
        }
        found = self._own | both
        return [found[round_] for round_ in sorted(found)]

    def names(self) -> list[str]:
        """Return the names of the metrics, as `metric_names` orders them."""
        return metric_names(self.rows())

    def curves(self, metric: str, select: Select | None, best: BestModel | None = None) -> Curves:
        """Return the curves of the merged metric, without those of single sites. The best is by the plain mean.

        `select`, the rule of the run, says which values of its metric are better, and of its own metric the best is
        `best`, the best model by that rule: no curve marks another one.
        """
        rows = self.rows()
        known = {
            row.round: MergedValue.of(
                metric, row.metrics[metric], few=row.few, contributors=row.contributors, reporters=row.reporters
            )
            for row in rows
            if metric in row.metrics
        }
        by_rule = select is not None and metric == select.name
        marked = _marked(best, known) if by_rule else best_of(known, better_of(metric, select))
        return replace(merged_curves(metric, rows), best=marked)

    def summary(self, round_: int, number: int) -> EvaluationSummary:
        """Return the numbers of one evaluation. Redis is read only for a new one. Raises `RunError` for none."""
        for known in reversed(self._known):
            if (known.round, known.number) == (round_, number):
                return known
        self._look()
        return numbered_among(self._runs.run, self._known, round_, number).summary

    def evaluation(
        self, round_: int | None, number: int | None, select: Select | None, ruled: Collection[str] = ()
    ) -> dict[str, Any]:
        """Return the newest evaluation, or that of the model of `round_`, as `flavor results --json` has it.

        `number` chooses among several of one round. At most `MOST_SITES` sites are described, and `left_out` counts the
        others. Raises `RunError` where there is none.
        """
        self._look()
        if number is None:
            chosen = chosen_among(self._runs.run, self._known, round_)
        else:
            chosen = numbered_among(self._runs.run, self._known, round_ or 0, number)
        summary, central = chosen
        key = summary.round, summary.number, summary.closed_ms, central is not None
        if key not in self._described:
            whole = whole_of(self._runs, chosen, lambda: self._store, most=MOST_SITES)
            found = described(whole, select=select, ruled=ruled)
            sites, missing = list(found["sites"].items()), list(found["missing"].items())
            left_out = max(0, len(sites) - MOST_SITES) + max(0, len(missing) - MOST_SITES)
            unread = {site: why for site, why in found["unread"].items() if site in dict(sites[:MOST_SITES])}
            cut = {"sites": dict(sites[:MOST_SITES]), "missing": dict(missing[:MOST_SITES]), "left_out": left_out}
            self._described[key] = {**found, **cut, "unread": unread}
        self._described.move_to_end(key)
        while len(self._described) > _MOST_KEPT:
            self._described.popitem(last=False)
        return self._described[key]

    def table(self, metric: str, before: int | None, select: Select | None, best: BestModel | None) -> dict[str, Any]:
        """Return the newest evaluations, or those before an entry; see `JudgedTable.page`. `best` is by `select`."""
        self._look()
        found = self._table.page(self._entries, metric, before, select)
        return {**found, "best": self._best(found["metric"], select, best)}

    def _best(self, metric: str, select: Select | None, best: BestModel | None) -> dict[str, Any] | None:
        if select is None:
            by_values = self.curves(metric, None).best
            return None if by_values is None else {"round": by_values.round, "metric": metric, "selected": False}
        return None if best is None else {"round": best.round, "metric": select.name, "selected": True}

    @property
    def _known(self) -> list[EvaluationSummary]:
        return [each for each in self._entries if isinstance(each, EvaluationSummary)]


def _marked(best: BestModel | None, known: Mapping[int, MergedValue]) -> BestRound | None:
    """Return the best model by `--select` in the form of a best round, without rounds that are not compared."""
    if best is None or best.round not in known:
        return None
    value = known[best.round]
    return BestRound(
        round=best.round,
        value=value.value,
        sites=value.sites,
        contributors=value.contributors,
        usual=value.sites,
        fewer=0,
        newest_fewer=0,
        compared=len(known),
    )


def row_of_evaluation(summary: EvaluationSummary) -> RoundRow:
    """Return an evaluation in the form of a round: its contributors are the sites whose results count."""
    return RoundRow(
        round=summary.round,
        state=RoundState.CLOSED,
        source=Source.SUMMARY,
        opened_ms=summary.opened_ms,
        closed_ms=summary.closed_ms,
        expected=summary.expected,
        contributors=summary.sites,
        examples=summary.examples,
        metrics=summary.metrics,
        spread=summary.spread,
        few=summary.few,
        reporters=summary.reporters,
    )
