"""Which metrics of the sites have time series: sites choose their names, and may choose new ones in each round."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

MOST_METRICS = 40
"""Metrics of one run that have series, as long as this process runs."""
_MOST_OF_FEW = 20
"""How many of them may be metrics that most sites do not report."""


class Named:
    """Remembers the metrics of one run that have series; a metric that has come too late has none."""

    def __init__(self) -> None:
        self._of_most: dict[str, None] = {}
        self._of_few: dict[str, None] = {}

    def look(self, document: Mapping[str, Any]) -> Collection[str]:
        """Return the names of the metrics that have series, with those that are new in this document of the run."""
        last, headline = document["last_round"], document["metric"]
        if last:
            sites, few = max(1, last.get("contributors", 1)), last.get("sites", {})
            for name in last["metrics"]:
                if 2 * few.get(name, sites) > sites or name == headline:
                    self._take(self._of_most, name, MOST_METRICS)
                else:
                    self._take(self._of_few, name, _MOST_OF_FEW)
        names = list(self._of_most | self._of_few)[:MOST_METRICS]
        return frozenset(names)

    def _take(self, names: dict[str, None], name: str, most: int) -> None:
        if len(names) < most:
            names.setdefault(name)
