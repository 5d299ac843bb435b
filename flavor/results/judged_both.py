"""Compare a model with the best one before it by what the sites report that have judged both.

A site that is gone for good, or that hands in no result of one of the models, has no part in the comparison: it cannot
keep a later model from being the best, nor make another one the best by its absence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from flavor.config import RunConfig
from flavor.policy.selection import Select, value_of
from flavor.records.evaluation import AUTOMATIC, Beside, BestModel
from flavor.records.info import Info
from flavor.records.merging import merge_infos
from flavor.records.reporters import reported
from flavor.results.evaluation_summary import evaluation_summary


@dataclass(frozen=True)
class JudgedBoth:
    """The comparison of one evaluation, of which `infos` are the results that count, with that of the best model."""

    config: RunConfig
    select: Select
    infos: Mapping[str, Info]
    asked: int
    """Number of sites that were to judge the new model."""

    def compare(
        self,
        before: BestModel,
        value: float,
        sites: int,
        *,
        judged: Collection[str],
        result_of: Callable[[str], Info | None],
    ) -> Beside | None:
        """Return both values over the sites that have judged both; None where those are not most of the sites asked.

        `judged` are the sites whose results of the best model count. `result_of` returns the result of one of them,
        None for a lost one. It is called only where other sites have judged the best model than the new one.
        """
        if set(judged) == self.infos.keys() and sites == before.sites == len(judged):
            return Beside(value, before.value, sites)
        common = [site for site in self._reporting(self.infos) if site in judged]
        if not self._are_most(common):
            return None
        infos = {site: info for site in common if (info := result_of(site)) is not None}
        common = self._reporting(infos)
        if not self._are_most(common):
            return None
        new, old = self._value(common, self.infos), self._value(common, infos)
        return None if new is None or old is None else Beside(new, old, len(common))

    def _are_most(self, common: Sequence[str]) -> bool:
        return 2 * len(common) > self.asked

    def _reporting(self, infos: Mapping[str, Info]) -> list[str]:
        """Return the sites that have a part in the metric."""
        return [site for site, info in infos.items() if reported([self.select.merged], info["metrics"])]

    def _value(self, common: Sequence[str], infos: Mapping[str, Info]) -> float | None:
        of = [infos[site] for site in common]
        summary = evaluation_summary(
            0,
            AUTOMATIC,
            opened_ms=0,
            expected=len(common),
            examples=0,
            merged=merge_infos(common, of),
            sites={site: infos[site]["metrics"] for site in common},
            config=self.config,
        )
        found = value_of(self.select.name, summary, is_larger=self.select.is_larger)
        return found[0] if found is not None else None
