"""What is drawn of a report: of bounded size, however much a site has written, and with numbers of what is left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MOST_ROWS = 2000
"""Values of one table, or bars."""
MOST_CELLS = 64
"""Rows, and columns, of one heatmap."""
MOST_LINES, MOST_POINTS = 12, 1000
"""Lines of one plot, and points of each line."""
MOST_BYTES = 2 * 2**20
"""Of one answer as JSON: entries beyond it are counted, and not drawn."""
_MOST_APART = 200
_MOST_SITES = 20
"""Sites of one entry that are named; `all_sites` is their number."""

Entry = Mapping[str, Any]


def drawn(results: Mapping[str, Sequence[Entry]]) -> dict[str, Any]:
    """Return what is drawn of a report's `results`, or of a merged report: its entries by kind, as far as they are.

    An entry that is not whole has `whole`: how many values it has, `[rows, columns]` of a heatmap, `[lines, points of
    the longest line]` of a plot. Of a plot, points are left out evenly. An entry of a merged report names its first
    `sites`, and has the number of `all_sites`. `left_out` counts the entries of each kind that
    are left out.
    """
    found, left_out, room = dict[str, Any](), dict[str, int](), MOST_BYTES
    for kind, cut in _CUTS.items():
        taken = []
        for entry in results.get(kind, ()):
            made = _with_few_sites(cut(entry))
            size = len(json.dumps(made))
            if size <= room:
                room -= size
                taken.append(made)
        found[kind] = taken
        if left := len(results.get(kind, ())) - len(taken):
            left_out[kind] = left
    apart = results.get("apart", ())
    if len(apart) > _MOST_APART:
        left_out["apart"] = len(apart) - _MOST_APART
    found["apart"] = [_with_few_sites(dict(entry)) for entry in apart[:_MOST_APART]]
    return {**found, "left_out": left_out}


def _with_few_sites(entry: dict[str, Any]) -> dict[str, Any]:
    if "sites" not in entry:
        return entry
    return {**entry, "sites": entry["sites"][:_MOST_SITES], "all_sites": len(entry["sites"])}


def _table(entry: Entry) -> dict[str, Any]:
    size = len(entry["labels"])
    if size <= MOST_ROWS:
        return dict(entry)
    return {
        **entry,
        **{name: entry[name][:MOST_ROWS] for name in ("labels", "values", "counts") if name in entry},
        "whole": size,
    }


def _heatmap(entry: Entry) -> dict[str, Any]:
    down, across = len(entry["y-labels"]), len(entry["x-labels"])
    if max(down, across) <= MOST_CELLS:
        return dict(entry)
    matrices = {
        name: [row[:MOST_CELLS] for row in entry[name][:MOST_CELLS]] for name in ("values", "counts") if name in entry
    }
    labels = {name: entry[name][:MOST_CELLS] for name in ("x-labels", "y-labels")}
    return {**entry, **matrices, **labels, "whole": [down, across]}


def _plot(entry: Entry) -> dict[str, Any]:
    lines, longest = len(entry["labels"]), max(map(len, entry["x-values"]), default=0)
    if lines <= MOST_LINES and longest <= MOST_POINTS:
        return dict(entry)
    points = {name: [_thinned(line) for line in entry[name][:MOST_LINES]] for name in ("x-values", "y-values")}
    return {**entry, "labels": entry["labels"][:MOST_LINES], **points, "whole": [lines, longest]}


def _thinned(line: Sequence[float | None]) -> Sequence[float | None]:
    """Return the first and the last of these points, and of those between as many as may be, evenly."""
    last = len(line) - 1
    if last < MOST_POINTS:
        return line
    return [line[at * last // (MOST_POINTS - 1)] for at in range(MOST_POINTS)]


_CUTS: Mapping[str, Callable[[Entry], dict[str, Any]]] = {
    "tables": _table,
    "bars": _table,
    "heatmaps": _heatmap,
    "plots": _plot,
    "images": dict,
}
