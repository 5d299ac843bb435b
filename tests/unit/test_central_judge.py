"""A worker that judges models on the operator's own data: when it ends, and what it leaves out."""

from __future__ import annotations

from typing import Any

from flavor.cook.metrics import binary_counts
from flavor.records.info import checked_info, completed
from flavor.records.sound_counts import left_out_of
from flavor.results.evaluated import Evaluated, beside
from workers.central import _merged
from workers.central_judge import CentralJudge
from workers.notes import of_own_counts


def test_it_ends_once_the_worker_that_judges_is_told_to():
    nothing: Any = None
    judge = CentralJudge(nothing, print)
    assert not judge.ends
    judge.over.set()
    assert judge.ends


def test_of_what_nothing_is_computed_is_told_in_the_log_and_with_the_results():
    counts = {**binary_counts([0, 1], [0.1, 0.9]), "count/binary/calibration": [1, 2]}
    info = checked_info(completed({"metadata": {"datasetSize": 2}, "metrics": {**counts, "pooled/mine": 1.0}}, 1))
    merged, _ = _merged(info, ())
    assert "central/pooled/auc" in merged["metrics"]
    assert "central/pooled/ece" not in merged["metrics"]
    ((who, why),) = left_out_of(merged).items()
    assert (who, list(why)) == ("the operator's own data", ["count/binary/calibration", "pooled/mine"])
    (told,) = of_own_counts(merged)
    assert told.startswith("warning: left out is count/binary/calibration (it has ")
    assert told.endswith(", and 1 more")
    by_sites = Evaluated("r", 1, 0, "m", 1, 2, (), {}, {}, left_out={"a": {"count/x": "it is odd"}})
    own = Evaluated("r", 1, 0, "m", 1, 2, (), {}, {}, left_out=left_out_of(merged))
    assert list(beside(by_sites, own).left_out) == ["a", who]
    alone, _ = _merged(checked_info(completed({"metadata": {"datasetSize": 2}, "metrics": {"accuracy": 0.5}}, 1)), ())
    assert list(of_own_counts(alone)) == []
    assert "leftOut" not in alone["metadata"]
