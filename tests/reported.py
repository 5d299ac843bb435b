"""What evaluators of made-up sites write: their result.json with its images, as an edge reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flavor.programs.result_file import Written, read_result


def written(
    folder: Path, results: Mapping[str, Any], images: Mapping[str, bytes] | None = None, *, examples: int = 10
) -> Written:
    """Write a result.json with these `results`, and the images, into a folder, and read it as an edge does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (images or {}).items():
        (folder / name).write_bytes(data)
    report = {"metadata": {"datasetSize": examples}, "results": results}
    (folder / "result.json").write_text(json.dumps(report), encoding="utf-8")
    found = read_result(folder)
    assert found is not None
    return found


def results_of_a_site(better: float) -> dict[str, Any]:
    """A table, bars, a confusion matrix, a heatmap without a sum, a ROC curve and an image."""
    curve = [round(0.05 * at, 2) for at in range(21)]
    return {
        "tables": [{"title": "Overall", "labels": ["accuracy", "auc"], "values": [0.7 + better, 0.8 + better]}],
        "bars": [
            {
                "title": "Class 1",
                "labels": ["precision", "recall", "gain over the last model"],
                "values": [0.76 + better, 0.89, -0.1],
                "y-axis": "share",
            }
        ],
        "heatmaps": [
            {
                "title": "Confusion matrix",
                "x-labels": ["benign", "malignant"],
                "y-labels": ["benign", "malignant"],
                "values": [[100 + round(100 * better), 5], [12, 60]],
                "x-axis": "prediction",
                "y-axis": "truth",
                "merge": "sum",
            },
            {
                "title": "Correlations",
                "x-labels": ["age", "size", "dose"],
                "y-labels": ["age", "size", "dose"],
                "values": [[1, 0.3, -0.6], [0.3, 1, None], [-0.6, float("nan"), 1]],
            },
        ],
        "plots": [
            {
                "title": "ROC",
                "labels": ["malignant", "chance"],
                "x-values": [curve, [0, 1]],
                "y-values": [[x ** (0.3 - better) for x in curve], [0, 1]],
                "x-axis": "false positive rate",
                "y-axis": "true positive rate",
            }
        ],
        "images": [{"title": "A slice that the model misses", "filename": "slice.png"}],
    }
