"""Names in a result.json that mean nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flavor.check.report_names import unknown_names
from flavor.errors import InvalidReport
from flavor.records.report_parser import parse_report

TABLE = {"title": "T", "labels": ["a"], "values": [1]}
PLOT = {"title": "P", "labels": ["a"], "x-values": [[0]], "y-values": [[0]]}
GRID = {"title": "H", "x-labels": ["a"], "y-labels": ["b"], "values": [[1]]}
OF_PLOT = "known are title, labels, x-values, y-values, x-axis, y-axis"
RIGHT: dict[str, Any] = {
    "tables": [{**TABLE, "merge": "sum"}],
    "bars": [{**TABLE, "y-axis": "share", "merge": "mean"}],
    "heatmaps": [{**GRID, "x-axis": "x", "y-axis": "y", "merge": "none"}],
    "plots": [{**PLOT, "x-axis": "x", "y-axis": "y"}],
    "images": [{"title": "I", "filename": "i.png"}],
}


def named(folder: Path, results: Any, **beside: Any) -> list[str]:
    text = json.dumps({"metadata": {"datasetSize": 3, "site": "x"}, "results": results, **beside})
    (folder / "result.json").write_text(text)
    parse_report(text.encode(), where="result.json")
    return unknown_names(folder)


def test_every_name_that_is_read_is_known(tmp_path: Path) -> None:
    assert named(tmp_path, RIGHT) == []
    assert named(tmp_path, {"tables": None}) == []


@pytest.mark.parametrize(
    ("results", "beside", "said"),
    [
        ({"table": [TABLE]}, {}, ["results.table (known are tables, bars, heatmaps, plots, images)"]),
        ({"plots": [{**PLOT, "xlabel": "x"}]}, {}, [f"results.plots[0].xlabel ({OF_PLOT})"]),
        ({"plots": [PLOT, {**PLOT, "title": "Q", "y_axis": "y"}]}, {}, [f"results.plots[1].y_axis ({OF_PLOT})"]),
        (
            {"tables": [{**TABLE, "y-axis": "x"}]},
            {},
            ["results.tables[0].y-axis (known are title, labels, values, merge)"],
        ),
        (
            {"images": [{"title": "I", "filename": "i.png", "digest": "x"}]},
            {},
            ["results.images[0].digest (known are title, filename)"],
        ),
        (
            {},
            {"tables": [], "version": 1},
            ["tables (it belongs into results)", "version (known are metadata, results)"],
        ),
    ],
)
def test_a_name_that_means_nothing_is_found(tmp_path: Path, results: Any, beside: Any, said: list[str]) -> None:
    assert named(tmp_path, results, **beside) == said


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": 3}', '{"results": {"tables": [3]}}', "\xff"])
def test_of_a_file_that_is_refused_nothing_is_said(tmp_path: Path, text: str) -> None:
    assert unknown_names(tmp_path) == []
    (tmp_path / "result.json").write_text(text, encoding="latin-1")
    assert unknown_names(tmp_path) == []


def test_a_report_without_its_envelope_is_told_of_both_parts() -> None:
    with pytest.raises(InvalidReport, match="metadata and results are missing"):
        parse_report(json.dumps({"tables": [TABLE]}).encode(), where="result.json")
