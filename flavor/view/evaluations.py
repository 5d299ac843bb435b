"""The newest evaluation of a run with its result, and those that are open: who has handed in, and who is awaited."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.evaluation_settings import select_of
from flavor.policy.selection import Select
from flavor.records.counts import POOLED, is_beside
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationKind, EvaluationSummary, EvaluationView
from flavor.records.failed_evaluation import FailedEvaluation
from flavor.records.own_evaluations import own_evaluations
from flavor.records.run import RunView
from flavor.records.states import EvaluationState
from flavor.results.evaluated import Evaluated, evaluated_of, numbers_of
from flavor.results.metric_of_sites import MetricOfSites, headline_of, metrics_of
from flavor.view.evaluation_events import EvaluationClosed, EvaluationFailed, EvaluationOpened

MOST_OPEN = 5
"""Open evaluations that are shown: the oldest ones."""
MOST_NAMED = 50
"""Sites of each kind that a description names."""
MOST_METRICS = 20
"""Metrics that a description has."""
_LONGEST_REASON = 300
_LAST, _LAST_AT_FIRST = 8, 100
"""Entries of the run's list that are looked through for the newest ones, and when nothing is known of the run.

If none of these is of a model of the run, or none is the run's own, all are looked through."""


Name = tuple[int, int]
"""Round and number of an evaluation."""


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
class KnownEvaluations:
    """The evaluations of a run at one moment."""

    newest: Evaluated | None = None
    """The newest one with a result; None also where Redis has its numbers alone."""
    summary: EvaluationSummary | None = None
    """The numbers of the newest one with a result."""
    automatic: EvaluationSummary | None = None
    """Those of the newest one that the coordinator has opened, where it is among the last few."""
    own: Evaluated | None = None
    """That one, as `newest`; None where it is the newest."""
    open: tuple[OpenEvaluation, ...] = ()
    central: EvaluationSummary | None = None
    """The newest one on the operator's own data, where it is among the last few."""
    central_open: tuple[EvaluationView, ...] = ()
    """Those on the operator's own data that are not over."""
    incomplete_in_a_row: int = 0
    """How many of the coordinator's evaluations by the sites, up to the newest, lack a site's result."""
    failing: tuple[FailedEvaluation, ...] = ()
    """The newest ones by the sites and on the operator's own data, where these have failed."""
    commands: int = 0
    """About how many commands it took to read them."""


NONE = KnownEvaluations()


def read_evaluations(runs: RunStore, before: KnownEvaluations = NONE) -> KnownEvaluations:
    """Read the evaluations of a run. What is known of the newest one `before` is not read again.

    What was asked for by a process that is gone is as good as given up. Raises `BusUnavailable` and `DamagedRecord`.
    """
    names, texts = runs.evaluating(), runs.evaluated(-(_LAST_AT_FIRST if before is NONE else _LAST))
    failing = tuple(runs.failing())
    commands, found, own_open = 3, list[OpenEvaluation](), list[EvaluationView]()
    if any(EvaluationKind.of(number) is EvaluationKind.ASKED for _, number in names) and not runs.is_asking():
        names = [name for name in names if EvaluationKind.of(name[1]) is not EvaluationKind.ASKED]
        commands += 1
    by_sites, on_own = ([name for name in names if (name[1] == CENTRAL) is central] for central in (False, True))
    for round_, number in (*by_sites[:MOST_OPEN], *on_own[:MOST_OPEN]):
        view = runs.read_evaluation(round_, number)
        commands += 1
        if view is None or view.is_over:
            continue
        if view.is_central:
            own_open.append(view)
            continue
        handed_in = frozenset(runs.results(round_, number, view.expected))
        commands += 1 + len(view.expected)
        found.append(OpenEvaluation(view, handed_in))
    known = _with_results(runs, before, texts)
    return replace(
        known,
        open=tuple(found),
        central_open=tuple(own_open),
        failing=failing,
        commands=commands + known.commands,
    )


def read_news(runs: RunStore, before: KnownEvaluations, told: Mapping[Name, str]) -> KnownEvaluations:
    """Return the evaluations after what the log has told: the newest event of each evaluation in it.

    Costs a command for each that was opened, and a few for results and failures. Raises as `read_evaluations`.
    """
    known, events = replace(before, commands=0), set(told.values())
    if EvaluationClosed.name in events:
        known = _with_results(runs, before, runs.evaluated(-_LAST))
        known = replace(known, commands=known.commands + 1)
    if EvaluationFailed.name in events or (EvaluationClosed.name in events and before.failing):
        known = replace(known, failing=tuple(runs.failing()), commands=known.commands + 1)
    commands = known.commands
    open_ = {(each.view.round, each.view.number): each for each in before.open}
    own = {(view.round, view.number): view for view in before.central_open}
    for name in told:
        open_.pop(name, None)
        own.pop(name, None)
    opened = sorted(name for name, event in told.items() if event == EvaluationOpened.name)
    for name in opened[:MOST_OPEN]:
        view = runs.read_evaluation(*name)
        commands += 1
        if view is None or view.is_over:
            continue
        if view.is_central:
            own[name] = view
        else:
            open_[name] = OpenEvaluation(view, frozenset())
    return replace(
        known,
        open=tuple(open_[name] for name in sorted(open_)[:MOST_OPEN]),
        central_open=tuple(own[name] for name in sorted(own)[:MOST_OPEN]),
        commands=commands,
    )


def handed_in_at(known: KnownEvaluations, heard: Mapping[Name, Collection[str]]) -> KnownEvaluations:
    """Return the evaluations where these sites have handed in, too, by what they have published."""
    return replace(known, open=tuple(_with_heard(each, heard) for each in known.open)) if heard else known


def _with_heard(each: OpenEvaluation, heard: Mapping[Name, Collection[str]]) -> OpenEvaluation:
    more = frozenset(each.view.expected).intersection(heard.get((each.view.round, each.view.number), ()))
    return replace(each, handed_in=each.handed_in | more) if more else each


def _with_results(runs: RunStore, before: KnownEvaluations, texts: Sequence[str]) -> KnownEvaluations:
    """Return what is known by the last entries of the run's list, without what is open."""
    commands = 0
    last = [EvaluationSummary.from_json(text) for text in texts]
    known = before if texts else NONE
    lacks = _newest(last) is None or not own_evaluations(last)
    if known.summary is None and lacks and len(texts) == _LAST_AT_FIRST:
        last = [EvaluationSummary.from_json(text) for text in runs.evaluated()]
        commands += 1
    central = next(reversed(own_evaluations(last, EvaluationKind.CENTRAL)), known.central)
    by_itself = own_evaluations(last)
    automatic = by_itself[-1] if by_itself else known.automatic
    summary = _newest(last) or known.summary
    there = [(before.summary, before.newest), (before.automatic, before.own)]

    def whole(wanted: EvaluationSummary | None) -> Evaluated | None:
        nonlocal commands
        if wanted is None:
            return None
        if (found := next((each for of, each in there if of == wanted and each is not None), None)) is not None:
            return found
        view = runs.read_evaluation(wanted.round, wanted.number)
        commands += 2
        return None if view is None or view.closed_ms is None else evaluated_of(runs.run, view, wanted)

    return replace(
        before,
        newest=whole(summary),
        own=whole(automatic) if automatic != summary else None,
        summary=summary,
        automatic=automatic,
        incomplete_in_a_row=_incomplete_in_a_row(known, by_itself),
        central=central,
        commands=commands,
    )


def _incomplete_in_a_row(known: KnownEvaluations, last: Sequence[EvaluationSummary]) -> int:
    """Return how many evaluations lack a site, up to the newest of these, of which some were known before."""
    new = last[last.index(known.automatic) + 1 :] if known.automatic in last else last
    number = known.incomplete_in_a_row
    for each in new:
        number = number + 1 if each.sites < each.expected else 0
    return number


def _newest(summaries: Sequence[EvaluationSummary]) -> EvaluationSummary | None:
    """Return the newest by sites; not one of a model that is a single site's update, or lacks one."""
    return next((each for each in reversed(summaries) if each.number != CENTRAL and each.subject.counts), None)


# -- as plain values


def described_evaluations(
    known: KnownEvaluations, run: RunView, config: RunConfig, named: str | None
) -> dict[str, Any]:
    """Return what is told of a run's evaluations: `evaluation`, `evaluating`, `central`, … and `selected`.

    `named` is the metric that a reader asks for.
    """
    select = select_of(config)
    return {
        "evaluation": _described_newest(known, select, named),
        "automatic": _described_automatic(known, select, named),
        "evaluating": [_described_open(each) for each in known.open],
        "incomplete_in_a_row": known.incomplete_in_a_row,
        "central": _described_central(known.central),
        "evaluating_central": [each.round for each in known.central_open],
        "evaluating_central_times": [_times(each) for each in known.central_open],
        "selected": _selected(run, select),
        "not_judged": [each.described() for each in known.failing],
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


def _described_newest(known: KnownEvaluations, select: Select | None, named: str | None) -> dict[str, Any] | None:
    return None if known.summary is None else _described_judged(known.newest, known.summary, select, named)


def _described_automatic(known: KnownEvaluations, select: Select | None, named: str | None) -> dict[str, Any] | None:
    """Return the newest evaluation that the run has made by itself; None for none, and where `evaluation` is that."""
    if known.automatic is None or known.automatic == known.summary:
        return None
    return _described_judged(known.own, known.automatic, select, named)


def _described_judged(
    found: Evaluated | None, summary: EvaluationSummary, select: Select | None, named: str | None
) -> dict[str, Any]:
    metrics = metrics_of(found if found is not None else numbers_of(summary), select)
    missing = dict(list(found.missing.items())[:MOST_NAMED]) if found is not None else {}
    return {
        "round": summary.round,
        "evaluation": summary.number,
        "subject": summary.subject.to_plain(),
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
        **_times(view),
        "evaluation": view.number,
        "subject": view.subject.to_plain(),
        "merging": view.state is EvaluationState.MERGING,
        "expected": len(view.expected),
        "in": _some(name for name in view.expected if name in each.handed_in),
        "awaited": _some(each.awaited) if view.state is EvaluationState.OPEN else [],
    }


def _times(view: EvaluationView) -> dict[str, int]:
    return {"round": view.round, "opened_ms": view.opened_ms, "deadline_ms": view.deadline_ms}


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


def judging(known: KnownEvaluations) -> Collection[str]:
    """Return the sites whose results are awaited at present."""
    return {name for each in known.open if each.view.state is EvaluationState.OPEN for name in each.awaited}


def automatic_of(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the newest evaluation by sites that a described run has made by itself; None for none."""
    found = document.get("evaluation")
    return found if found and found["evaluation"] == AUTOMATIC else document.get("automatic")


def merged_of(described: Mapping[str, Any]) -> dict[str, float]:
    """Return the merged metrics of a described evaluation by the names of `--select`: plain means, `pooled/NAME`."""
    found: dict[str, float] = {}
    for name, of in described["metrics"].items():
        metric = MetricOfSites.in_document(name, of)
        merged = {name: metric.plain_mean, f"{POOLED}{name}": metric.pooled}
        found |= {each: value for each, value in merged.items() if value is not None}
    return found
