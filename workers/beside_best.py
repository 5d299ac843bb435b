"""The results of the best model of a run, which a worker reads to compare a new model with it."""

from __future__ import annotations

from flavor.bus.runs import RunStore
from flavor.policy.compared import Found
from flavor.records.comparison import Comparison
from flavor.records.evaluation import AUTOMATIC, BestModel, Result
from flavor.records.info import Info
from flavor.results.judged_both import JudgedBoth
from flavor.results.site_results import UNREADABLE, read_result
from flavor.store.protocol import ObjectStore


class BesideBest:
    """Compares the model of one evaluation with the best model."""

    def __init__(self, store: ObjectStore, runs: RunStore, judged_both: JudgedBoth) -> None:
        self._store, self._runs, self._judged_both = store, runs, judged_both

    def __call__(self, before: BestModel, found: Found) -> Comparison:
        """Return how both models compare."""
        of_best = self._runs.read_evaluation(before.round, AUTOMATIC)
        results = {} if of_best is None else {site: each.result for site, each in of_best.accepted.items()}
        return self._judged_both.compare(
            before, found, judged=results, result_of=lambda site: self._read(results[site])
        )

    def _read(self, result: Result | None) -> Info | None:
        """What a site has measured of the best model; None where its object is gone, damaged or withheld.

        Such an object stays so: it must not keep every later evaluation from having a result.
        """
        try:
            return None if result is None else read_result(self._store, result.info)
        except UNREADABLE:
            return None
