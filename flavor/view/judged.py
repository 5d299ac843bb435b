"""The evaluations of a run over its rounds: curves of a metric of the global models, and one evaluation in full.

A curve has the evaluations that the coordinator has opened, by sites and on the operator's own data. Those that
somebody asks for may be of a few sites alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.evaluation_settings import select_of
from flavor.policy.selection import Select
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationSummary
from flavor.records.merging import sites_with
from flavor.records.states import RoundState
from flavor.results.best import MergedValue, best_of
from flavor.results.evaluated import better_of
from flavor.results.evaluated_table import described
from flavor.results.read_evaluated import from_redis, summaries_after
from flavor.view.curves import Curves, merged_curves, metric_names
from flavor.view.strip import RoundRow, Source

MOST_SITES = 200
"""Sites of one evaluation that are described."""


class Judged:
    """The evaluations of one run. Not thread-safe: `History` has the lock. Asking again costs what is new."""

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._taken = 0  # entries of Redis' list that were read
        self._rows: dict[int, RoundRow] = {}
        self._own: dict[int, RoundRow] = {}  # on the operator's own data

    def forget(self) -> None:
        """Read everything again: the run is another one."""
        self._taken, self._rows, self._own = 0, {}, {}

    def rows(self) -> list[RoundRow]:
        """Return each evaluation in the form of a round, by round."""
        for summary in summaries_after(self._runs, self._taken):
            self._taken += 1
            if summary is not None and summary.number == AUTOMATIC:
                self._rows[summary.round] = row_of_evaluation(summary)
            elif summary is not None and summary.number == CENTRAL:
                self._own[summary.round] = row_of_evaluation(summary)
        both = {
            round_: replace(row, metrics={**row.metrics, **self._own[round_].metrics}) if round_ in self._own else row
            for round_, row in self._rows.items()
        }
        found = self._own | both
        return [found[round_] for round_ in sorted(found)]

    def names(self) -> list[str]:
        """Return the names of the metrics, as `metric_names` orders them."""
        return metric_names(self.rows())

    def curves(self, metric: str, select: Select | None) -> Curves:
        """Return the curves of the merged metric, without those of single sites. The best is by the plain mean.

        `select`, the rule of the run, says which values of its metric are better.
        """
        rows = self.rows()
        known = {
            row.round: MergedValue(row.metrics[metric], sites_with(metric, row.few, row.contributors), row.contributors)
            for row in rows
            if metric in row.metrics
        }
        return replace(merged_curves(metric, rows), best=best_of(known, better_of(metric, select)))


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
    )


def described_evaluation(runs: RunStore, round_: int | None = None) -> dict[str, Any]:
    """Return the newest evaluation, or that of the model of `round_`, as `flavor results --json` has it.

    At most `MOST_SITES` sites are described, and `left_out` counts the others. Raises `RunError` where there is none.
    """
    view = runs.read()
    found = described(from_redis(runs, round_), select=select_of(RunConfig.known(view.config)))
    sites, missing = list(found["sites"].items()), list(found["missing"].items())
    return {
        **found,
        "sites": dict(sites[:MOST_SITES]),
        "missing": dict(missing[:MOST_SITES]),
        "left_out": max(0, len(sites) - MOST_SITES) + max(0, len(missing) - MOST_SITES),
    }
