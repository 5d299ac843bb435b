"""Merged information: what the sites of a round report, as one, and the order in which its metrics are kept.

`flavor.records.info` says what one site may report.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from flavor.records.counts import COMPUTED, POOLED, NotMerged, is_beside, is_count, of_sites
from flavor.records.info import CONFUSION, Info
from flavor.records.pooling import BASIC, pooled
from flavor.records.sound_counts import listed, sound_counts

WEIGHTED = " (weighted)"
"""The end of the name of a mean that is weighted by the sites' numbers of examples."""

MOST_REASONS = 50
"""Entries of `metadata.notMerged`: sites choose the names."""

_Value = TypeVar("_Value")


def why_not_own(name: str) -> str:
    """Return why no site can report a metric of this name, which has a meaning of its own; '' where one can.

    What a site reports by such a name is neither merged, nor shown or exported.
    """
    if (found := next((prefix for prefix in COMPUTED if name.startswith(prefix)), None)) is not None:
        return f"names that begin with {found!r} are those of {COMPUTED[found]}"
    return f"names that end with {WEIGHTED!r} are those of means over the sites" if name.endswith(WEIGHTED) else ""


def sites_with(name: str, few: Mapping[str, int], sites: int) -> int:
    """Return how many of a round's `sites` report a merged metric, plain or weighted.

    `few` has the number of sites of each metric that not all of them report, by the name that they use.
    """
    return few.get(name, few.get(name.removesuffix(WEIGHTED), sites))


def is_of_most(count: int, sites: int) -> bool:
    """Return whether `count` of a round's `sites` are most of them: more than half, and more than one.

    What the only site of a round reports is no agreement of sites.
    """
    return count > 1 and 2 * count > sites


def by_sites(
    metrics: Mapping[str, _Value], few: Mapping[str, int], sites: int, known: Iterable[str] = ()
) -> dict[str, _Value]:
    """Return merged metrics in the order in which they are kept and shown, so that no single site displaces others'.

    First those that most of the `sites` report, the `known` ones of earlier rounds before others. Of the rest one known
    metric and one other in turn, those that more sites report first: one site may have been the first to report, and
    its metrics would always be the known ones. Equal ones stay in the order of `metrics`, as `merge_infos` makes it.
    `few` is as in `sites_with`.
    """
    ranks: dict[str, int] = {}
    for name in known:
        ranks.setdefault(name.removesuffix(WEIGHTED), len(ranks))
    means: dict[str, list[str]] = {}
    for name in metrics:
        means.setdefault(name.removesuffix(WEIGHTED), []).append(name)
    counts = {base: sites_with(names[0], few, sites) for base, names in means.items()}
    of_most = [base for base in means if is_of_most(counts[base], sites)]
    of_most.sort(key=lambda base: ranks.get(base, len(ranks)))
    rest = sorted((base for base in means if not is_of_most(counts[base], sites)), key=lambda base: -counts[base])
    turns = [[base for base in rest if base in ranks], [base for base in rest if base not in ranks]]
    return {name: metrics[name] for base in (*of_most, *_in_turn(turns)) for name in means[base]}


def _in_turn(lists: Iterable[Iterable[str]]) -> list[str]:
    """Return the first name of each list, then the second of each, and so on; each name once."""
    turns = itertools.zip_longest(*lists)
    return list(dict.fromkeys(name for turn in turns for name in turn if name is not None))


def sites_of(merged: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """Return how many sites report each metric that not all report, and how many sites there are.

    That is what merged information says, which another release or a user's aggregator may have written: without a
    number of sites all metrics count as those of all.
    """
    metadata = merged["metadata"]
    few, names, number = metadata.get("metricSites"), metadata.get("clients"), metadata.get("sites")
    sites = len(names) if isinstance(names, list) else number if type(number) is int else 0
    if not isinstance(few, Mapping) or sites <= 0:
        return {}, max(1, sites)
    return {str(name): count for name, count in few.items() if type(count) is int and 0 <= count < sites}, sites


def summed(merged: Info) -> Info:
    """Return the merged information without the numbers of single sites: a list of one number per site becomes its sum.

    The sum stands in a list of one number, so that a script that adds up the list works with both. A count that a site
    does not track (-1 or null) is not added; where no site tracks it, the sum is -1. `sites`, the number of sites,
    replaces their names, and `leftOut`, which names them, goes. A list that one site alone reports, such as a histogram
    of its patients' scores, is left out.
    """
    metadata, metrics = dict(merged["metadata"]), dict(merged["metrics"])
    metadata.pop("leftOut", None)
    few, sites = sites_of(merged)
    alone = [name for name in metrics if is_count(name) and isinstance(metrics[name], list)]
    alone = [name for name in alone if sites_with(name, few, sites) < 2]
    if alone:
        why = "one site alone reports it: the sum would be that site's own"
        reasons = not_merged(merged) | dict.fromkeys(alone, why)
        metadata["notMerged"] = dict(itertools.islice(sorted(reasons.items()), MOST_REASONS))
    for name in alone:
        del metrics[name]
    metadata["sites"] = len(metadata.pop("clients"))
    for name in ("datasetSize", "importance"):
        metadata[name] = [sum(metadata[name])]
    for name, values in metrics.items():
        if name in CONFUSION and isinstance(values, list):
            tracked = [value for value in values if value is not None and value >= 0]
            metrics[name] = [sum(tracked) if tracked else -1]
    return {"metadata": metadata, "metrics": metrics}


def merge_infos(clients: Sequence[str], infos: Sequence[Mapping[str, Any]]) -> Info:
    """The merged information of one round, clients in the order given.

    `datasetSize`, `importance` and the four `basic/confusion_*` are lists in client order (null where a client has
    none). Counts are merged as `flavor.records.counts` says, and metrics of all sites together are computed of them as
    `flavor.records.pooling` says, None where they are 0/0. Every other metric is the plain mean over the clients that
    report it, and beside it, with the suffix ` (weighted)`, their mean weighted by `datasetSize` (the plain mean when
    those are all zero). A client's own metric of such a name, or of one that `flavor.records.counts.COMPUTED` has a
    meaning for, as `pooled/…`, `central/…` or `worst/…`, is left out, and `metadata.notMerged` says so.

    `epoch` is the first client's. Where not all clients report a metric, `metadata.metricSites` says how many do; one
    that none reports has no merged value. `metadata.notMerged` says why counts are missing that do not go together,
    such as histograms of different bins. A count of one site that is wrong, or of another form than that of most sites,
    is left out, and `metadata.leftOut` says of which site, and why (`flavor.records.sound_counts`).

    The metrics are in the order of the clients' own: one of each client in turn, those first that report fewest. So one
    that reports very many leaves room for those of others, wherever only the first ones are kept. Pooled metrics and
    means take turns, from the kind that comes first; counts come last.
    """
    sizes = [info["metadata"]["datasetSize"] for info in infos]
    reported: list[Mapping[str, Any]] = [info["metrics"] for info in infos]
    sound = sound_counts(reported, CONFUSION)
    own: list[list[str]] = sorted((list(metrics) for metrics in reported), key=len)
    names = _in_turn(own)
    of_all = pooled(sound.metrics, CONFUSION)
    gone: dict[str, str] = {name: why for each in reversed(sound.left_out) for name, why in each.items()}
    reasons = {
        name: f"of a site: {why}" for name, why in gone.items() if all(each.get(name) is None for each in sound.metrics)
    }
    reasons |= of_all.reasons
    means: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    sites: dict[str, int] = {}
    for name in names:
        if name in CONFUSION:
            means[name] = [metrics.get(name) for metrics in reported]
            continue
        if why := why_not_own(name):
            reasons[name] = why
            continue
        there = sum(metrics.get(name) is not None for metrics in (sound.metrics if is_count(name) else reported))
        if there < len(infos):
            sites[name] = there
        if there and is_count(name):
            try:
                counts[name], _ = of_sites(name, sound.metrics)
            except NotMerged as error:
                reasons[name] = str(error)
        elif there:
            means[name], means[name + WEIGHTED] = _means([metrics.get(name) for metrics in reported], sizes)
    sites |= {name: len(those) for name, those in of_all.sites.items() if len(those) < len(infos)}
    some = dict(itertools.islice(sorted(reasons.items()), MOST_REASONS))
    return {
        "metadata": {
            "epoch": infos[0]["metadata"]["epoch"],
            "datasetSize": sizes,
            "importance": [info["metadata"]["importance"] for info in infos],
            "clients": list(clients),
            **({"metricSites": sites} if sites else {}),
            **({"notMerged": some} if some else {}),
            **({"leftOut": those} if (those := listed(clients, sound.left_out)) else {}),
        },
        "metrics": {**_ordered(means, of_all.metrics, names), **counts},
    }


def _means(values: Sequence[float | None], sizes: Sequence[int]) -> tuple[float, float]:
    """Return the plain mean of the values that are not None, and that weighted by the sites' numbers of examples."""
    known = [(value, size) for value, size in zip(values, sizes, strict=True) if value is not None]
    plain = math.fsum(value / len(known) for value, _ in known)
    total = sum(size for _, size in known)
    weighted = math.fsum(value * (size / total) for value, size in known) if total else plain
    lowest, highest = min(value for value, _ in known), max(value for value, _ in known)
    # rounding leads beyond them where all values are equal
    return min(max(plain, lowest), highest), min(max(weighted, lowest), highest)


def _ordered(means: Mapping[str, Any], of_all: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Put means and pooled metrics in turn, from the kind that the sites report first; bounds come last."""
    own = [name for name in names if name in means]
    cells = [name for name in own if name in CONFUSION]
    late = [name for name in of_all if is_beside(name) or name.startswith(f"{POOLED}{BASIC}/")]
    early = [name for name in of_all if name not in late]
    first = next((name for name in names if name not in CONFUSION), "")
    others = [name for name in own if name not in cells]
    turns = _in_turn((early, others) if is_count(first) else (others, early))
    found: dict[str, Any] = {}
    for name in (*((*turns, *cells) if early else own), *late):
        if name in of_all:
            found[name] = of_all[name]
            continue
        found[name] = means[name]
        if name + WEIGHTED in means:
            found[name + WEIGHTED] = means[name + WEIGHTED]
    return found


def not_merged(merged: Mapping[str, Any]) -> dict[str, str]:
    """Return why some counts of the sites are not in the merged information, by name."""
    found = merged["metadata"].get("notMerged")
    return {str(name): str(why) for name, why in found.items()} if isinstance(found, Mapping) else {}
