"""Which counts of which sites go into what is merged: one site's bad counts are left out, and cost no other site.

A count is left out where it is wrong by itself, such as a negative number of examples, where it does not fit the same
site's other counts, and where most of the sites that report it agree on another form of it: another number of bins,
another `.same`. Where no form is that of most, the count is merged of none (`flavor.records.counts.NotMerged`).

Likewise, of the kinds of counts that give the same pooled metrics (`flavor.records.rival_counts`), the one stays that
most of the sites report which report any. The sites without such counts have no say in it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flavor.records.counts import LARGEST, MOMENTS, SAME, is_count
from flavor.records.pooling import counts_by_label
from flavor.records.possible_counts import impossible, impossible_cells
from flavor.records.rival_counts import labels_of, rivals_in

MOST_SITES, MOST_COUNTS = 50, 5
"""Sites, and counts of each, for which merged information says why they are left out: sites choose the names."""

OPERATOR = "the operator's own data"
"""In place of the name of a site, which has no spaces, for what an aggregator measures on data of its operator."""


class Sound(NamedTuple):
    """The metrics of the sites without the counts that are left out."""

    metrics: list[dict[str, Any]]
    left_out: list[dict[str, str]]
    """Of each site, why, by the name of the count."""


def sound_counts(sites: Sequence[Mapping[str, Any]], confusion: Sequence[str]) -> Sound:
    """Leave out what cannot be merged of the sites' metrics; `confusion` has the names of the cells tp, fp, fn, tn."""
    metrics = [dict(each) for each in sites]
    left_out = [_wrong_alone(each, confusion) for each in metrics]
    _remove(metrics, left_out, confusion)
    for why, others in zip(left_out, _of_other_kinds(metrics, confusion), strict=True):
        why.update(others)
    _remove(metrics, left_out, confusion)
    names = dict.fromkeys(name for each in metrics for name in each if is_count(name))
    for name in names:
        forms = {at: _form(name, each, len(sites)) for at, each in enumerate(metrics) if each.get(name) is not None}
        usual = _of_most(list(forms.values()))
        for at, form in forms.items():
            if usual is not None and form != usual:
                left_out[at][name] = f"it is {form}, and that of most sites is {usual}: let all sites use the same"
    _remove(metrics, left_out, confusion)
    for why in left_out:
        for name in [each for each in why if each.endswith(SAME) and each.removesuffix(SAME) in why]:
            del why[name]  # the reason of its count names it
    return Sound(metrics, left_out)


def _remove(metrics: Sequence[dict[str, Any]], left_out: Sequence[Mapping[str, str]], confusion: Sequence[str]) -> None:
    for each, why in zip(metrics, left_out, strict=True):
        for name in why:
            for removed in confusion if name in confusion else (name, name + SAME):
                each.pop(removed, None)


def _wrong_alone(metrics: Mapping[str, Any], confusion: Sequence[str]) -> dict[str, str]:
    """Return why counts of one site are wrong by themselves."""
    found: dict[str, str] = {}
    for (path, kind), counts in counts_by_label(metrics).items():
        found |= {path + name: why for name, why in impossible(kind, counts).items()}
    if why := impossible_cells([metrics.get(cell) for cell in confusion]):
        found[confusion[0]] = why
    return found


def _of_other_kinds(metrics: Sequence[Mapping[str, Any]], confusion: Sequence[str]) -> list[dict[str, str]]:
    """Return, of each site, why counts do not go into the pooled metrics, which another kind gives at most sites."""
    found: list[dict[str, str]] = [{} for _ in metrics]
    for label in labels_of(metrics):
        reported = [rivals_in(each, label, confusion) for each in metrics]
        of = sum(map(bool, reported))
        usual = [name for name, number in Counter(itertools.chain(*reported)).items() if _are_most(number, of)]
        if len(usual) != 1:
            continue
        for why, names in zip(found, reported, strict=True):
            others = [name for name in names if name not in usual]
            reason = f"most sites with such counts report {usual[0]}: give it another name (name=…)"
            why.update(dict.fromkeys(others, reason))
    return found


def _form(name: str, metrics: Mapping[str, Any], sites: int) -> str:
    """Return in words what has to be the same at all sites."""
    value = metrics[name]
    if name.endswith(SAME):
        return str(value)[:40]
    size = f"a list of {len(value)}" if isinstance(value, list) else "a number"
    most = max(map(abs, value if isinstance(value, list) else [value]), default=0)
    if name.endswith(MOMENTS) and isinstance(value, list) and len(value) == 3:
        most = max(most, 4 * float(value[0]) * float(value[1]) * float(value[1]))
    size += "" if most <= LARGEST / sites else " with numbers too large to be added"
    setting = metrics.get(name + SAME)
    return size if setting is None else f"{size} with {name + SAME} {str(setting)[:40]}"


def _of_most(forms: Sequence[str]) -> str | None:
    """Return the form that more than half of several sites report; None where there is none."""
    ((form, number),) = Counter(forms).most_common(1) or [("", 0)]
    return form if _are_most(number, len(forms)) else None


def _are_most(number: int, sites: int) -> bool:
    """Whether these are more than half of several sites."""
    return number > max(1, sites / 2)


def listed(clients: Sequence[str], left_out: Sequence[Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return, by site, why its first counts are left out."""
    some = [(client, why) for client, why in zip(clients, left_out, strict=True) if why][:MOST_SITES]
    return {client: dict(list(why.items())[:MOST_COUNTS]) for client, why in some}


def left_out_alone(merged: Mapping[str, Any]) -> dict[str, str]:
    """Return why metrics and counts of the only site are not in what is merged of it, for the first of them."""
    metadata = merged["metadata"]
    reasons = {**metadata.get("notMerged", {}), **next(iter(metadata.get("leftOut", {}).values()), {})}
    return dict(list(reasons.items())[:MOST_COUNTS])


def left_out_of(merged: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return, by site, why counts of it are not in merged information, which another party may have written."""
    return left_out_in(merged["metadata"].get("leftOut"))


def left_out_in(found: Any) -> dict[str, dict[str, str]]:
    """Return what `listed` has returned, as it was written into JSON; what is of another form is left out."""
    if not isinstance(found, Mapping):
        return {}
    some = {str(site): why for site, why in found.items() if isinstance(why, Mapping)}
    return {site: {str(name): str(reason) for name, reason in why.items()} for site, why in some.items()}
