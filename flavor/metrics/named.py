"""Which metrics of the sites have time series: sites choose their names, and may choose new ones in each round."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from flavor.records.merging import is_of_most

MOST_METRICS = 40
"""Metrics of one run that have series, as long as this process runs."""
_MOST_OF_FEW = 20
"""How many of them may be metrics that most sites do not report."""
_MOST_OF_A_ROUND = 5
"""How many of those may be new in one round: in the next round another site may be the only one."""


class Named:
    """Remembers the metrics of one run that have series; a metric that has come too late has none."""

    def __init__(self) -> None:
        self._of_most: dict[str, None] = {}
        self._of_few: dict[str, None] = {}
        self._round, self._new = 0, 0

    def look(self, document: Mapping[str, Any]) -> Collection[str]:
        """Return the names of the metrics that have series, with those that are new in this document of the run."""
        return self.look_at(document["last_round"], document["metric"], has_one_site=len(document["clients"]) == 1)

    def look_at(self, last: Mapping[str, Any] | None, headline: str | None, *, has_one_site: bool) -> Collection[str]:
        """Do so with the newest merged metrics, as `last_round` of a document has them.

        What the only site of a run reports is what most sites report.
        """
        if last:
            sites, few = max(1, last.get("contributors", 1)), last.get("sites", {})
            if last["round"] != self._round:
                self._round, self._new = last["round"], 0
            for name in last["metrics"]:
                if has_one_site or name == headline or is_of_most(few.get(name, sites), sites):
                    if len(self._of_most) < MOST_METRICS:
                        self._of_most.setdefault(name)
                elif name not in self._of_few and self._new < _MOST_OF_A_ROUND and len(self._of_few) < _MOST_OF_FEW:
                    self._of_few[name] = None
                    self._new += 1
        names = list(self._of_most | self._of_few)[:MOST_METRICS]
        return frozenset(names)
