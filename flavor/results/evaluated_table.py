"""An evaluation as a table of sites and metrics, for people, and as plain values, for programs."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import filterfalse
from typing import Any

from flavor.counted import counted
from flavor.policy.advice import some
from flavor.policy.near_names import there_are
from flavor.policy.selection import Select
from flavor.printable import printable, shown_name
from flavor.records.counts import CENTRAL_PREFIX, POOLED, WORST, is_beside
from flavor.records.evaluation import CENTRAL
from flavor.records.lacking import SomeSites, with_value
from flavor.results.best import MergedValue
from flavor.results.evaluated import OWN_DATA, Evaluated, by_sites_of, mean_of
from flavor.results.metric_of_sites import MetricOfSites, base_of, headline_of, metrics_of
from flavor.results.site_measures import SiteMeasures, error_words
from flavor.results.table_columns import by_rank

MOST_COLUMNS = 6
"""Metrics in one table, unless they are named."""
_NONE, _UNKNOWN = "-", "?"
_ROWS: tuple[tuple[str, str], ...] = (
    ("pooled", "pooled"),
    ("plain mean", "plain_mean"),
    ("weighted mean", "weighted_mean"),
    ("lowest", "lowest"),
    ("highest", "highest"),
)
_LONGEST_REASON = 200
_MOST_LEFT_OUT = 20
_MOST_DIVERGED = 3


def lines_of(found: Evaluated, *, ruled: Collection[str] = (), names: Sequence[str] = ()) -> list[str]:
    """Return what stands above the table: who has judged which model, and who is missing, with the reason.

    `names` are the metrics that are shown of the operator's own data, as of the sites; without them the first
    `MOST_COLUMNS`, those of the run's rules, `ruled`, before the others.
    """
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.closed_ms / 1000))
    model = f"the global model of round {found.round}" if found.round else found.subject.words
    by = f"{found.by} that a command has asked" if found.is_asked else found.by
    lines = [f"{model}, judged {by}, {counted(found.examples, 'example')}, {at} (SHA-256 {found.model[:12]}…)"]
    lines += [f"without {site}: {printable(reason)[:_LONGEST_REASON]}" for site, reason in found.missing.items()]
    lines += [
        f"without the values of {site}, which are in what is merged: {printable(why)[:_LONGEST_REASON]}"
        for site, why in found.unread.items()
    ]
    left_out = [(site, name, why) for site, reasons in found.left_out.items() for name, why in reasons.items()]
    lines += [
        f"without {shown_name(name)} of {site}: {printable(why)[:_LONGEST_REASON]}"
        for site, name, why in left_out[:_MOST_LEFT_OUT]
    ]
    if found.central is not None and not found.is_central:
        of = found.central
        own = [name for name in (*of.metrics, *of.not_finite) if not is_beside(name)]
        own.sort(key=lambda name: _of_sites(name) not in ruled)
        if names:
            own = [name for name in own if {name, _of_sites(name)}.intersection(names)]
        named = [f"{shown_name(name)} {of.text(name)}" for name in own][: None if names else MOST_COLUMNS]
        those = ", ".join(named) or f"no {' and no '.join(map(shown_name, names)) or 'metrics'}"
        lines.append(f"{OWN_DATA}, {counted(of.examples, 'example')}: {those}")
    if found.skipped:
        lines.append(f"without an evaluator: {some(found.skipped, 10)}")
    return lines


def _of_sites(name: str) -> str:
    """Return how sites name what is `central/auc`, or `central/pooled/auc`, of the operator's own data."""
    return base_of(name.removeprefix(CENTRAL_PREFIX))


def name_in(found: Evaluated, name: str) -> str | None:
    """Return by which name the table has a metric; None where the evaluation has no such metric.

    A metric is found also by its name in `--select`, as `pooled/auc`, and one of the operator's own data also without
    `central/`, and by the name that the sites use.
    """
    there = names_in(found)
    central = [each for each in there if each.startswith(CENTRAL_PREFIX)]
    own = [each for each in central if name in (_of_sites(each), each.removeprefix(CENTRAL_PREFIX))]
    return next((each for each in (name, base_of(name.removeprefix(WORST)), *own) if each in there), None)


def why_not_there(found: Evaluated, name: str) -> str:
    """Return why the table has no metric of this name: it is `null`, or which metrics there are."""
    null = next((each for each in (name, f"{POOLED}{name.removeprefix(WORST)}") if each in found.null), None)
    if null is not None:
        return f"{shown_name(null)} is null in this evaluation: 0/0, as the AUC of one class or the R² of equal values"
    return f"this evaluation has no such metric: {there_are(name, names_in(found))}"


def names_in(found: Evaluated) -> list[str]:
    """Return the names of the metrics of an evaluation: of the sites, and those of the operator's own data."""
    own = (*found.central.metrics, *found.central.not_finite) if found.central is not None else ()
    return list(dict.fromkeys([*(each.name for each in metrics_of(found)), *filterfalse(is_beside, own)]))


def table_of(
    found: Evaluated, *, select: Select | None = None, ruled: Collection[str] = (), names: Sequence[str] = ()
) -> tuple[list[str], list[list[str]], str]:
    """Return the heads of a table, its rows, and a line about what it lacks; '' for nothing.

    A row for each site, and then one for each way to merge: over the examples of all sites (pooled), the two means, the
    lowest and the highest value, and the site that is worst. `names` are the metrics of the table, which is empty
    where the sites have none of them; without `names` it has the first `MOST_COLUMNS`: those of the run's rules,
    `ruled`, those that most sites report, and then others.
    """
    there = {each.name: each for each in metrics_of(found, select)}
    every = [there[name] for name in (there if names else by_rank(there, found, ruled))]
    columns = [each for each in every if each.name in names] if names else every[:MOST_COLUMNS]
    if names and not columns:
        return [], [], ""
    shown = [each.name for each in columns]
    heads = ["SITE", "EXAMPLES", *map(shown_name, shown)]
    rows = [
        [site, str(of.examples), *(of.text(name) or (_UNKNOWN if of.may_have(name) else _NONE) for name in shown)]
        for site, of in found.sites.items()
    ]
    left = len(every) - len(columns)
    where = "`flavor results --metric NAME` shows them"
    further = f"{counted(left, 'further metric')}: {where}" if left and not names else ""
    if found.is_central:
        of = found.central or SiteMeasures(0)
        cells = [of.text(each.name) or _number(each.value) for each in columns]
        rows = [["[central]", str(found.examples), *cells]]
        return heads, rows, further
    rows += [[site, _NONE, *[_NONE] * len(columns)] for site in found.missing]
    for head, name in _ROWS:
        cells = [_merged(each, name, len(found.sites)) for each in columns]
        if any(cell != _NONE for cell in cells):
            rows.append(
                [f"[{head}]", str(found.examples) if name == "pooled" and _is_of_all(columns, found) else "", *cells]
            )
    rows.append(["[worst site]", "", *(each.worst or (_UNKNOWN if each.unknown else _NONE) for each in columns)])
    return heads, rows, "; ".join(filter(None, (further, _without_worst(columns))))


def _without_worst(columns: Sequence[MetricOfSites]) -> str:
    """Say of which metrics no site is known to be the worst though they differ; '' for none."""
    nameless = [each for each in columns if each.better is None and each.worst is None and not each.unknown]
    unknown = [shown_name(each.name) for each in nameless if each.lowest != each.highest]
    if not unknown:
        return ""
    which = "its name" if len(unknown) == 1 else "their names"
    why = f"{which} {'does' if len(unknown) == 1 else 'do'} not say which values are better"
    return f"no worst site of {some(unknown, MOST_COLUMNS)}: {why}, and --select NAME:max or NAME:min would"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.6g}"


def _is_of_all(columns: Sequence[MetricOfSites], found: Evaluated) -> bool:
    """Return whether all sites have a part in each pooled value: then it is of the examples of all of them."""
    return all(each.pooled_sites in (None, len(found.sites)) for each in columns)


def _merged(metric: MetricOfSites, name: str, sites: int) -> str:
    text = _number(getattr(metric, name))
    if name in ("lowest", "highest"):
        return _UNKNOWN if text == _NONE and metric.unknown else text
    if text == _NONE:
        return text
    of = (metric.pooled_sites or 0) if name == "pooled" else metric.sites
    error = error_words(metric.pooled_bound) if name == "pooled" else ""
    return f"{text}{error} {MergedValue(0, of, sites).words}".rstrip()


def described(found: Evaluated, *, select: Select | None = None, ruled: Collection[str] = ()) -> dict[str, Any]:
    """Return an evaluation as plain values, which JSON can hold. `metric` is the one that it is shown by.

    `ruled` are the metrics of the run's rules, by the names that sites use.
    """
    metrics = metrics_of(found, select)
    return {
        "run": found.run,
        "round": found.round,
        "evaluation": found.number,
        "model": found.model,
        "subject": found.subject.to_plain(),
        "opened_ms": found.opened_ms,
        "closed_ms": found.closed_ms,
        "expected": list(found.expected),
        "sites": {site: of.to_plain() for site, of in found.sites.items()},
        "missing": dict(found.missing),
        "skipped": list(found.skipped),
        "left_out": {site: dict(why) for site, why in found.left_out.items()},
        "unread": dict(found.unread),
        "examples": found.examples,
        "metric": headline_of(metrics, select, ruled=ruled),
        "metrics": {
            each.name: {name: value for name, value in asdict(each).items() if name != "name"} for each in metrics
        },
        "merged": dict(found.metrics),
        "central": found.central.to_plain() if found.central is not None else None,
    }


def diverged_words(judged: Mapping[str, Any]) -> str:
    """Say of a described evaluation where a metric is infinite or NaN; '' for nowhere."""
    names, found = list(judged["metrics"]), dict[str, list[str]]()
    for site, measures in judged["sites"].items():
        for name, word in SiteMeasures.of_plain(measures).diverged.items():
            found.setdefault(name, []).append(with_value(site, word))
    known = sorted(found, key=lambda name: names.index(name) if name in names else len(names))
    said = [
        f"{shown_name(name)} is not a finite number at {SomeSites.of(found[name]).words}"
        for name in known[:_MOST_DIVERGED]
    ]
    more = len(known) - _MOST_DIVERGED
    return "; ".join([*said, *([f"and so {counted(more, 'further metric')}"] if more > 0 else [])])


def judged_words(judged: Mapping[str, Any]) -> str:
    """Return a described evaluation in a few words: `accuracy 0.91 (plain mean) by 3 sites, round 5`.

    Where fewer sites report the metric: `accuracy 0.91 (plain mean) by 3 sites, accuracy of 2, round 5`.
    """
    metric = MetricOfSites.in_document(judged["metric"] or "", judged["metrics"].get(judged["metric"], {}))
    by = by_sites_of(len(judged["sites"]), len(judged["expected"]))
    what = "no finite metric"
    if metric.value is not None:
        name = shown_name(metric.value_name)
        what = f"{name} {metric.value:.4g}{mean_of(metric.value_name, metric.sites)}"
        by += f", {name} of {metric.sites}" if metric.sites < len(judged["sites"]) else ""
    return f"{what} {OWN_DATA if judged['evaluation'] == CENTRAL else by}, round {judged['round']}"
