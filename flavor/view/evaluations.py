"""The newest evaluation of a run with its result, and those that are open: who has handed in, and who is awaited."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.evaluation_settings import select_of
from flavor.policy.selection import Select
from flavor.records.counts import POOLED, is_beside
from flavor.records.evaluation import CENTRAL, EvaluationSummary, EvaluationView
from flavor.records.run import RunView
from flavor.records.states import EvaluationState
from flavor.results.evaluated import Evaluated, MetricOfSites, evaluated_of, headline_of, metrics_of, numbers_of

MOST_OPEN = 5
"""Open evaluations that are shown: the oldest ones."""
MOST_NAMED = 50
"""Sites of each kind that a description names."""
MOST_METRICS = 20
"""Metrics that a description has."""
_LONGEST_REASON = 300
_LAST = 8
"""Entries of the run's list that are looked through for the newest ones."""


@dataclass(frozen=True)
class OpenEvaluation:
    """An evaluation that is not over."""

    view: EvaluationView
    handed_in: frozenset[str]
    """The sites of which something is there."""

    @property
    def awaited(self) -> list[str]:
        """The sites that have handed in nothing, in the order in which they were expected."""
        return [name for name in self.view.expected if name not in self.handed_in]


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a run at one moment."""

    newest: Evaluated | None = None
    """The newest one with a result; None also where Redis has its numbers alone."""
    summary: EvaluationSummary | None = None
    """The numbers of the newest one with a result."""
    open: tuple[OpenEvaluation, ...] = ()
    central: EvaluationSummary | None = None
    """The newest one on the operator's own data, where it is among the last few."""
    central_open: tuple[int, ...] = ()
    """The rounds whose models are judged on the operator's own data at present."""
    commands: int = 0
    """About how many commands it took to read them."""


NONE = Evaluations()


def read_evaluations(runs: RunStore, before: Evaluations = NONE) -> Evaluations:
    """Read the evaluations of a run. What is known of the newest one `before` is not read again.

    Raises `BusUnavailable` and `DamagedRecord`.
    """
    names, texts = runs.evaluating(), runs.evaluated(-_LAST)
    commands, newest, found = 2, before.newest, list[OpenEvaluation]()
    own_open = tuple(round_ for round_, number in names if number == CENTRAL)[:MOST_OPEN]
    for round_, number in [name for name in names if name[1] != CENTRAL][:MOST_OPEN]:
        view = runs.read_evaluation(round_, number)
        commands += 1
        if view is None or view.is_over:
            continue
        handed_in = frozenset(runs.results(round_, number, view.expected))
        commands += 1 + len(view.expected)
        found.append(OpenEvaluation(view, handed_in))
    last = [EvaluationSummary.from_json(text) for text in texts]
    own = next((each for each in reversed(last) if each.number == CENTRAL), before.central if texts else None)
    summary = next((each for each in reversed(last) if each.number != CENTRAL), before.summary if texts else None)
    if summary is None:
        return Evaluations(None, None, tuple(found), own, own_open, commands)
    if summary != before.summary or newest is None:
        view = runs.read_evaluation(summary.round, summary.number)
        commands += 2
        newest = None if view is None or view.closed_ms is None else evaluated_of(runs.run, view, summary)
    return Evaluations(newest, summary, tuple(found), own, own_open, commands)


# -- as plain values


def described_evaluations(known: Evaluations, run: RunView, config: RunConfig, named: str | None) -> dict[str, Any]:
    """Return what is told of a run's evaluations: `evaluation`, `evaluating`, `central`, … and `selected`.

    `named` is the metric that a reader asks for.
    """
    select = select_of(config)
    return {
        "evaluation": _described_newest(known, select, named),
        "evaluating": [_described_open(each) for each in known.open],
        "central": _described_central(known.central),
        "evaluating_central": list(known.central_open),
        "selected": _selected(run, select),
    }


def _described_central(summary: EvaluationSummary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    metrics = [name for name in summary.metrics if not is_beside(name)]
    return {
        "round": summary.round,
        "opened_ms": summary.opened_ms,
        "closed_ms": summary.closed_ms,
        "examples": summary.examples,
        "metrics": {name: summary.metrics[name] for name in metrics[:MOST_METRICS]},
    }


def _described_newest(known: Evaluations, select: Select | None, named: str | None) -> dict[str, Any] | None:
    found, summary = known.newest, known.summary
    if summary is None:
        return None
    metrics = metrics_of(found if found is not None else numbers_of(summary), select)
    missing = dict(list(found.missing.items())[:MOST_NAMED]) if found is not None else {}
    return {
        "round": summary.round,
        "evaluation": summary.number,
        "opened_ms": summary.opened_ms,
        "closed_ms": summary.closed_ms,
        "sites": summary.sites,
        "expected": summary.expected,
        "examples": summary.examples,
        "metric": headline_of(metrics, select, named),
        "metrics": {each.name: _described_metric(each) for each in metrics[:MOST_METRICS]},
        "missing": {site: reason[:_LONGEST_REASON] for site, reason in missing.items()},
        "skipped": list(found.skipped[:MOST_NAMED]) if found is not None else [],
    }


def _described_metric(metric: MetricOfSites) -> dict[str, Any]:
    return {name: value for name, value in metric.__dict__.items() if name != "name" and value is not None}


def _described_open(each: OpenEvaluation) -> dict[str, Any]:
    view = each.view
    return {
        "round": view.round,
        "evaluation": view.number,
        "opened_ms": view.opened_ms,
        "deadline_ms": view.deadline_ms,
        "merging": view.state is EvaluationState.MERGING,
        "expected": len(view.expected),
        "in": _some(name for name in view.expected if name in each.handed_in),
        "awaited": _some(each.awaited) if view.state is EvaluationState.OPEN else [],
    }


def _some(names: Iterable[str]) -> list[str]:
    return list(names)[:MOST_NAMED]


def _selected(run: RunView, select: Select | None) -> dict[str, Any] | None:
    """Return the best model by the run's `--select`; None where no model is, or the run selects none."""
    if select is None or run.best is None:
        return None
    best = run.best
    return {
        "metric": select.name,
        "better": "larger" if select.is_larger else "smaller",
        "round": best.round,
        "value": best.value,
        "sites": best.sites,
    }


def judging(known: Evaluations) -> Collection[str]:
    """Return the sites whose results are awaited at present."""
    return {name for each in known.open if each.view.state is EvaluationState.OPEN for name in each.awaited}


def merged_of(described: Mapping[str, Any]) -> dict[str, float]:
    """Return the merged metrics of a described evaluation by the names of `--select`: plain means, `pooled/NAME`."""
    found: dict[str, float] = {}
    for name, metric in described["metrics"].items():
        if (plain := metric.get("plain_mean")) is not None:
            found[name] = plain
        if (pooled := metric.get("pooled")) is not None:
            found[f"{POOLED}{name}"] = pooled
    return found
