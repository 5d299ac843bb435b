"""Compare a model with the best one before it by what the sites report that have judged both.

A site that is gone for good, or that hands in no result of one of the models, has no part in the comparison: it cannot
keep a later model from being the best, nor make another one the best by its absence. A site that reports one model as
infinite or NaN, and the other one not, says that the first one is worse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from flavor.config import RunConfig
from flavor.policy.compared import Found
from flavor.policy.selection import Select, value_of
from flavor.records.comparison import Beside, Comparison
from flavor.records.evaluation import AUTOMATIC, BestModel
from flavor.records.info import Info
from flavor.records.lacking import SomeSites, with_value
from flavor.records.merging import merge_infos
from flavor.records.not_finite import not_finite_of
from flavor.records.reporters import parts_of
from flavor.results.evaluation_summary import evaluation_summary


@dataclass(frozen=True)
class JudgedBoth:
    """The comparison of one evaluation, of which `infos` are the results that count, with that of the best model."""

    config: RunConfig
    select: Select
    infos: Mapping[str, Info]
    asked: Collection[str]
    """The sites that were to judge the new model."""

    def compare(
        self,
        before: BestModel,
        found: Found,
        *,
        judged: Collection[str],
        result_of: Callable[[str], Info | None],
    ) -> Comparison:
        """Return how both models compare at the sites that have a part in the metric: a finite value of one of them.

        The values are compared over the sites that have one of both models, if these are more than half of those that
        have a part and were asked. A site at which the new model alone is infinite or NaN decides against it. One at
        which the best model alone is so decides for the new model only if this has a finite value at more than half of
        the sites that have any value of one of both, NaN and infinite included, and were asked: so no model takes the
        place of one that most sites have judged because it was judged by few.

        `found` is the new model's value. `judged` are the sites whose results of the best model count. `result_of`
        returns the result of one of them, None for a lost one. It is not called where all sites have values of both.
        """
        is_of_all = found is not None and found[1] == before.sites == len(judged)
        if found is not None and is_of_all and set(judged) == self.infos.keys():
            return Comparison(Beside(found[0], before.value, found[1]))
        infos = {site: info for site in judged if (info := result_of(site)) is not None}
        unread = {site for site in judged if site not in infos} & set(self.asked)
        new, old = self._reporting(self.infos), self._reporting(infos)
        common = [site for site in new if site in old]
        having_part = {*new, *old} & set(self.asked)
        beside = self._beside(common, infos) if 2 * len(common) > len(having_part) else None
        diverged, recovered = self._not_finite(old, self.infos), self._not_finite(new, infos)
        measuring = {*having_part, *self._words(infos), *self._words(self.infos)} & set(self.asked)
        return Comparison(
            beside,
            diverged=SomeSites.of(diverged),
            recovered=SomeSites.of(recovered if 2 * len(measuring & set(new)) > len(measuring) else []),
            lacked=SomeSites.of(having_part - {*common, *unread}),
            unread=SomeSites.of(unread),
        )

    def _beside(self, common: Sequence[str], infos: Mapping[str, Info]) -> Beside | None:
        new, old = self._value(common, self.infos), self._value(common, infos)
        return None if new is None or old is None else Beside(new, old, len(common))

    def _words(self, infos: Mapping[str, Info]) -> dict[str, str]:
        """Return which sites report the metric as infinite or NaN, with the name of the value."""
        words = {site: not_finite_of(info).get(self.select.merged) for site, info in infos.items()}
        return {site: word for site, word in words.items() if word is not None}

    def _not_finite(self, having: Sequence[str], infos: Mapping[str, Info]) -> list[str]:
        """Return which of the sites that have a value of one model report none that is finite of the other one."""
        words = self._words(infos)
        return [with_value(site, words[site]) for site in having if site in words]

    def _reporting(self, infos: Mapping[str, Info]) -> tuple[str, ...]:
        """Return the sites whose value, or whose counts, the merged metric of one model has."""
        metrics = {site: info["metrics"] for site, info in infos.items()}
        return parts_of([self.select.merged], metrics)[self.select.merged].merged

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
