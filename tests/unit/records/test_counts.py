"""Counts in an info.json: what is refused, and how they are merged."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flavor.errors import InvalidInfo
from flavor.records.counts import NotMerged, merged_count, merged_moments
from flavor.records.info import CONFUSION, checked_info, info_bytes, parse_info
from flavor.records.merging import merge_infos, not_merged, summed
from tests.lazy import Lazy

torch = Lazy("torch")

ABOUT = {"metadata": {"epoch": 1, "datasetSize": 3, "importance": 1.0}}


def checked(**metrics: Any) -> dict[str, Any]:
    metadata = {"epoch": 1, "datasetSize": 3, "importance": 1.0}
    return checked_info({"metadata": metadata, "metrics": {name.replace("__", "/"): v for name, v in metrics.items()}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (2.5, 2.5),
        (None, None),
        ([1, 2.5], [1, 2.5]),
        ((1, 2), [1, 2]),
        ([], []),
        (np.arange(3), [0, 1, 2]),
        (np.array([7]), [7]),
        (np.float32(0.5), 0.5),
        (lambda: torch.tensor([1, 2]), [1, 2]),
        (lambda: [np.int64(3), np.float32(0.5), torch.tensor(2)], [3, 0.5, 2]),
        ([10**200], [10**200]),
    ],
)
def test_a_count_is_a_number_or_a_flat_list(value: Any, expected: Any) -> None:
    info = checked(count__x=value() if callable(value) else value)
    assert info["metrics"]["count/x"] == expected
    assert type(info["metrics"]["count/x"]) is type(expected)
    assert parse_info(info_bytes(info), where="again") == info


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, float("nan")], "metrics['count/x'] has nan at position 1: finite numbers are needed"),
        ([1e301], "has 1e+301 at position 0"),
        ([-(10**400)], "at position 0: finite numbers are needed"),
        ([1, None], "has None (NoneType) at position 1, and no number"),
        ([True], "has True (bool) at position 0"),
        (np.array([True]), "has True (bool) at position 0"),
        (["1"], "has '1' (str) at position 0, and no number"),
        ([[1], [2]], "must be a flat list of numbers"),
        (np.ones((2, 2)), "must be a flat list of numbers"),
        ([0] * 10_001, "has 10001 numbers, and 10000 at most are taken: use fewer bins or classes"),
        ("3", "must be a number, not '3'"),
        ({}, "must be a number, not {}"),
    ],
)
def test_what_is_no_count_is_named(value: Any, said: str) -> None:
    with pytest.raises(InvalidInfo) as caught:
        checked(count__x=value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [3, [1, 2], [-1, 0, 0], [1, 0, -1]])
def test_moments_are_three_numbers(value: Any) -> None:
    with pytest.raises(InvalidInfo, match=r"metrics\['count/y.moments'\] must be"):
        checked(**{"count__y.moments": value})


def test_only_counts_may_be_lists() -> None:
    with pytest.raises(InvalidInfo, match=r"metrics\['loss'\] is a list, which only counts may be, whose names begin"):
        checked(loss=[1, 2], count__x=1)


def test_the_cells_may_be_left_out_only_together_and_only_with_counts() -> None:
    assert checked(count__x=1)["metrics"].items() >= dict.fromkeys(CONFUSION, -1).items()
    with pytest.raises(InvalidInfo, match="confusion_fp"):
        checked(count__x=1, **{"basic/confusion_tp": 3})
    with pytest.raises(InvalidInfo, match="confusion_tp"):
        checked(loss=1)


def test_sums_are_exact() -> None:
    assert merged_count("count/x", [2**60, 1, 2**60]) == 2**61 + 1
    assert merged_count("count/x", [[0.1, 1], [0.2, 2**60], [0.3, 1]]) == [0.6, 2**60 + 2]
    assert merged_count("count/x", [0.1] * 10) == 1.0


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("count/x", [1, [1]], "some sites report a number, and others a list"),
        ("count/x", [[1], [1, 2], [1, 2, 3], [], [1] * 9], r"different lengths \(0, 1, 2, …\)"),
        ("count/x.same", [1, 2], "different values of 'count/x.same' \\(1, 2\\)"),
        ("count/x", [1e300, 1e300], "the sum is too large"),
        ("count/x.moments", [[1, 1e300, 0], [1, -1e300, 0]], "the sum is too large"),
    ],
)
def test_what_does_not_go_together_is_not_merged(name: str, values: Any, said: str) -> None:
    with pytest.raises(NotMerged, match=said):
        merged_count(name, values)


def test_the_merged_information_has_sums_and_says_what_it_lacks() -> None:
    infos = [checked(count__x=1, count__h=[1, 2], count__odd=[1]), checked(count__x=2, count__odd=2, loss=1.0)]
    merged = merge_infos(["a", "b"], infos)
    assert {name: value for name, value in merged["metrics"].items() if name.startswith("count/")} == {
        "count/x": 3,
        "count/h": [1, 2],
    }
    assert merged["metadata"]["metricSites"] == {"count/h": 1, "loss": 1}
    assert not_merged(merged) == {"count/odd": "some sites report a number, and others a list"}
    assert not_merged({"metadata": {}}) == {}


def test_a_site_reads_no_list_that_another_alone_reports() -> None:
    both = {"count/both": [1, 2], "count/number": 3}
    infos = [checked_info({**ABOUT, "metrics": each}) for each in ({**both, "count/x": [1]}, both, {"count/none": 0})]
    merged = merge_infos(["a", "b", "c"], infos)
    public = summed(merged)
    assert merged["metrics"]["count/x"] == [1]
    assert "count/x" not in public["metrics"]
    assert (public["metrics"]["count/both"], public["metrics"]["count/number"]) == ([2, 4], 6)
    assert not_merged(public) == {"count/x": "one site alone reports it: the sum would be that site's own"}
    assert not_merged(merged) == {}
    only = summed(merge_infos(["a"], infos[:1]))["metrics"]
    assert "count/both" not in only, "the site was alone in the round, and others read this"
    assert only["count/number"] == 3


def test_an_equal_setting_stays() -> None:
    infos = [checked(**{"count__x": 1, "count__x.same": [0.5]})] * 2
    merged = merge_infos(["a", "b"], infos)["metrics"]
    assert (merged["count/x"], merged["count/x.same"]) == (2, [0.5])


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=8), min_size=1, max_size=5))
def test_moments_of_parts_are_those_of_all_values(parts: list[list[float]]) -> None:
    of = [[len(part), float(np.mean(part)), float(np.var(part) * len(part))] if part else [0, 0, 0] for part in parts]
    n, mean, apart = merged_moments(of)
    values = np.concatenate([*map(np.asarray, parts), []])
    assert n == len(values)
    if n:
        scale = float(np.abs(values).max())
        least = sys.float_info.min  # half of the smallest number that there is, is none
        assert mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-12 * scale + least)
        assert apart == pytest.approx(values.var() * n, rel=1e-9, abs=1e-12 * scale * scale + least)
    json.dumps([n, mean, apart], allow_nan=False)
