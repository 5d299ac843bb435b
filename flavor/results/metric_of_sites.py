"""The metrics of an evaluation over its sites: how they merge, how far apart they are, and which site is worst."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from flavor.policy.selection import Select, value_of
from flavor.printable import shown_name
from flavor.records.counts import BOUND, POOLED, is_beside
from flavor.records.evaluation import EvaluationSummary
from flavor.records.info import CONFUSION
from flavor.records.merging import WEIGHTED, by_sites, sites_with
from flavor.results.best import MergedValue
from flavor.results.direction import direction_of
from flavor.results.evaluated import Evaluated, mean_of, numbers_of


@dataclass(frozen=True)
class MetricOfSites:
    """One metric of an evaluation over the sites. What is not known, or makes no sense, is None."""

    name: str
    sites: int
    """Number of sites that report it; where it is not merged, of those of which that is known."""
    pooled: float | None = None
    """Its value of the examples of all sites together."""
    pooled_bound: float | None = None
    """The largest error of `pooled`."""
    pooled_sites: int | None = None
    """Number of sites whose counts give `pooled`."""
    plain_mean: float | None = None
    weighted_mean: float | None = None
    """The mean weighted by the sites' numbers of examples."""
    lowest: float | None = None
    highest: float | None = None
    better: str | None = None
    """"larger" or "smaller"; None where the metric's name does not say which values are better."""
    worst: str | None = None
    """The site whose value is worst, the first by name of equal ones; None where all have the same.

    A site where the metric is infinite or NaN is worse than all others."""
    worst_not_finite: str | None = None
    """The value of `worst` where it is none of the finite ones: "Infinity", "-Infinity" or "NaN"."""
    unknown: int | None = None
    """Number of sites whose value is not known, so that one of them may be the worst; None for none."""

    @classmethod
    def in_document(cls, name: str, found: Mapping[str, Any]) -> MetricOfSites:
        """Take it out of a described evaluation, which may leave out what is None."""
        return cls(
            **{"sites": 0, **{each.name: found[each.name] for each in fields(cls) if each.name in found}, "name": name}
        )

    @property
    def value(self) -> float | None:
        """The number that stands for the metric where there is room for one: the plain mean, or else the pooled one."""
        return self.plain_mean if self.plain_mean is not None else self.pooled

    @property
    def value_name(self) -> str:
        """The name of `value` in the merged information: `auc`, or `pooled/auc`."""
        return self.name if self.plain_mean is not None else f"{POOLED}{self.name}"


def metrics_of(found: Evaluated, select: Select | None = None) -> list[MetricOfSites]:
    """Return the metrics of an evaluation, those first that a run is shown by; counts of single sites are left out.

    `select`, the rule of a run, says which values of its metric are better.
    """
    bases: dict[str, None] = {}
    measured = [*found.sites.values(), *([found.central] if found.central is not None and found.is_central else [])]
    own = (name for each in measured for name in (*each.metrics, *each.not_finite))
    for name in (*found.metrics, *own):
        base = base_of(name)
        if not is_beside(name) and not is_beside(base) and base not in CONFUSION:
            bases.setdefault(base)
    return [_metric(base, found, select) for base in bases]


def base_of(name: str) -> str:
    """Return the name that sites use of a merged metric: `auc` of `auc (weighted)` and of `pooled/auc`."""
    return name.removeprefix(POOLED).removesuffix(WEIGHTED)


def better_of(name: str, select: Select | None) -> int:
    """Return 1 where larger values of a merged metric are better, -1 for smaller, 0 where that is not known.

    The rule of `--select` knows for its metric, however that is merged, and the name for all others.
    """
    if select is not None and base_of(select.base) == base_of(name):
        return 1 if select.is_larger else -1
    return direction_of(name)


def _metric(base: str, found: Evaluated, select: Select | None) -> MetricOfSites:
    values = {site: of.metrics[base] for site, of in found.sites.items() if _is_tracked(base, of.metrics)}
    pooled = POOLED + base
    named = base if values or base in found.metrics or pooled not in found.metrics else pooled
    better = better_of(named, select)
    all_sites = len(found.sites) or found.merged_of
    merged_of = sites_with(named, found.few, all_sites) if named in found.metrics else None
    unread = found.unread.keys() - values
    unknown = [site for site, each in found.sites.items() if site in unread or each.may_have(base)]
    is_whole = bool(values) and (not unknown or len(values) == merged_of)
    low, high = (min(values.values()), max(values.values())) if is_whole else found.spread.get(base, (None, None))
    wanted = {1: low, -1: high}.get(better) if low != high else None
    diverged = [(site, of.diverged[base]) for site, of in sorted(found.sites.items()) if base in of.diverged]
    worst = next((site for site, value in sorted(values.items()) if value == wanted), None)
    may_diverge = any(site in found.unread or found.sites[site].are_words_cut for site in unknown)
    bad, word = diverged[0] if diverged else (None if may_diverge else worst, None)
    may_be_worse = bad is None and (may_diverge or low is None or (better != 0 and low != high))
    return MetricOfSites(
        name=base,
        sites=merged_of if merged_of is not None else len(values),
        pooled=found.metrics.get(pooled),
        pooled_bound=found.metrics.get(pooled + BOUND),
        pooled_sites=sites_with(pooled, found.few, all_sites) if pooled in found.metrics else None,
        plain_mean=found.metrics.get(base),
        weighted_mean=found.metrics.get(base + WEIGHTED),
        lowest=low,
        highest=high,
        better={1: "larger", -1: "smaller"}.get(better),
        worst=bad,
        worst_not_finite=word,
        unknown=len(unknown) if unknown and may_be_worse else None,
    )


def _is_tracked(base: str, metrics: Mapping[str, float]) -> bool:
    value = metrics.get(base)
    return value is not None and math.isfinite(value)


def headline_of(
    metrics: Iterable[MetricOfSites],
    select: Select | None = None,
    named: str | None = None,
    *,
    ruled: Collection[str] = (),
) -> str | None:
    """Return the metric by which an evaluation is shown: that of `--select`, the `named` one, or else the first.

    Metrics of the run's other rules (`ruled`) come before others.
    """
    names = [each.name for each in metrics if each.value is not None]
    for wanted in (base_of(select.base) if select is not None else None, named, *(n for n in names if n in ruled)):
        if wanted in names:
            return wanted
    return next(iter(names), None)


def headline_as_told(found: Evaluated, select: Select | None, *, ruled: Collection[str] = ()) -> str | None:
    """Return the metric by which lines with `judged` show an evaluation of which all metrics are known.

    These lines come from a summary, of which the metrics of the run's rules and then those of most sites are the first.
    """
    ordered = replace(found, metrics=by_sites(found.metrics, found.few, len(found.sites)))
    return headline_of(metrics_of(ordered, select), select, ruled=ruled)


def shown_by(summary: EvaluationSummary, select: Select | None) -> str:
    """Return the number by which an evaluation is shown: `accuracy 0.91 (plain mean)`; '' where there is none.

    Where not all sites report it: `accuracy 0.91 (plain mean) of 2 of 3 sites`. Where the rule of `--select` goes by
    another number, that one stands behind it: `accuracy 0.91 (plain mean), pooled/accuracy 0.93`.
    """
    metrics = {each.name: each for each in metrics_of(numbers_of(summary), select)}
    metric = metrics.get(headline_of(metrics.values(), select) or "")
    shown = dict[str, MergedValue]()
    if metric is not None and metric.value is not None:
        shown[metric.value_name] = MergedValue(metric.value, metric.sites, summary.sites)
    if select is not None and (found := value_of(select.name, summary, is_larger=select.is_larger)) is not None:
        shown.setdefault(select.name, MergedValue(*found, summary.sites))
    return ", ".join(
        f"{shown_name(name)} {each.value:.4g}{mean_of(name, each.sites)} {each.words}".rstrip()
        for name, each in shown.items()
    )
