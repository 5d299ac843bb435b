"""The results of the best model of a run, which a worker reads to compare a new model with it."""

from __future__ import annotations

from flavor.bus.runs import RunStore
from flavor.errors import DigestMismatch, InvalidInfo, InvalidRecord, ObjectMissing
from flavor.policy.compared import Found
from flavor.records.comparison import Comparison
from flavor.records.evaluation import AUTOMATIC, BestModel, Result
from flavor.records.info import MAX_BYTES, Info, parse_info
from flavor.results.judged_both import JudgedBoth
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
        """What a site has measured of the best model; None where its object is gone or damaged.

        Such an object stays so: it must not keep every later evaluation from having a result.
        """
        if result is None:
            return None
        try:
            return parse_info(self._store.read(result.info, most=MAX_BYTES), where="info.json")
        except (ObjectMissing, DigestMismatch, InvalidRecord, InvalidInfo):
            return None
