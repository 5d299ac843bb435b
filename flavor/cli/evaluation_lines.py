"""What `flavor status` says of the evaluations of a run: the newest result, what is open, and the best model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from flavor.counted import counted
from flavor.printable import printable, shown_name
from flavor.records.evaluation import EvaluationKind
from flavor.records.not_finite import shown
from flavor.records.subject import Subject
from flavor.results.best import MergedValue
from flavor.results.evaluated import OWN_DATA, by_of, by_sites_of, mean_of
from flavor.results.metric_of_sites import MetricOfSites

MOST_METRICS = 4
_MOST_NAMED = 5
_LONGEST_REASON = 120

Described = Mapping[str, Any]


def lines_of_evaluations(found: Described) -> list[str]:
    """Return the lines about evaluations; none for a run of which no model was judged. `found` is as in `described`."""
    lines = [_open(each) for each in found.get("evaluating") or ()]
    lines += [_newest(each) for each in (found.get("automatic"), found.get("evaluation")) if each]
    lines += [f"judging: the model of round {round_} {OWN_DATA}" for round_ in found.get("evaluating_central") or ()]
    if central := found.get("central"):
        shown = [f"{shown_name(name)} {value:.4g}" for name, value in central["metrics"].items()]
        more = f", and {len(shown) - MOST_METRICS} more" if len(shown) > MOST_METRICS else ""
        what = f"judged: the model of round {central['round']} {OWN_DATA}, {counted(central['examples'], 'example')}"
        lines.append(f"{what}: {', '.join(shown[:MOST_METRICS]) or 'no metrics'}{more}")
    if selected := found.get("selected"):
        lines.append(_selected(selected, found.get("folder") or found["run"]))
    return lines


def _metric(metric: MetricOfSites, sites: int) -> str:
    if metric.value is None:
        return ""
    of = MergedValue(metric.value, metric.sites, sites).words
    return " ".join((shown_name(metric.value_name), f"{metric.value:.4g}", of)).rstrip()


def _newest(newest: Described) -> str:
    metrics = {name: MetricOfSites.in_document(name, of) for name, of in newest["metrics"].items()}
    headline = metrics.pop(newest["metric"], None)
    every = [*([headline] if headline else []), *metrics.values()]
    parts = [text for metric in every if (text := _metric(metric, newest["sites"]))]
    if headline is not None and headline.worst is not None:
        value = headline.lowest if headline.better == "larger" else headline.highest
        word = headline.worst_not_finite
        parts[0] += f" (worst: {headline.worst}, {shown(word) if word is not None else f'{value:.4g}'})"
    elif headline is not None and headline.unknown and parts:
        parts[0] += f" (worst: not known without the values of {counted(headline.unknown, 'site')})"
    more = f", and {len(parts) - MOST_METRICS} more" if len(parts) > MOST_METRICS else ""
    what = Subject(**newest["subject"]).words
    by = by_sites_of(newest["sites"], newest["expected"])
    by += " that a command has asked" if EvaluationKind.of(newest["evaluation"]) is EvaluationKind.ASKED else ""
    means = ", plain means" if any(each.sites > 1 and each.plain_mean is not None for each in every) else ""
    line = f"judged: {what} {by}{means}: {', '.join(parts[:MOST_METRICS]) or 'no finite metric'}{more}"
    missing = list(newest["missing"].items())
    if missing:
        said = [f"{site}: {printable(reason)[:_LONGEST_REASON]}" for site, reason in missing[:_MOST_NAMED]]
        line += f"; without {'; '.join(said)}"
        line += f"; and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    if newest["skipped"]:
        line += f"; without an evaluator: {_some(newest['skipped'])}"
    return line


def _open(each: Described) -> str:
    is_asked = EvaluationKind.of(each["evaluation"]) is EvaluationKind.ASKED
    judging = f"judging{' (asked for)' if is_asked else ''}: {Subject(**each['subject']).words}"
    if each["merging"]:
        return f"{judging}: an aggregator merges the results of {_some(each['in'])}"
    have = f"{_some(each['in'])} {'has' if len(each['in']) == 1 else 'have'} handed in" if each["in"] else ""
    awaited = (
        f"{_some(each['awaited'])} {'is' if len(each['awaited']) == 1 else 'are'} awaited" if each["awaited"] else ""
    )
    first = "; a site judges it before it trains again" if is_asked and awaited else ""
    return f"{judging}: {', '.join(filter(None, (have, awaited)))}{first}"


def _selected(selected: Described, run: str) -> str:
    select = f"{selected['metric']}:{'max' if selected['better'] == 'larger' else 'min'}"
    name, sites = selected["metric"], selected["sites"]
    return (
        f"best judged model: that of round {selected['round']}, "
        f"{shown_name(name)} {selected['value']:.4g}{mean_of(name, sites)} {by_of(name, sites)} "
        f"(--select {printable(select)}): `flavor get {shlex.quote(run)} --round best`"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
