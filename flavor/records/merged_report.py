"""One report of those of several sites: where entries have the same title and labels, by the way that they name.

An entry names its way as `merge`: `mean` (the default of tables and bars), `sum`, or `none` (the default of heatmaps:
whether a matrix holds counts cannot be told from its numbers). Plots and images are never merged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flavor.records.counts import LARGEST
from flavor.records.evaluation_report import Merge, Report

MERGED_KINDS = ("tables", "bars", "heatmaps")
_NUMBERS = ("values", "title")
"""What may differ between the entries of sites, or is the same already."""


def merge_reports(reports: Mapping[str, Report]) -> dict[str, Any]:
    """Return the merged report of these sites, as plain values.

    `tables`, `bars` and `heatmaps` have the merged entries, each as in result.json, with `sites`, the names of the
    sites that have such an entry, and `counts`, for each value the number of sites that have it. A value that no site
    has is None. `apart` says of each further entry its `kind`, `title` and `sites`, and `why` it is shown by site.
    """
    found: dict[str, Any] = {kind: [] for kind in MERGED_KINDS}
    found["apart"] = []
    plain = {site: report.to_plain()["results"] for site, report in sorted(reports.items())}
    for kind in (*MERGED_KINDS, "plots", "images"):
        for title, entries in _by_title(plain, kind).items():
            try:
                merged = _merged(kind, entries)
            except _Apart as why:
                found["apart"].append({"kind": kind, "title": title, "sites": list(entries), "why": str(why)})
            else:
                found[kind].append(merged)
    return {kind: found[kind] for kind in (*MERGED_KINDS, "apart")}


class _Apart(Exception):
    """Why entries of several sites stay apart."""


def _by_title(plain: Mapping[str, Mapping[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Return the entries of each title by site, in turn from the sites, as each of them orders its own."""
    found: dict[str, dict[str, Any]] = {}
    for turn in itertools.zip_longest(*([(site, entry) for entry in of[kind]] for site, of in plain.items())):
        for site, entry in filter(None, turn):
            found.setdefault(entry["title"], {})[site] = entry
    return {title: dict(sorted(of.items())) for title, of in found.items()}


def _merged(kind: str, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if kind not in MERGED_KINDS:
        raise _Apart(f"{kind} are shown by site")
    (first, model), *others = entries.items()
    for site, entry in others:
        for name in model:
            if name not in _NUMBERS and entry[name] != model[name]:
                raise _Apart(f"{name} of {site} differ from those of {first}")
    how = Merge(model["merge"])
    if how is Merge.NONE:
        raise _Apart("its merge is 'none'")
    rows = [entry["values"] if kind == "heatmaps" else [entry["values"]] for entry in entries.values()]
    made = [[_one(how, cell) for cell in zip(*row, strict=True)] for row in zip(*rows, strict=True)]
    values, counts = ([[pair[place] for pair in row] for row in made] for place in (0, 1))
    is_flat = kind != "heatmaps"
    return {
        **model,
        "values": values[0] if is_flat else values,
        "counts": counts[0] if is_flat else counts,
        "sites": list(entries),
    }


def _one(how: Merge, cell: Sequence[float | None]) -> tuple[float | None, int]:
    """Return the merged value, and of how many sites it is."""
    known = list(_known(cell))
    if not known:
        return None, 0
    if how is Merge.SUM:
        total = sum(known) if all(isinstance(value, int) for value in known) else math.fsum(known)
        if abs(total) > LARGEST:
            raise _Apart(f"a sum is too large: numbers of {LARGEST:g} at most are taken")
        return total, len(known)
    mean = math.fsum(value / len(known) for value in known)
    return min(max(mean, min(known)), max(known)), len(known)  # rounding leads beyond them where all are equal


def _known(cell: Sequence[float | None]) -> Iterator[float]:
    return (value for value in cell if value is not None)
