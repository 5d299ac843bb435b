"""What an evaluator reports in result.json, and the images beside it: bytes of another party, read by all who look."""

from __future__ import annotations

import json

from flavor.errors import InvalidInfo
from flavor.records.evaluation_report import MAX_BYTES
from flavor.records.images import MOST_PIXELS, picture_of
from flavor.records.merged_report import merge_reports
from flavor.records.report_parser import parse_report

GOOD_REPORT = {
    "metadata": {"datasetSize": 33},
    "results": {
        "tables": [{"title": "Overall", "labels": ["Accuracy", "AUC"], "values": [0.75, None]}],
        "bars": [{"title": "Class 1", "labels": ["Precision", "Recall"], "values": [0.5, 1], "y-axis": "performance"}],
        "heatmaps": [
            {
                "title": "Confusion Matrix",
                "x-labels": ["Class0", "Class1"],
                "y-labels": ["Class0", "Class1"],
                "values": [[10, 5], [2, 16]],
                "x-axis": "Prediction",
                "y-axis": "Ground truth",
                "merge": "sum",
            }
        ],
        "plots": [
            {
                "title": "ROC curve",
                "labels": ["class 1"],
                "x-values": [[0, 0.2, 0.4, 0.8]],
                "y-values": [[0, 0.25, 0.43, 0.83]],
                "x-axis": "False positive rate",
                "y-axis": "True positive rate",
            }
        ],
        "images": [
            {
                "title": "Example image",
                "filename": "images/example.png",
                "digest": "0" * 64,
                "size_bytes": 100,
                "extension": ".png",
            }
        ],
    },
}
"""With every kind of entry, as an edge hands it in."""


def one_line(error: Exception) -> None:
    """What is told of a refused input is a line of bounded length."""
    assert "\n" not in str(error), repr(str(error))[:300]
    assert len(str(error)) < 2000, len(str(error))


def fuzz_report(data: bytes) -> None:
    """A site's result.json, as it is read, written again, and merged with those of others."""
    good = parse_report(json.dumps(GOOD_REPORT).encode(), where="good", is_sealed=True)
    for is_sealed in (False, True):
        try:
            report = parse_report(data, where="result.json", is_sealed=is_sealed)
        except InvalidInfo as error:
            one_line(error)
            continue
        text = json.dumps(report.to_plain(), allow_nan=False).encode()
        if is_sealed and len(text) <= MAX_BYTES:
            assert parse_report(text, where="again", is_sealed=True) == report
        for name in report.metrics:
            assert name == "" or name.split("/")[0] not in ("count", "pooled", "basic")
        for of in ({"a": report}, {"a": report, "b": good, "c": report}):
            json.dumps(merge_reports(of), allow_nan=False)


def fuzz_image(data: bytes) -> None:
    """The header of an image."""
    try:
        found = picture_of(data)
    except ValueError as error:
        one_line(error)
        return
    assert 0 < found.width * found.height <= MOST_PIXELS
    assert found.extension in (".png", ".jpg")
