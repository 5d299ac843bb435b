"""What the operator is told of metrics that are not merged: also which sites are the others."""

from __future__ import annotations

from typing import Any

import pytest

from flavor.records.merging import merge_infos
from tests.driven import info
from workers.notes import of_counts


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        (
            {"s1": {"count/n": [1, 2]}, "s2": {"count/n": [3, 4]}, "s3": {"count/n": [5]}},
            "s3's count/n (it is a list of 1, and that",
        ),
        (
            {"s1": {"count/n": 1}, "s2": {"count/n": [3, 4]}, "s3": {"count/n": 7}},
            "s2's count/n (it is a list of 2, and that",
        ),
        ({"s1": {"count/n": [1]}, "s2": {"count/n": [3, 4]}, "s3": {}}, "(s1: a list of 1; s2: a list of 2)"),
        (
            {f"s{each}": {"count/n": [0] * length} for each, length in enumerate((1, 1, 2, 2, 3))},
            "(s0, s1: a list of 1; s2, s3: a list of 2; s4: a list of 3)",
        ),
        (
            {f"s{each}": {"count/n": 1, "count/n.same": at} for each, at in enumerate((0.5, 0.5, 0.7))},
            "s2's count/n (it is a number with count/n.same 0.7, and that",
        ),
        ({"s1": {"central/accuracy": 1.0}, "s2": {}}, "operator's own data (s1)"),
    ],
)
def test_the_sites_are_named_whose_metric_differs(sites: dict[str, dict[str, Any]], said: str) -> None:
    infos = {site: info(10, metrics) for site, metrics in sites.items()}
    (note,) = of_counts(merge_infos(list(infos), list(infos.values())), infos)
    assert said in note


def test_sites_that_do_the_same_are_not_named() -> None:
    infos = {site: info(10, {"count/n": 1e300}) for site in "abcdefghijk"}
    (note,) = of_counts(merge_infos(list(infos), list(infos.values())), infos)
    assert note.endswith("the sum is too large")
