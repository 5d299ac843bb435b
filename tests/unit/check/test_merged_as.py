"""What `check-fl` says of how a script's metrics will be merged."""

from __future__ import annotations

from flavor.check.merged_as import merged_as
from flavor.cook.metrics import binary_counts, multiclass_counts
from flavor.records.info import checked_info

METADATA = {"epoch": 1, "datasetSize": 3, "importance": 1.0}
CELLS = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}


def said(**metrics: object) -> str:
    return merged_as(checked_info({"metadata": METADATA, "metrics": {**CELLS, **metrics}}))


def test_each_way_of_merging_is_named_once() -> None:
    assert said() == ""
    assert said(loss=0.5) == "merged as means: loss"
    counts = {**binary_counts([0, 1], [0.1, 0.9]), "count/missed": 3}
    assert said(loss=0.5, dice=1.0, **counts) == (
        "merged as means: loss, dice; of all sites: pooled/auc, pooled/average_precision, pooled/accuracy and 6 more; "
        "as sums: count/missed"
    )


def test_counts_that_cannot_be_used_are_told() -> None:
    both = {**binary_counts([0, 1], [0.1, 0.9]), **multiclass_counts([0], [0], classes=2)}
    assert "not pooled/accuracy: two kinds of counts give it" in said(**both)
    assert "not count/binary/confusion: of a site: it has -1" in said(**{"count/binary/confusion": [-1, 0, 0, 0]})
    assert "\n" not in said(**{"count/binary/confusion": [-1, 0, 0, 0]})
