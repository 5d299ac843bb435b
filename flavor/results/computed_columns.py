"""Columns that flavor computes of a metric, such as `accuracy (sites)`, and metrics of sites that look like one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from flavor.records.merging import WEIGHTED

OF_SITES = " (sites)"
"""The end of the name of a number of sites, for what not all sites report."""
LOWEST, HIGHEST = " (lowest)", " (highest)"
"""The ends of the names of the lowest and the highest value of a site."""
OF_ROUNDS, OF_EVALUATIONS = (OF_SITES,), (LOWEST, HIGHEST, OF_SITES)
"""The ends of the columns that are computed for a round, and for an evaluation."""
MARK = " (metric)"
"""The end of the column of a metric that is called like another column."""


def marked(metrics: Mapping[str, float], ends: Collection[str]) -> dict[str, float]:
    """Return merged metrics by their columns: one that a site has called like a computed column gets a mark.

    The name alone decides, so that a metric has the same column in each line, and no two metrics have one.
    """
    return {_marked(name, ends): value for name, value in metrics.items()}


def told_apart(columns: Mapping[str, float]) -> tuple[dict[str, float], dict[str, int]]:
    """Return the metrics of a line of rounds, and by name how many sites report one: the reverse of `marked`."""
    metrics, few = dict[str, float](), dict[str, int]()
    for column, value in columns.items():
        if column.endswith(OF_SITES):
            few[column.removesuffix(OF_SITES)] = int(value)
        else:
            metrics[_unmarked(column, OF_ROUNDS)] = value
    return metrics, few


def _marked(name: str, ends: Collection[str]) -> str:
    base = name.removesuffix(WEIGHTED)
    return f"{base}{MARK}{name[len(base) :]}" if _is_like(base, ends) else name


def _unmarked(column: str, ends: Collection[str]) -> str:
    base = column.removesuffix(WEIGHTED)
    name = base.removesuffix(MARK)
    return f"{name}{column[len(base) :]}" if name != base and _is_like(name, ends) else column


def _is_like(name: str, ends: Collection[str]) -> bool:
    """Whether a metric is called like a computed column, or like the column of such a metric."""
    return re.sub(f"(?:{re.escape(MARK)})+$", "", name).endswith(tuple(ends))
