"""A closed round as people read it: its sites, its duration, and the metrics, merged and of each site."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flavor.errors import InvalidInfo, ObjectMissing
from flavor.records.counts import beside_last
from flavor.records.info import CONFUSION, MAX_BYTES, UNCOUNTED, Info, parse_info
from flavor.records.merging import WEIGHTED, by_sites, sites_of, why_not_own
from flavor.records.reporters import reporters_of
from flavor.records.round import RoundView
from flavor.results.best import BestRound, MergedValue, best_of
from flavor.results.computed_columns import OF_ROUNDS, OF_SITES, marked
from flavor.results.direction import direction_of
from flavor.store.protocol import ObjectStore

_MOST_MERGED_BYTES = 2**28


@dataclass(frozen=True)
class SiteResult:
    """What one site handed in for a round."""

    site: str
    examples: int
    bytes: int
    metrics: dict[str, float]
    task_round: int | None = None
    """The round whose task it has done; None in an export of an earlier release."""
    staleness: int | None = None
    """How many rounds before this one that was: its metrics are of another model than those of a fresh update."""

    @classmethod
    def of(cls, view: RoundView, client: str, metrics: dict[str, float]) -> SiteResult:
        """Describe what a contributor handed in for a closed round."""
        update, task = view.inspected(client), view.task_round(client)
        return cls(client, update.num_examples, update.size_bytes, metrics, task, view.round - task)


@dataclass(frozen=True)
class RoundResult:
    """One closed round."""

    round: int
    seconds: float
    clients: list[str]
    examples: int
    bytes: int
    metrics: dict[str, float]
    sites: list[SiteResult] = field(default_factory=list)
    few: dict[str, int] = field(default_factory=dict)
    """How many sites report a metric, for those that not all sites of the round report; of means by their name."""
    reporters: Mapping[str, str] = field(default_factory=dict)
    """Who reports a metric, as digests; see `flavor.records.reporters`. Empty where that is worked out of `sites`."""

    def written(self) -> dict[str, Any]:
        """Return what a JSON file has of it. Who reports a metric stands in its sites."""
        return {name: value for name, value in asdict(self).items() if name != "reporters"}

    @property
    def metrics_and_sites(self) -> dict[str, float]:
        """The merged metrics, and as `NAME (sites)` how many sites report one that not all sites report."""
        counts = {f"{name}{OF_SITES}": count for name, count in self.few.items()}
        return {**marked(self.metrics, OF_ROUNDS), **counts}

    @property
    def reported(self) -> dict[str, Collection[str]]:
        """The names of each site's metrics, by site."""
        return {each.site: each.metrics.keys() for each in self.sites}

    def merged(self, name: str) -> MergedValue | None:
        """Return a metric by its name in `for_people`, with how many sites report it; None where none does."""
        value = for_people(self.metrics).get(name)
        return None if value is None else self.of_sites(name, value)

    def of_sites(self, name: str, value: float) -> MergedValue:
        """Return a value of a metric with how many sites report it."""
        reporters = self.reporters or reporters_of(
            self.clients, self.few, {each.site: each.metrics for each in self.sites}
        )
        return MergedValue.of(name, value, few=self.few, contributors=len(self.clients), reporters=reporters)


def site_info(view: RoundView, store: ObjectStore, client: str) -> Info:
    """Return the client information of one contributor. Raises `StoreError` or `InvalidInfo` if it cannot be read."""
    info = view.inspected(client).info
    return parse_info(store.read(info, most=MAX_BYTES), where="info.json")


def round_result(view: RoundView, info: Mapping[str, Any], infos: Mapping[str, Info]) -> RoundResult:
    """Describe a closed round, with the scalar metrics of its merged client information, and those of each site."""
    assert view.closed_ms is not None
    sites = [
        SiteResult.of(view, client, scalars_of_site(infos[client]["metrics"]) if client in infos else {})
        for client in view.contributors
        if client in view.verdicts
    ]
    few, number = sites_of(info)
    return RoundResult(
        round=view.round,
        seconds=view.worked_s(view.closed_ms),
        clients=list(view.contributors),
        examples=sum(info["metadata"]["datasetSize"]),
        bytes=sum(site.bytes for site in sites),
        metrics=scalars(by_sites(info["metrics"], few, number)),
        sites=sites,
        few=few,
        reporters=reporters_of(view.contributors, few, {client: of["metrics"] for client, of in infos.items()}),
    )


def merged_info(view: RoundView, store: ObjectStore) -> dict[str, Any]:
    """The merged information of a closed round; raises `StoreError` when it is not in the store, or was changed there.

    What an earlier release has committed to Redis lacks the digest.
    """
    if view.info is None:
        raise ObjectMissing(f"round {view.round} has no merged information")
    ref = view.info
    if not ref.digest:
        data = store.read_unverified(ref.path, most=_MOST_MERGED_BYTES)
    elif store.private:  # perhaps it is in the cache
        data = store.open(ref).read_bytes()
    else:  # read once: other parties may change the file between two reads
        data = store.read(ref, most=_MOST_MERGED_BYTES)
    try:
        found = json.loads(data)
        if not all(isinstance(found[part], dict) for part in ("metadata", "metrics")):
            raise ValueError("its metadata or its metrics are no JSON object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInfo(f"{ref.path}: no merged client information: {str(error)[:200]}") from None
    return dict(found)


def merged_without(view: RoundView) -> dict[str, Any]:
    """Return what is left of a closed round's merged client information once it is pruned: examples, and no metrics."""
    examples = [view.inspected(client).num_examples for client in view.contributors if client in view.verdicts]
    return {"metadata": {"datasetSize": examples}, "metrics": {}}


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are finite numbers: others do not fit into a table."""
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def scalars_of_site(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of one site that are finite numbers, without those whose names flavor has a meaning for."""
    return {name: value for name, value in scalars(metrics).items() if not why_not_own(name)}


def for_charts(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leave out the cells of a site's confusion matrix that its script does not count: -1, which is no number of it."""
    return {name: value for name, value in metrics.items() if name not in CONFUSION or value != UNCOUNTED}


def measured_by_site(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return what a site has measured of a model, for tables and charts of evaluations."""
    return for_charts(scalars_of_site(metrics))


def for_people(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leave out the confusion matrix; of a metric with two means keep the one weighted by examples, by its own name.

    A metric without a weighted mean, which is pooled or added by a user's aggregator, is kept as it is. Counts and
    bounds of errors come last: they say nothing by themselves.
    """
    found: dict[str, float] = {}
    for name, value in metrics.items():
        base = name.removesuffix(WEIGHTED)
        if name in CONFUSION:
            continue
        if base != name:
            found[base] = value
        elif name + WEIGHTED not in metrics:
            found.setdefault(name, value)
    return {name: found[name] for name in beside_last(list(found))}


def for_people_of_site(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leave the confusion matrix out of the metrics of one site, and names that flavor has a meaning for.

    Counts come last.
    """
    own = [name for name in metrics if name not in CONFUSION and not why_not_own(name)]
    return {name: metrics[name] for name in beside_last(own)}


def best_round(rounds: Sequence[RoundResult]) -> tuple[str, BestRound] | None:
    """The first metric whose name says what is good, with its best round and value; None where no name does.

    Of those that most rounds have: a site that was alone in a round may have reported others.
    """
    shown = {result.round: (result, for_people(result.metrics)) for result in rounds}
    for name, _ in Counter(name for _, metrics in shown.values() for name in metrics).most_common():
        values = {number: of.of_sites(name, known[name]) for number, (of, known) in shown.items() if name in known}
        if (best := best_of(values, direction_of(name))) is not None:
            return name, best
    return None
