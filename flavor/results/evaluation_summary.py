"""Make what Redis keeps of an evaluation with a result: in the worker that merges it, and when a run is rebuilt."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from flavor.config import RunConfig
from flavor.evaluation_settings import goals_of, rules_of, select_of
from flavor.policy.compared import Found
from flavor.policy.selection import Select, names_in, same_number
from flavor.records.comparison import Comparison
from flavor.records.counts import CENTRAL_PREFIX, POOLED, bound_of
from flavor.records.evaluation import BestModel, EvaluationSummary
from flavor.records.lacking import Lacking, SomeSites, lacking_of, with_value
from flavor.records.merging import WEIGHTED, by_sites, sites_of
from flavor.records.not_finite import not_finite_of
from flavor.records.reporters import reporters_of
from flavor.records.summary import kept_metrics, names_of, spread_of

_NOTHING: Mapping[str, Collection[str]] = {}


def ruled_names(config: RunConfig, *, central: bool) -> list[str]:
    """Return the metrics on which the run's rules depend, by their names without `(weighted)`.

    Those on the operator's own data if `central`, or else the merged ones of sites.
    """
    rules = rules_of(config, central=central)
    return names_in([rules.select, *rules.when])


def first_ruled(config: RunConfig) -> list[str]:
    """Return the metrics of all rules of the run, as `ruled_names`: they are kept before all others."""
    return names_in([select_of(config), *goals_of(config)])


def kept_first(metrics: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return merged metrics with those of the run's rules first, and the bound of its error behind each of them all.

    The first ones are kept of many, and shown. On the operator's own data a rule's metric of sites comes first, too.
    """
    ruled = first_ruled(config)
    own = [f"{CENTRAL_PREFIX}{each}" for name in ruled for each in (name, name.removeprefix(POOLED))]
    first = [each for name in (*ruled, *own) for each in (name, name + WEIGHTED)]
    return {each: metrics[each] for name in (*first, *metrics) for each in (name, bound_of(name)) if each in metrics}


def central_lacking(config: RunConfig, merged: Mapping[str, Any]) -> dict[str, Lacking]:
    """Return which metrics of the run's rules, `central/…`, are no finite numbers on the operator's own data."""
    return lacking_of(ruled_names(config, central=True), {"central": merged["metrics"]}, {})


def central_comparison(select: Select, before: BestModel, found: Found, merged: Mapping[str, Any]) -> Comparison:
    """Compare the values on the operator's own data, where a model that is infinite or NaN has diverged."""
    if found is None and (word := not_finite_of(merged).get(select.merged)) is not None:
        return Comparison(diverged=SomeSites.of([with_value("the operator's own data", word)]))
    return same_number(before, found)


def evaluation_summary(
    round_: int,
    number: int,
    *,
    opened_ms: int,
    expected: int,
    missing: Collection[str] = (),
    examples: int,
    merged: Mapping[str, Any],
    sites: Mapping[str, Mapping[str, Any]],
    config: RunConfig,
    before: Mapping[str, Collection[str]] = _NOTHING,
    away: Collection[str] = (),
    odd: Mapping[str, Mapping[str, str]] | None = None,
) -> EvaluationSummary:
    """Return the summary of one evaluation. `sites` are the metrics of each site whose result counts, by its name.

    `missing` are the expected sites without one. `before` says which metrics of the run's rules each site has reported
    in earlier evaluations. `away` are those of these sites that were not asked, and not revoked. `odd` is as in
    `lacking_of`.

    The metrics of the run's rules (`--select`, `--stop-when`) come first, so that they are kept beside all that sites
    report.
    """
    few, number_of_sites = sites_of(merged)
    ordered = by_sites(merged["metrics"], few, number_of_sites)
    metrics = kept_metrics(kept_first(ordered, config))
    kept = names_of(metrics)
    kept_few = {name: several for name, several in few.items() if name in kept or name in metrics}
    return EvaluationSummary(
        round=round_,
        number=number,
        opened_ms=opened_ms,
        sites=len(sites),
        expected=expected,
        missing=SomeSites.of(missing),
        examples=examples,
        metrics=metrics,
        spread=spread_of((name for name in metrics if not name.endswith(WEIGHTED)), sites.values()),
        few=kept_few,
        reporters=reporters_of(sites, kept_few, sites),
        lacking=lacking_of(ruled_names(config, central=False), sites, before, away, odd),
    )
