"""One site's bad counts cost that site's count alone: the others' are merged, and no honest site is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flavor.cook.metrics import binary_counts, regression_sums
from flavor.records.info import Info, parse_info
from flavor.records.merging import merge_infos, not_merged, sites_of, summed
from flavor.records.reporters import reporters_of
from flavor.records.sound_counts import MOST_COUNTS, left_out_in, left_out_of
from workers.notes import of_counts

CELLS = {f"basic/confusion_{cell}": 1 for cell in ("tp", "fp", "fn", "tn")}
GOOD: dict[str, Any] = {
    **binary_counts([0, 1, 1, 0], [0.1, 0.9, 0.4, 0.6], bins=10),
    **regression_sums([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]),
    **CELLS,
    "count/own": [1, 2],
}
HONEST = ("alpha", "beta", "gamma")


def info(metrics: dict[str, Any]) -> Info:
    metadata = {"epoch": 1, "datasetSize": 4, "importance": 1}
    return parse_info(json.dumps({"metadata": metadata, "metrics": metrics}).encode(), where="test")


def merged(*honest: str, **others: dict[str, Any]) -> tuple[Info, dict[str, Info]]:
    infos = {name: info(GOOD) for name in honest} | {name: info({**GOOD, **of}) for name, of in others.items()}
    return merge_infos(list(infos), list(infos.values())), infos


BAD = [
    ({"count/binary/confusion": [-1, 1, 1, 1]}, ["count/binary/confusion"], "accuracy", "it has -1: numbers"),
    ({"count/binary/confusion": [1, 1, 1]}, ["count/binary/confusion"], "accuracy", "it has 3 numbers: 4 are"),
    ({"count/binary/confusion": 7}, ["count/binary/confusion"], "accuracy", "it is a number: a list is needed"),
    ({"count/binary/confusion": [1e300] * 4}, ["count/binary/confusion"], "accuracy", "1e+300 examples, and 1e+12"),
    ({"count/binary/positives": [0.5] + [0] * 9}, ["count/binary/positives"], "auc", "it has 0.5: numbers"),
    ({"count/binary/squared_error": [4, -1e9]}, ["count/binary/squared_error"], "brier", "are not negative"),
    ({"count/binary/calibration": [1.0] * 29}, ["count/binary/calibration"], "ece", "30 are needed"),
    (
        {"count/binary/negatives": [1] * 7},
        ["count/binary/negatives", "count/binary/positives"],
        "auc",
        "there are 10 bins of positives, and 7 of negatives",
    ),
    (
        {f"count/binary/{each}": [2, *[0] * 19] for each in ("positives", "negatives")},
        ["count/binary/negatives", "count/binary/positives"],
        "auc",
        "a list of 20, and that of most sites is a list of 10: let all sites use the same",
    ),
    (
        {"count/binary/confusion.same": 0.7},
        ["count/binary/confusion"],
        "accuracy",
        "count/binary/confusion.same 0.7, and that of most sites is a list of 4 with",
    ),
    (
        {"count/regression/y.moments": [99, 2.0, 2.0]},
        ["count/regression/y.moments"],
        "r2",
        "it is of 99 values, and the errors of 3",
    ),
    ({"count/regression/y.moments": [3, 1e200, 2.0]}, ["count/regression/y.moments"], "r2", "too large to be added"),
    ({"count/regression/errors": [3, -1.0, 1.0]}, ["count/regression/errors"], "rmse", "it has -1.0: sums"),
    ({"basic/confusion_tp": 0.5}, ["basic/confusion_tp"], "basic/accuracy", "it has 0.5: numbers of examples"),
    ({"basic/confusion_fn": -7}, ["basic/confusion_tp"], "basic/accuracy", "it has -7: numbers of examples"),
]


@pytest.mark.parametrize(("change", "names", "metric", "why"), BAD)
def test_a_bad_count_of_one_site_is_that_site_s_loss_alone(
    change: dict[str, Any], names: list[str], metric: str, why: str
) -> None:
    honest, _ = merged(*HONEST)
    found, infos = merged(*HONEST, mallory=change)
    assert not_merged(found) == {}
    assert sorted(left_out_of(found)["mallory"]) == names
    assert list(left_out_of(found)) == ["mallory"]
    assert why in left_out_of(found)["mallory"][names[0]]
    assert found["metrics"][f"pooled/{metric}"] == honest["metrics"][f"pooled/{metric}"], "that of the others"
    few, sites = sites_of(found)
    assert (few[f"pooled/{metric}"], sites) == (3, 4)
    other = "rmse" if "binary" in names[0] else "brier"
    assert f"pooled/{other}" not in few, "what is sound of the site counts on"
    (told,) = of_counts(found, infos)
    assert told.startswith("warning: counts are left out of what is merged: mallory's ")
    assert any(name in told for name in names)
    assert not any(name in told for name in HONEST)


BINARY, MULTICLASS, BASIC = "count/binary/confusion", "count/multiclass/confusion", "count/basic/binary/confusion"
NOTHING = {**dict.fromkeys(GOOD), **dict.fromkeys(CELLS, -1)}
OTHER_KINDS = [
    (MULTICLASS, BINARY, ["accuracy"]),
    (BASIC, "basic/confusion_tp", ["basic/accuracy", "basic/f1"]),
]


@pytest.mark.parametrize("without", [0, 5])
@pytest.mark.parametrize(("name", "usual", "metrics"), OTHER_KINDS)
def test_another_kind_of_counts_of_one_site_removes_nothing(
    name: str, usual: str, metrics: list[str], without: int
) -> None:
    """Also where most sites report no counts, such as those without labels: they have no say."""
    empty = {f"no-labels-{at}": NOTHING for at in range(without)}
    honest, _ = merged(*HONEST, **empty, mallory=NOTHING)
    found, infos = merged(*HONEST, **empty, mallory={**NOTHING, name: [1, 0, 0, 1]})
    for metric in metrics:
        assert found["metrics"][f"pooled/{metric}"] == honest["metrics"][f"pooled/{metric}"]
        assert sites_of(found)[0][f"pooled/{metric}"] == len(HONEST)
    why = f"most sites with such counts report {usual}: give it another name (name=…)"
    assert (left_out_of(found), not_merged(found)) == ({"mallory": {name: why}}, {name: f"of a site: {why}"})
    *_, told = of_counts(found, infos)
    assert told == f"warning: counts are left out of what is merged: mallory's {name} ({why})"


def test_a_site_with_two_kinds_of_counts_keeps_that_of_most_sites() -> None:
    found, _ = merged(*HONEST, mallory={MULTICLASS: [1, 0, 0, 1]})
    assert list(left_out_of(found)["mallory"]) == [MULTICLASS]
    assert "pooled/accuracy" not in sites_of(found)[0], "its binary counts are of the kind of most"


def test_of_two_kinds_of_counts_without_a_majority_each_site_is_named() -> None:
    found, infos = merged("alpha", mallory={**NOTHING, MULTICLASS: [1, 0, 0, 1]})
    assert left_out_of(found) == {}
    assert "pooled/accuracy" not in found["metrics"]
    (told,) = of_counts(found, infos)
    assert told.startswith("warning: the metric pooled/accuracy is not merged: two kinds of counts give it, ")
    assert told.endswith(f" (alpha: {BINARY}; mallory: {MULTICLASS})")


@pytest.mark.parametrize("value", [0.7, [0.7]])
def test_a_setting_has_no_setting_of_its_own(value: object) -> None:
    honest, _ = merged(*HONEST, mallory={})
    found, _ = merged(*HONEST, mallory={f"{BINARY}.same.same": value})
    assert found["metrics"][f"{BINARY}.same"] == honest["metrics"][f"{BINARY}.same"] == [0.5]
    assert (left_out_of(found), not_merged(found)) == ({}, {})


def test_without_a_majority_no_site_is_left_out() -> None:
    found, infos = merged("alpha", beta={"count/own": [1, 2, 3]})
    assert left_out_of(found) == {}
    assert list(not_merged(found)) == ["count/own"]
    (told,) = of_counts(found, infos)
    assert "(alpha: a list of 2; beta: a list of 3)" in told


def test_what_only_bad_sites_report_is_not_merged_with_the_reason() -> None:
    found, _ = merged("alpha", mallory={"count/x/binary/confusion": [-1, 0, 0, 0]})
    assert not_merged(found) == {
        "count/x/binary/confusion": "of a site: it has -1: numbers of examples are whole, and not negative"
    }
    assert list(left_out_of(found)) == ["mallory"]


def test_other_sites_read_of_no_site_that_it_was_left_out_and_no_lone_list() -> None:
    found, _ = merged("alpha", mallory={"count/binary/confusion": [-1, 1, 1, 1], "basic/confusion_fn": -7})
    public = summed(found)
    assert "mallory" not in json.dumps(public)
    assert "count/binary/confusion" not in public["metrics"], "it would be alpha's own"
    assert public["metrics"]["basic/confusion_fn"] == [1]


def test_many_sites_and_names_are_bounded() -> None:
    bad = {f"count/{each}/binary/confusion": [-1, 0, 0, 0] for each in range(20)}
    found, infos = merged("alpha", **{f"m{each}": bad for each in range(60)})
    assert len(left_out_of(found)) == 50
    assert {len(why) for why in left_out_of(found).values()} == {MOST_COUNTS}
    told = list(of_counts(found, infos))[-1]
    assert told.endswith(" and of 45 more sites")
    assert len(told) < 2000


def test_who_reports_a_metric_is_known_also_where_one_site_is_left_out() -> None:
    found, infos = merged(*HONEST, mallory={f"count/binary/{each}": [1] * 20 for each in ("positives", "negatives")})
    metrics = {site: of["metrics"] for site, of in infos.items()}
    few = sites_of(found)[0]
    assert reporters_of(infos, few, metrics)["pooled/auc"] == reporters_of(HONEST)[""]


@pytest.mark.parametrize("odd", [None, 3, [], {"a": 3}, {"a": [1]}])
def test_what_was_written_by_others_is_read_as_far_as_it_can_be(odd: object) -> None:
    assert left_out_in(odd) == {}
    assert left_out_in({3: {"count/x": 5}, "b": None}) == {"3": {"count/x": "5"}}
