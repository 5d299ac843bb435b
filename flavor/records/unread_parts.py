"""What merged information says of sites whose own results cannot be read any more: which metrics they have reported."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from flavor.records.counts import POOLED
from flavor.records.info import CONFUSION
from flavor.records.lacking import Lacking
from flavor.records.merging import sites_of, sites_with
from flavor.records.reporters import parts_of
from flavor.records.rival_counts import counts_giving
from flavor.records.sound_counts import left_out_of


class UnreadPart(NamedTuple):
    """Which sites whose results cannot be read have a part in one merged metric."""

    merged: tuple[str, ...]
    """The merged value is of these too."""
    left_out: tuple[str, ...]
    """They report it, and their counts were left out."""
    unknown: tuple[str, ...]
    """The merged value may be without them."""


def unread_parts(
    names: Iterable[str],
    sites: Mapping[str, Mapping[str, Any]],
    unread: Collection[str],
    merged: Mapping[str, Any],
) -> dict[str, UnreadPart]:
    """Return what is known of the `unread` sites by the merged metrics, by their names without `(weighted)`.

    `sites` has the metrics of the sites that can be read, and `merged` was made of all. It says of how many sites a
    value is, and not of which: the unread ones are among them where those that can be read are not enough.
    """
    few, why = sites_of(merged)[0], left_out_of(merged)
    found = {}
    for name, part in parts_of(names, sites).items():
        counts = {each for way in counts_giving(name, CONFUSION) for each in way} if name.startswith(POOLED) else {name}
        out = {site for site, reasons in why.items() if not counts.isdisjoint(reasons)}
        of = sites_with(name, few, len(sites) + len(unread)) if name in merged["metrics"] else 0
        least = of - len(part.merged) - len({*part.left_out} - out)
        if least >= len(unread):
            found[name] = UnreadPart(tuple(unread), (), ())
            continue
        left_out = tuple(site for site in unread if site in out)
        others = tuple(site for site in unread if site not in out)
        found[name] = UnreadPart(others, left_out, ()) if least >= len(others) else UnreadPart((), left_out, others)
    return found


def with_unread(lacking: Mapping[str, Lacking], parts: Mapping[str, UnreadPart]) -> dict[str, Lacking]:
    """Return who lacks each metric, of all sites; `lacking` is by the sites that can be read."""
    return {
        name: replace(
            each,
            left_out=each.left_out.and_also(parts[name].left_out),
            unread=each.unread.and_also(parts[name].unknown),
        )
        for name, each in lacking.items()
    }


def reported_unread(
    parts: Mapping[str, UnreadPart], before: Mapping[str, Collection[str]]
) -> dict[str, tuple[str, ...]]:
    """Return which of these metrics the unread sites have reported by now, as `reported_by_now`."""
    found = dict[str, set[str]]()
    for name, part in parts.items():
        for site in (*part.merged, *part.left_out):
            found.setdefault(site, set()).add(name)
    return {site: tuple(sorted(names.union(before.get(site, ())))) for site, names in found.items()}
