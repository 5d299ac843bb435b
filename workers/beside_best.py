"""Compare a model with the best one before it by what the sites report that have judged both.

A site that is gone for good, or that hands in no result of one of the models, has no part in the comparison: it cannot
keep a later model from being the best, nor make another one the best by its absence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.errors import DigestMismatch, InvalidInfo, InvalidRecord, ObjectMissing
from flavor.policy.selection import Beside, Select, value_of
from flavor.records.evaluation import AUTOMATIC, Best, EvaluationView, Result
from flavor.records.info import MAX_BYTES, Info, parse_info
from flavor.records.merging import merge_infos
from flavor.records.summary import finite
from flavor.results.evaluation_summary import evaluation_summary
from flavor.store.protocol import ObjectStore


class BesideBest:
    """The comparison of one evaluation, of which `infos` are the results that count, with that of the best model."""

    def __init__(
        self,
        store: ObjectStore,
        runs: RunStore,
        config: RunConfig,
        select: Select,
        evaluation: EvaluationView,
        infos: Mapping[str, Info],
    ) -> None:
        self._store, self._runs, self._config, self._select = store, runs, config, select
        self._evaluation, self._infos = evaluation, infos

    def __call__(self, before: Best, value: float, sites: int) -> Beside | None:
        """Return both values over the sites that have judged both; None where those are not most of the sites.

        Most are more than half of the sites that were asked this time. The results of the best model are read from the
        store only where other sites have judged it.
        """
        of_best = self._runs.read_evaluation(before.round, AUTOMATIC)
        results = {} if of_best is None else {site: each.result for site, each in of_best.accepted.items()}
        if results.keys() == self._infos.keys() and sites == before.sites == len(results):
            return Beside(value, before.value, sites)
        common = [site for site in self._infos if results.get(site) and self._reports(self._infos[site])]
        if not self._are_most(common):
            return None
        infos = {site: info for site in common if (info := self._of_best(results[site])) is not None}
        common = [site for site in infos if self._reports(infos[site])]
        if not self._are_most(common):
            return None
        now, then = self._value(common, self._infos), self._value(common, infos)
        if now is None or then is None or now[1] != then[1]:
            return None
        return Beside(now[0], then[0], now[1])

    def _of_best(self, result: Result | None) -> Info | None:
        """What a site has measured of the best model; None where its object is gone or damaged.

        Such an object stays so: it must not keep every later evaluation from having a result.
        """
        if result is None:
            return None
        try:
            return parse_info(self._store.read(result.info, most=MAX_BYTES), where="info.json")
        except (ObjectMissing, DigestMismatch, InvalidRecord, InvalidInfo):
            return None

    def _are_most(self, common: Sequence[str]) -> bool:
        return 2 * len(common) > len(self._evaluation.expected)

    def _reports(self, info: Info) -> bool:
        """Whether a site reports the metric; of one that is computed of counts, `_value` says how many sites do."""
        name = self._select.site_metric
        return name is None or finite(info["metrics"].get(name)) is not None

    def _value(self, common: Sequence[str], infos: Mapping[str, Info]) -> tuple[float, int] | None:
        of = [infos[site] for site in common]
        summary = evaluation_summary(
            self._evaluation.round,
            AUTOMATIC,
            opened_ms=0,
            expected=len(common),
            examples=0,
            merged=merge_infos(common, of),
            sites=[info["metrics"] for info in of],
            config=self._config,
        )
        return value_of(self._select.name, summary, is_larger=self._select.is_larger)
