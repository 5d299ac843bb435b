"""Complete what an evaluator reports: only `datasetSize` and its metrics are asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flavor.records.info import CONFUSION, UNCOUNTED


def completed(value: object, round_: int) -> object:
    """Return the information with what an evaluator need not say; anything but a mapping as it is.

    `epoch` is the round that has made the model, `importance` is 1, and cells of a confusion matrix are not counted.
    """
    if not isinstance(value, Mapping):
        return value
    metadata, metrics = value.get("metadata"), value.get("metrics")
    made: dict[Any, Any] = dict(value)
    if isinstance(metadata, Mapping):
        made["metadata"] = {"epoch": round_, "importance": 1.0, **metadata}
    if isinstance(metrics, Mapping):
        made["metrics"] = {**dict.fromkeys(CONFUSION, UNCOUNTED), **metrics}
    return made
