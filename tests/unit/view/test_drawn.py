"""What is drawn of a report is bounded, and says how much there is."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from flavor.view.drawn import MOST_BYTES, MOST_CELLS, MOST_LINES, MOST_POINTS, MOST_ROWS, drawn


def table(rows: int, title: str = "t", width: int = 1) -> dict[str, Any]:
    return {"title": title, "labels": [f"{n:0{width}}" for n in range(rows)], "values": list(range(rows))}


def test_what_is_small_is_drawn_whole() -> None:
    heatmap = {"title": "h", "x-labels": ["a"], "y-labels": ["b"], "values": [[1]]}
    plot = {"title": "p", "labels": ["l"], "x-values": [[0, 1]], "y-values": [[None, 1]]}
    given = {
        "tables": [table(2)],
        "bars": [table(1)],
        "heatmaps": [heatmap],
        "plots": [plot],
        "images": [{"title": ""}],
    }
    assert drawn(given) == {**given, "apart": [], "left_out": {}}


def test_what_is_large_is_cut_and_says_so() -> None:
    labels = [str(n) for n in range(100)]
    heatmap = {
        "title": "h",
        "x-labels": labels,
        "y-labels": labels[:80],
        "values": [[1] * 100] * 80,
        "counts": [[2] * 100] * 80,
    }
    found = drawn({"tables": [{**table(10_000), "counts": [1] * 10_000}], "heatmaps": [heatmap]})
    (cut,), (square,) = found["tables"], found["heatmaps"]
    assert (cut["whole"], len(cut["labels"]), cut["values"][-1], len(cut["counts"])) == (
        10_000,
        MOST_ROWS,
        MOST_ROWS - 1,
        MOST_ROWS,
    )
    assert square["whole"] == [80, 100]
    assert {len(square[name]) for name in ("x-labels", "y-labels", "values", "counts")} == {MOST_CELLS}
    assert {len(row) for name in ("values", "counts") for row in square[name]} == {MOST_CELLS}
    assert found["left_out"] == {}


def test_points_are_left_out_evenly_and_ends_stay() -> None:
    line = list(range(5000))
    plot = {"title": "p", "labels": ["l"] * 20, "x-values": [line] * 20, "y-values": [line[::-1]] * 20}
    (found,) = drawn({"plots": [plot]})["plots"]
    x, y = found["x-values"][0], found["y-values"][0]
    assert (found["whole"], len(found["labels"]), len(found["x-values"])) == ([20, 5000], MOST_LINES, MOST_LINES)
    assert (len(x), x[0], x[-1]) == (MOST_POINTS, 0, 4999)
    assert [a + b for a, b in zip(x, y, strict=True)] == [4999] * MOST_POINTS, "x and y of one point stay together"
    assert {b - a for a, b in pairwise(x)} == {5, 6}


def test_entries_beyond_the_bytes_of_an_answer_are_counted() -> None:
    many = [table(MOST_ROWS, title=str(n), width=200) for n in range(20)]
    found = drawn({"tables": many, "images": [{"title": "x"}] * 3, "apart": [{"title": str(n)} for n in range(300)]})
    kept = len(found["tables"])
    assert 0 < kept <= MOST_BYTES // (200 * MOST_ROWS)
    assert len(found["images"]) == 3, "what is small still finds room"
    assert found["left_out"] == {"tables": 20 - kept, "apart": 100}


def test_of_many_sites_the_first_are_named() -> None:
    sites = [str(n) for n in range(2000)]
    found = drawn({"tables": [{**table(1), "sites": sites}], "apart": [{"title": "x", "sites": sites[:3]}]})
    assert (len(found["tables"][0]["sites"]), found["tables"][0]["all_sites"]) == (20, 2000)
    assert (found["apart"][0]["sites"], found["apart"][0]["all_sites"]) == (sites[:3], 3)
