"""Client information: what is refused, and how infos are merged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flavor.errors import InvalidInfo
from flavor.records.info import (
    CONFUSION,
    LONGEST_NAME,
    MAX_BYTES,
    MOST_METRICS,
    checked_info,
    info_bytes,
    parse_info,
    read_info,
)
from flavor.records.merging import merge_infos, not_merged, summed
from flavor.records.not_finite import not_finite_of
from tests.lazy import Lazy

torch = Lazy("torch")


def info(**metrics: float) -> dict[str, Any]:
    return {
        "metadata": {"epoch": 1, "datasetSize": 100, "importance": 1.0},
        "metrics": {**dict.fromkeys(CONFUSION, -1), **metrics},
    }


def test_a_good_info_passes_unchanged() -> None:
    assert checked_info(info(mIOU=0.85)) == info(mIOU=0.85)


def test_numpy_scalars_become_plain_numbers() -> None:
    value = info(f1=np.float32(0.5))
    value["metadata"]["epoch"] = np.int64(3)
    checked = checked_info(value)
    assert json.loads(json.dumps(checked))["metadata"]["epoch"] == 3
    assert type(checked["metrics"]["f1"]) is float


@pytest.mark.parametrize(
    "missing",
    [None, float("nan"), float("inf"), np.float32("nan"), np.array(np.nan), lambda: torch.tensor(float("nan"))],
)
def test_a_metric_that_is_no_number_is_missing_at_that_site(missing: Any) -> None:
    """The AUC of a site with one class; handed in by SaveInfoJson, or as Python's own json.dump writes it."""
    missing = missing() if callable(missing) else missing
    odd = checked_info(info(auc=missing, acc=0.5))
    assert odd["metrics"]["auc"] is None
    assert parse_info(json.dumps(odd).encode(), where="info.json") == odd
    if missing is None or isinstance(missing, float):
        assert parse_info(json.dumps(info(auc=missing, acc=0.5)).encode(), where="info.json") == odd
    good = info(auc=0.8, acc=0.7)
    merged = merge_infos(["a", "b", "c"], [odd, good, info(auc=0.6, acc=0.6)])
    assert merged["metrics"]["auc"] == merged["metrics"]["auc (weighted)"] == pytest.approx(0.7)
    assert merged["metadata"]["metricSites"] == {"auc": 2}
    assert "metricSites" not in merge_infos(["b"], [good])["metadata"]
    alone = merge_infos(["a"], [odd])
    assert "auc" not in alone["metrics"]
    assert alone["metadata"]["metricSites"] == {"auc": 0}
    json.dumps(merged, allow_nan=False)


def test_numpys_and_torchs_scalars_are_taken_in_metadata() -> None:
    value = info()
    given = {"lr": np.float32(0.5), "step": np.int64(3), "loss": torch.tensor(0.25), "one": np.array([7])}
    value["metadata"] |= {**given, "best": np.float64("nan"), "site": np.str_("a"), "ok": np.bool_(True)}
    plain = checked_info(value)["metadata"]
    expected = {"lr": 0.5, "step": 3, "loss": 0.25, "one": 7, "best": None, "site": "a", "ok": True}
    assert {name: plain[name] for name in expected} == expected
    assert type(plain["site"]) is str
    json.dumps(plain, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("metadata"), "metadata is missing"),
        (lambda v: v.pop("metrics"), "metrics is missing"),
        (lambda v: v.update(metrics=[1]), "metrics must be a dict, not list"),
        (lambda v: v["metadata"].pop("epoch"), "metadata.epoch is missing"),
        (lambda v: v["metadata"].update(epoch=1.5), "metadata.epoch must be an int, not 1.5"),
        (lambda v: v["metadata"].update(epoch=True), "metadata.epoch must be an int, not True"),
        (lambda v: v["metadata"].update(datasetSize=-1), "datasetSize must not be negative"),
        (lambda v: v["metadata"].update(datasetSize=10**30), "absurdly large"),
        (lambda v: v["metadata"].pop("importance"), "'importance'] is missing"),
        (
            lambda v: v["metrics"].pop("basic/confusion_tn"),
            "metrics lacks 'basic/confusion_tn': report",
        ),
        (lambda v: v["metrics"].update(f1="0.5"), "'f1'] must be a number, not '0.5'"),
        (lambda v: v["metrics"].update(f1=1e301), "'f1'] is 1e+301"),
        (lambda v: v["metrics"].update(f1=np.ones(2)), "'f1'] must be a number"),
        (lambda v: v["metadata"].update(importance=float("nan")), "'importance'] is nan"),
        (lambda v: v["metadata"].update(importance=None), "'importance'] must be a number"),
        (lambda v: v["metadata"].update(note=object()), "must be a text or a number"),
        *(
            (lambda v, steps=steps: v["metadata"].update(localSteps=steps), f"metadata.localSteps is {steps!r}")
            for steps in (0, -4, True, float("nan"), 1e308, 10**13, None, "40")
        ),
    ],
)
def test_each_bad_field_is_named(change: Any, said: str) -> None:
    value = info(f1=0.5)
    change(value)
    with pytest.raises(InvalidInfo) as caught:
        checked_info(value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_bad_fields_are_named_at_once() -> None:
    with pytest.raises(InvalidInfo) as caught:
        checked_info({"metadata": {}, "metrics": {}})
    assert str(caught.value).count("is missing") == 3
    assert all(f"'basic/confusion_{cell}'" in str(caught.value) for cell in ("tp", "fp", "fn", "tn"))


@given(st.text(max_size=40))
def test_any_text_is_an_info_or_one_line(text: str) -> None:
    with pytest.raises(InvalidInfo):
        parse_info(text.encode(), where="info.json")


def test_deep_nesting_is_one_line_too() -> None:
    with pytest.raises(InvalidInfo):
        parse_info(b"[" * 60_000, where="info.json")


def test_an_info_is_bounded_in_bytes_and_its_names_too(tmp_path: Path) -> None:
    path = tmp_path / "info.json"
    path.write_text(json.dumps(info()) + " " * MAX_BYTES)
    with pytest.raises(InvalidInfo, match="larger than 65536 bytes"):
        read_info(path)
    wide = info()
    wide["metadata"]["note"] = "\N{SNOWMAN}" * (MAX_BYTES // 3)  # fewer characters than bytes
    with pytest.raises(InvalidInfo, match="larger than 65536 bytes"):
        parse_info(json.dumps(wide, ensure_ascii=False).encode(), where="info.json")
    with pytest.raises(InvalidInfo, match="and 65536 at most are taken"):
        info_bytes(wide)
    for part in ("metadata", "metrics"):
        named = info()
        named[part]["x" * (LONGEST_NAME + 1)] = 1
        with pytest.raises(InvalidInfo, match="has 201 characters"):
            checked_info(named)


@pytest.mark.parametrize(
    "odd",
    [
        *("\ud800", "\x00", "\x1b[31m", "\n", "\x9b", "\u202e", "\u200b", "\ufeff", "\u2028"),
        *("\u034f", "\u3164", "\uffa0", "\ufe0f", "\u2800", "\U000e0100"),
    ],
)
@pytest.mark.parametrize("part", ["metadata", "metrics"])
def test_a_name_that_cannot_be_seen_is_refused_in_one_line(part: str, odd: str) -> None:
    named = info(acc=0.5)
    named[part][f"loss{odd}"] = 1.0
    for refused in (checked_info, lambda value: parse_info(json.dumps(value).encode(), where="info.json")):
        with pytest.raises(InvalidInfo, match="has characters that cannot be seen") as caught:
            refused(named)
        assert str(caught.value).isprintable()
        assert ascii(f"loss{odd}")[1:-1] in str(caught.value)
    del named[part][f"loss{odd}"]
    for blank in ("", "  "):
        with pytest.raises(InvalidInfo, match=f"^info: {part} has an entry whose name is empty: give it one$"):
            checked_info({**named, part: {**named[part], blank: 1.0}})


def test_names_of_all_scripts_are_taken_and_as_many_as_somebody_could_read() -> None:
    names = [
        "Grüße",
        "精度",
        "F\N{SUBSCRIPT ONE}",
        "val loss",
        "a\N{NO-BREAK SPACE}b",
        "\N{GREEK SMALL LETTER ALPHA}/β",
        "🎯",
    ]
    assert set(names) < set(checked_info(info(**dict.fromkeys(names, 0.5)))["metrics"])
    full = info(**{f"m{number}": 1.0 for number in range(MOST_METRICS - 4)})
    assert len(checked_info(full)["metrics"]) == MOST_METRICS
    full["metrics"]["one"] = 1.0
    with pytest.raises(InvalidInfo, match="there are 2049 metrics, and 2048 at most are taken: report fewer"):
        checked_info(full)


def test_a_metric_of_each_of_a_thousand_classes_has_room() -> None:
    full = info(**{f"recall/class-{number:04}": number / 1777 for number in range(1000)})
    assert len(info_bytes(checked_info(full))) < MAX_BYTES


def test_the_line_on_many_bad_fields_ends() -> None:
    with pytest.raises(InvalidInfo, match=r"; and 80 more$"):
        checked_info(info(**{f"m{number}": "x" for number in range(100)}))  # type: ignore[arg-type]


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "info.json"
    path.write_text(json.dumps(info())[:40])
    with pytest.raises(InvalidInfo, match="not complete JSON"):
        read_info(path)
    with pytest.raises(InvalidInfo, match="call SaveInfoJson"):
        read_info(tmp_path / "absent.json")


def test_merging_follows_the_seed() -> None:
    a, b = info(acc=0.5, only_a=2.0), info(acc=0.9)
    b["metadata"].update(epoch=7, datasetSize=300)
    a["metrics"]["basic/confusion_tp"] = 4
    merged = merge_infos(["a", "b"], [a, b])
    assert merged["metadata"]["epoch"] == 1
    assert merged["metadata"]["datasetSize"] == [100, 300]
    assert merged["metadata"]["clients"] == ["a", "b"]
    assert merged["metrics"]["basic/confusion_tp"] == [4, -1]
    assert merged["metrics"]["acc"] == pytest.approx(0.7)
    assert merged["metrics"]["acc (weighted)"] == pytest.approx(0.8)
    assert merged["metrics"]["only_a"] == merged["metrics"]["only_a (weighted)"] == 2.0


def test_nobody_gives_out_the_mean_as_weighted() -> None:
    honest, evil = info(loss=1.0), info(**{"loss": 1.0, "loss (weighted)": -777.0})
    merged = merge_infos(["a", "b"], [honest, evil])["metrics"]
    assert merged["loss"] == merged["loss (weighted)"] == 1.0
    assert not [name for name in merged if name.count("(weighted)") > 1]
    alone = merge_infos(["a", "b"], [honest, info(**{"acc (weighted)": 1e300, "loss (weighted) (weighted)": 1.0})])
    assert [name for name in alone["metrics"] if "acc" in name or name.count("(weighted)") > 1] == []
    assert not_merged(alone)["acc (weighted)"] == "names that end with ' (weighted)' are those of means over the sites"


def test_merging_without_any_examples_is_the_plain_mean() -> None:
    a, b = info(acc=0.5), info(acc=0.9)
    a["metadata"]["datasetSize"] = b["metadata"]["datasetSize"] = 0
    assert merge_infos(["a", "b"], [a, b])["metrics"]["acc (weighted)"] == pytest.approx(0.7)


def test_a_site_reads_sums_and_nothing_of_another() -> None:
    a, b, c = info(acc=0.5), info(acc=0.9), info(acc=0.7)
    a["metrics"]["basic/confusion_tp"], b["metrics"]["basic/confusion_tp"] = 4, 5
    b["metadata"].update(datasetSize=300, importance=2.0)
    merged = merge_infos(["a", "b", "c"], [a, b, c])
    public = summed(merged)
    assert public["metadata"] == {"epoch": 1, "datasetSize": [500], "importance": [4.0], "sites": 3}
    assert public["metrics"]["basic/confusion_tp"] == [9]
    assert public["metrics"]["basic/confusion_fp"] == [-1], "nobody tracks it"
    assert public["metrics"]["acc"] == merged["metrics"]["acc"]
    assert merged["metadata"]["clients"] == ["a", "b", "c"], "the aggregator's own stays"


@pytest.mark.parametrize("value", [1e308, -1e308, 10**400, float("nan")])
def test_a_number_that_is_too_large_is_told_the_bound(value: float) -> None:
    infos = {
        "metadata": {"epoch": 1, "datasetSize": 1, "importance": value},
        "metrics": dict.fromkeys(CONFUSION, -1),
    }
    with pytest.raises(
        InvalidInfo, match=r"metadata\['importance'\] is \S+: a finite number is needed, of 1e\+\d+ at most"
    ):
        checked_info(infos)


@pytest.mark.parametrize(("name", "number"), [("datasetSize", 10**12 + 1), ("epoch", 2**63), ("epoch", -(2**63))])
def test_the_largest_number_is_one_that_every_reader_takes(name: str, number: int) -> None:
    value = info()
    value["metadata"][name] = number
    with pytest.raises(InvalidInfo, match=rf"metadata\.{name} is absurdly large"):
        checked_info(value)
    value["metadata"][name] = number - 1 if number > 0 else number + 1
    assert checked_info(value)["metadata"][name] == value["metadata"][name]


@pytest.mark.parametrize(
    ("value", "sizes"), [(1.0, [65, 34, 3]), (0.1, [27, 83, 11]), (0.7, [4, 24, 106]), (0.9, [42, 30, 116])]
)
def test_the_means_of_equal_values_are_that_value(value: float, sizes: list[int]) -> None:
    infos = [
        {"metadata": {"epoch": 1, "datasetSize": size, "importance": 1.0}, "metrics": {"accuracy": value}}
        for size in sizes
    ]
    merged = merge_infos([str(size) for size in sizes], infos)["metrics"]
    assert (merged["accuracy"], merged["accuracy (weighted)"]) == (value, value)


def test_only_the_confusion_matrix_is_a_list_of_the_sites() -> None:
    one, two = (info(**{"basic/accuracy": value}) for value in (0.5, 0.75))
    merged = merge_infos(["a", "b"], [one, two])
    assert merged["metrics"]["basic/accuracy"] == 0.625
    assert summed(merged)["metrics"]["basic/accuracy"] == 0.625
    assert isinstance(merged["metrics"]["basic/confusion_tp"], list)


def test_the_four_cells_that_a_script_leaves_out_are_told_of_once_with_the_ways_out() -> None:
    with pytest.raises(InvalidInfo) as found:
        checked_info({"metadata": {"epoch": 0, "datasetSize": 1, "importance": 1.0}, "metrics": {"f1": 0.5}})
    said = str(found.value)
    assert said.startswith("info: metrics lacks 'basic/confusion_tp', 'basic/confusion_fp', 'basic/confusion_fn', ")
    assert "-1 each if the script does not count them" in said
    assert "binary_counts(labels, scores)" in said
    assert said.count("confusion_tp") == 1


def test_which_metrics_are_infinite_or_nan_is_kept_beside_them() -> None:
    metrics = {
        **dict.fromkeys(CONFUSION, -1),
        "a": math.inf,
        "b": np.float32(-np.inf),
        "c": math.nan,
        "d": None,
        "e": 1,
    }
    given = {"metadata": {"epoch": 1, "datasetSize": 2, "importance": 1}, "metrics": metrics}
    found = checked_info(given)
    words = {"a": "Infinity", "b": "-Infinity", "c": "NaN"}
    assert not_finite_of(found) == words
    read = parse_info(info_bytes(found), where="info.json")
    assert read == found
    assert b"NaN}" not in info_bytes(found), "it is valid JSON"
    assert not_finite_of(parse_info(json.dumps(given | {"metrics": {**metrics, "b": None}}).encode(), where="")) == {
        "a": "Infinity",
        "c": "NaN",
    }


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "7", '{"e": "NaN"}', '{"x": "NaN"}', '{"d": "inf"}', '{"d": 7}', '{"d": null}', 7, None),
        *('{"d": []}', '{"d": {}}', '{"x": ["NaN"]}', '{"d": "null"}'),
    ],
)
def test_what_a_site_says_of_values_that_are_not_finite_may_be_anything(text: object) -> None:
    metrics = {**dict.fromkeys(CONFUSION, -1), "d": None, "e": 1}
    metadata = {"epoch": 1, "datasetSize": 2, "importance": 1, "notFinite": text}
    assert not_finite_of(checked_info({"metadata": metadata, "metrics": metrics})) == {}
