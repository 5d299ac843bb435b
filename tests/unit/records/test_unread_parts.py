"""Which sites whose results are lost have a part in what was merged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from flavor.cook.metrics import binary_counts
from flavor.records.info import CONFUSION
from flavor.records.lacking import Lacking, lacking_of
from flavor.records.merging import merge_infos
from flavor.records.reporters import parts_of
from flavor.records.unread_parts import UnreadPart, reported_unread, unread_parts, with_unread

GOOD = binary_counts([0, 1], [0.5, 0.75], bins=4)
KINDS: Mapping[str, Mapping[str, Any]] = {
    "good": {**GOOD, "loss": 0.5, "count/n": 1},
    "without labels": {"x": 1.0},
    "other bins": {**binary_counts([0, 1], [0.5, 0.75], bins=20), "loss": None},
    "impossible": {**GOOD, "count/binary/positives": [-1, 0, 0, 0], "loss": 0.25},
    "another kind, impossible": {"count/multiclass/confusion": [1, -1, 0, 0]},
}
NAMES = ["loss", "count/n", "pooled/auc", "pooled/accuracy", "no such metric"]


def merged_of(sites: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    own = {"metadata": {"datasetSize": 2, "epoch": 1, "importance": 1.0}}
    infos = [own | {"metrics": {**dict.fromkeys(CONFUSION, -1), **metrics}} for metrics in sites.values()]
    return dict(merge_infos([*sites], infos))


def federations() -> Iterator[tuple[dict[str, Mapping[str, Any]], tuple[str, ...]]]:
    """All federations of three sites of these kinds, and each choice of sites whose results are lost."""
    for kinds in itertools.combinations_with_replacement(KINDS, 3):
        sites = dict(zip("abc", (KINDS[kind] for kind in kinds), strict=True))
        for number in (1, 2):
            for lost in itertools.combinations(sites, number):
                yield sites, lost


def test_a_lost_site_that_is_not_in_the_merged_value_always_lacks_it() -> None:
    """By the results of all sites: none is taken for a part of a value that was merged without it."""
    known = 0
    for sites, lost in federations():
        truth, readable = parts_of(NAMES, sites), {site: of for site, of in sites.items() if site not in lost}
        found = unread_parts(NAMES, readable, lost, merged_of(sites))
        lacking = with_unread(lacking_of(NAMES, readable, {}), found)
        for name in NAMES:
            part, all_of = found[name], truth[name]
            assert {*part.merged, *part.left_out, *part.unknown} == {*lost}
            assert set(part.merged) <= set(all_of.merged), (name, sites, lost)
            assert set(part.left_out) <= set(all_of.left_out), (name, sites, lost)
            if all_of.merged and not set(lost) <= set(all_of.merged):
                assert lacking[name].words(name), (name, sites, lost)
            known += bool(part.merged)
    assert known > 100


def test_what_is_merged_of_all_is_that_of_a_lost_site_too() -> None:
    sites = {"a": {"loss": 0.5}, "b": {}, "c": {"loss": 0.25}}
    readable = {"a": sites["a"], "b": sites["b"]}
    found = unread_parts(["loss"], readable, ["c"], merged_of(sites))
    assert found == {"loss": UnreadPart(("c",), (), ())}
    assert with_unread(lacking_of(["loss"], readable, {}), found) == {"loss": Lacking()}
    assert reported_unread(found, {"c": ["x"], "a": ["x"]}) == {"c": ("loss", "x")}


@pytest.mark.parametrize("lost", [("b",), ("b", "c")])
def test_a_lost_site_may_lack_what_others_report(lost: tuple[str, ...]) -> None:
    sites = {"a": {"loss": 0.5}, "b": {"loss": None}, "c": {"loss": None}}
    readable = {site: of for site, of in sites.items() if site not in lost}
    found = unread_parts(["loss"], readable, lost, merged_of(sites))
    assert found == {"loss": UnreadPart((), (), lost)}
    assert reported_unread(found, {}) == {}
    said = with_unread(lacking_of(["loss"], readable, {}), found)["loss"].words("loss")
    assert {
        1: "loss is not a finite number at c; it is not known whether b has a value of loss: its result cannot be read",
        2: "it is not known whether b and c have a value of loss: their results cannot be read",
    }[len(lost)] in said
