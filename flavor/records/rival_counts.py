"""Counts of different kinds that give pooled metrics of the same names, of which only one kind can go into these.

The `accuracy` of a label is given by its binary and by its multiclass confusion matrix, and that of `basic` also by the
cells `basic/confusion_*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flavor.records.counts import POOLED, PREFIX
from flavor.records.pooling import BASIC, counts_by_label, kinds_giving, tracked_cells


def labels_of(sites: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what the names of labels begin with, `NAME/` or '', of which these sites report counts."""
    paths = dict.fromkeys(path for metrics in sites for path in counts_by_label(metrics))
    return list(dict.fromkeys(path.removeprefix(PREFIX).removesuffix(f"{kind}/") for path, kind in paths))


def label_of(pooled_metric: str) -> str:
    """Return the label of a pooled metric, with its slash: '' for `pooled/accuracy`."""
    name = pooled_metric.removeprefix(POOLED)
    return name[: name.rfind("/") + 1]


def counts_giving(pooled_metric: str, confusion: Sequence[str]) -> list[tuple[str, ...]]:
    """Return of which counts a pooled metric may be computed, by their names: one of these tuples is enough."""
    label = label_of(pooled_metric)
    kinds = kinds_giving(pooled_metric.removeprefix(POOLED + label))
    found = [tuple(f"{PREFIX}{label}{kind}/{name}" for name in counts) for kind, counts in kinds]
    is_basic = label == f"{BASIC}/" and ("binary", ("confusion",)) in kinds
    return [*found, tuple(confusion)] if is_basic else found


def rivals_in(metrics: Mapping[str, Any], label: str, confusion: Sequence[str]) -> list[str]:
    """Return the counts of one site that give the same metrics of a label; `confusion` by the first of its cells."""
    found = [f"{PREFIX}{label}{kind}/confusion" for kind in ("binary", "multiclass")]
    given = [name for name in found if metrics.get(name) is not None]
    is_basic = label == f"{BASIC}/" and tracked_cells(metrics, confusion) is not None
    return [*given, confusion[0]] if is_basic else given
