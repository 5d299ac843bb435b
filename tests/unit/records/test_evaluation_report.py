"""result.json: what is read, what is refused and in which words, and what several of them merge to."""

from __future__ import annotations

import json
import math
import re
from copy import deepcopy
from typing import Any

import pytest

from flavor.errors import InvalidInfo
from flavor.records.evaluated_info import contradiction, report_digest, with_report, without_report
from flavor.records.evaluation_report import MAX_BYTES, MOST_IMAGES, MOST_OF_A_KIND
from flavor.records.images import picture_of
from flavor.records.info import checked_info, completed
from flavor.records.merged_report import merge_reports
from flavor.records.not_finite import not_finite_of
from flavor.records.report_parser import parse_report
from tests.fuzz.report_target import GOOD_REPORT
from tests.infos import png


def read(value: Any, **options: Any):
    return parse_report(json.dumps(value).encode(), where="result.json", **options)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good report with another value at this path, such as `results.tables.0.title`."""
    report: Any = deepcopy(GOOD_REPORT)
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at = report
    for part in above:
        at = at[part]
    if value is KeyError:
        del at[last]
    else:
        at[last] = value
    return report


def of(**results: Any) -> dict[str, Any]:
    return {"metadata": {"datasetSize": 10}, "results": results}


def test_the_example_of_the_ancestors_guide_is_read_and_written_again():
    report = read(GOOD_REPORT, is_sealed=True)
    assert report.dataset_size == 33
    assert report.metrics == {"Overall/Accuracy": 0.75, "Overall/AUC": None}
    written = report.to_plain()
    for kind, entries in GOOD_REPORT["results"].items():
        for given, found in zip(entries, written["results"][kind], strict=True):
            assert {**found, **given} == found
    assert read(written, is_sealed=True) == report


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("metadata.datasetSize", KeyError, "metadata.datasetSize is missing"),
        ("metadata.datasetSize", 1.5, "metadata.datasetSize must be an int"),
        ("metadata.datasetSize", True, "metadata.datasetSize must be an int"),
        ("metadata.datasetSize", 2**62, "metadata.datasetSize must be 0 or more, and 1000000000000 at most"),
        ("metadata.datasetSize", -1, "metadata.datasetSize must be 0 or more"),
        ("results", KeyError, ": results is missing"),
        ("results.tables", {}, "results.tables must be a list, not dict"),
        ("results.tables.0", 3, "results.tables[0] must be an object"),
        ("results.tables.0.title", KeyError, "results.tables[0].title is missing"),
        ("results.tables.0.title", "x" * 201, "results.tables[0].title has 201 characters"),
        ("results.tables.0.title", "a\x1b[31m", "results.tables[0].title has characters that cannot be seen"),
        ("results.tables.0.title", "a\u3164", "results.tables[0].title has characters that cannot be seen"),
        ("results.tables.0.title", "count", "names that begin with 'count' have a meaning of their own"),
        ("results.tables.0.title", "pooled/x", "names that begin with 'pooled' have a meaning of their own"),
        (
            "results.tables.0.labels",
            ["a", "a"],
            "labels[1] makes the metric 'Overall/a', as results.tables[0].labels[0]",
        ),
        ("results.tables.0.labels", ["a", "b (weighted)"], "labels[1] ends with ' (weighted)'"),
        ("results.tables.0.labels", ["a"], "results.tables[0] has 1 labels and 2 values: one value for each label"),
        ("results.tables.0.values", [1, "2"], "results.tables[0].values[1] must be a number, or null"),
        ("results.tables.0.values", [1, True], "results.tables[0].values[1] must be a number, or null"),
        ("results.tables.0.values", [1, 1e301], "results.tables[0].values[1] is too large"),
        ("results.tables.0.merge", "median", "results.tables[0].merge must be one of mean, sum, none, not 'median'"),
        ("results.bars.0.y-axis", 1, "results.bars[0].y-axis must be a text"),
        ("results.heatmaps.0.values", [[1, 2]], "results.heatmaps[0].values must have 2 rows of 2 numbers"),
        ("results.heatmaps.0.values", [[1, 2], [3]], "results.heatmaps[0].values must have 2 rows of 2 numbers"),
        ("results.plots.0.labels", [], "results.plots[0] has 0 labels, 1 lines of x-values and 1 of y-values"),
        ("results.plots.0.x-values", [[1]], "results.plots[0] has 1 x-values and 4 y-values in line 0"),
        ("results.images.0.filename", "../secret.png", "results.images[0].filename must be the name of a file within"),
        ("results.images.0.filename", "/etc/x.png", "results.images[0].filename must be the name of a file within"),
        ("results.images.0.digest", "xyz", "results.images[0].digest is no SHA-256"),
        ("results.images.0.size_bytes", 2**22, "results.images[0].size_bytes is more than"),
        ("results.images.0.extension", ".svg", "results.images[0].extension must be '.png' or '.jpg'"),
        ("results.images", [{"title": str(i)} for i in range(MOST_IMAGES + 1)], "results.images has 17 entries"),
        ("results.plots", [{"title": str(i)} for i in range(MOST_OF_A_KIND + 1)], "results.plots has 65 entries"),
        ("results.plots", [{"title": "x"}, {"title": "x"}], "results.plots[1].title is also that of results.plots[0]"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(path, value, said):
    with pytest.raises(InvalidInfo, match=re.escape(said)) as caught:
        read(changed(path, value), is_sealed=True)
    assert str(caught.value).startswith("result.json: ")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_report():
    for data, said in ((b"{", "not complete JSON"), (b"\xff", "UTF-8"), (b" " * (MAX_BYTES + 1), "larger than")):
        with pytest.raises(InvalidInfo, match=said):
            parse_report(data, where="result.json")


def test_values_of_tables_that_are_not_finite_are_missing_and_named():
    values = [math.nan, math.inf, -math.inf, None, 0.5]
    report = read(of(tables=[{"title": "T", "labels": list("abcde"), "values": values}]))
    assert report.metrics == {"T/a": None, "T/b": None, "T/c": None, "T/d": None, "T/e": 0.5}
    assert report.not_finite == {"T/a": "NaN", "T/b": "Infinity", "T/c": "-Infinity"}
    assert json.loads(report.to_bytes())["results"]["tables"][0]["values"] == [None, None, None, None, 0.5]
    found = with_report(None, report, 7, digest="a" * 64)
    assert not_finite_of(found) == report.not_finite
    contradiction(found, read(report.to_plain(), is_sealed=True))


REPORT = read(of(tables=[{"title": "T", "labels": ["a", "b"], "values": [0.5, None]}]))
INFO = {"metadata": {"epoch": 3, "datasetSize": 10, "importance": 1.0}, "metrics": {"loss": 0.25}}


class TestBesideAnInfo:
    def test_the_tables_are_metrics(self):
        found = with_report(None, REPORT, 7, digest="a" * 64)
        assert found["metadata"] == {"epoch": 7, "datasetSize": 10, "importance": 1.0, "reportDigest": "a" * 64}
        assert (found["metrics"]["T/a"], found["metrics"]["T/b"]) == (0.5, None)
        assert report_digest(found) == "a" * 64
        assert report_digest(without_report(found)) is None

    def test_they_stand_beside_those_of_an_info(self):
        found = with_report(INFO, REPORT, 7, digest="a" * 64)
        assert found["metadata"]["epoch"] == 3
        assert (found["metrics"]["loss"], found["metrics"]["T/a"]) == (0.25, 0.5)

    def test_what_contradicts_is_refused(self):
        other = {**INFO, "metadata": {**INFO["metadata"], "datasetSize": 11}}
        with pytest.raises(InvalidInfo, match="datasetSize is 10, and 11 in info"):
            with_report(other, REPORT, 7, digest="a" * 64)
        with pytest.raises(InvalidInfo, match=r"a table says that 'T/a' is 0\.5, and info\.json that it is 0\.75"):
            with_report({**INFO, "metrics": {"T/a": 0.75}}, REPORT, 7, digest="a" * 64)

    @pytest.mark.parametrize(("own", "table", "word"), [(math.inf, None, "Infinity"), (None, math.nan, "NaN")])
    def test_null_in_one_file_is_no_contradiction_of_infinity_in_the_other(self, own, table, word):
        info = checked_info(completed({**INFO, "metrics": {"T/a": own}}, 3))
        report = read(of(tables=[{"title": "T", "labels": ["a"], "values": [table]}]))
        found = with_report(info, report, 7, digest="a" * 64)
        assert not_finite_of(found) == {"T/a": word}

    @pytest.mark.parametrize(
        ("own", "table", "said"),
        [
            (math.inf, math.nan, "is NaN, and info.json that it is inf"),
            (0.5, -math.inf, "is -inf, and info.json that it is 0.5"),
            (math.nan, 0.5, "is 0.5, and info.json that it is NaN"),
        ],
    )
    def test_infinity_contradicts_another_value(self, own, table, said):
        info = checked_info(completed({**INFO, "metrics": {"T/a": own}}, 3))
        report = read(of(tables=[{"title": "T", "labels": ["a"], "values": [table]}]))
        with pytest.raises(InvalidInfo, match=re.escape(said)):
            with_report(info, report, 7, digest="a" * 64)

    def test_another_digest_is_refused(self):
        with pytest.raises(InvalidInfo, match="no SHA-256"):
            report_digest({"metadata": {"reportDigest": "../x"}, "metrics": {}})


class TestMerged:
    def merged(self, **sites: dict[str, Any]) -> dict[str, Any]:
        return merge_reports({name: read(report) for name, report in sites.items()})

    def table(self, values: list[Any], **more: Any) -> dict[str, Any]:
        return {"title": "T", "labels": ["a", "b"], "values": values, **more}

    def test_tables_and_bars_are_means_over_the_sites_that_have_the_value(self):
        found = self.merged(
            x=of(tables=[self.table([1, None])], bars=[self.table([0.1, 0.1])]),
            y=of(tables=[self.table([0.5, 0.25])], bars=[self.table([0.1, 0.1])]),
            z=of(tables=[self.table([0.0, None])], bars=[self.table([0.1, 0.1])]),
        )
        (table,), (bar,) = found["tables"], found["bars"]
        assert (table["values"], table["counts"], table["sites"]) == ([0.5, 0.25], [3, 1], ["x", "y", "z"])
        assert bar["values"] == [0.1, 0.1]
        assert found["apart"] == []

    def test_a_sum_has_to_be_asked_for(self):
        matrix = {"title": "M", "x-labels": ["0", "1"], "y-labels": ["0", "1"], "values": [[1, 2], [3, None]]}
        (apart,) = self.merged(x=of(heatmaps=[matrix]), y=of(heatmaps=[matrix]))["apart"]
        assert apart == {"kind": "heatmaps", "title": "M", "sites": ["x", "y"], "why": "its merge is 'none'"}
        summed = {**matrix, "merge": "sum"}
        (heatmap,) = self.merged(x=of(heatmaps=[summed]), y=of(heatmaps=[summed]))["heatmaps"]
        assert (heatmap["values"], heatmap["counts"]) == ([[2, 4], [6, None]], [[2, 2], [2, 0]])

    @pytest.mark.parametrize(
        ("other", "why"),
        [
            ({"labels": ["a", "c"]}, "labels of y differ from those of x"),
            ({"labels": ["b", "a"]}, "labels of y differ from those of x"),
            ({"merge": "sum"}, "merge of y differ from those of x"),
        ],
    )
    def test_what_does_not_go_together_stays_apart(self, other, why):
        found = self.merged(x=of(tables=[self.table([1, 2])]), y=of(tables=[{**self.table([1, 2]), **other}]))
        assert found["tables"] == []
        assert found["apart"] == [{"kind": "tables", "title": "T", "sites": ["x", "y"], "why": why}]

    def test_a_sum_that_is_too_large_stays_apart(self):
        large = of(tables=[self.table([1e300, 0], merge="sum")])
        assert "too large" in self.merged(x=large, y=large)["apart"][0]["why"]

    def test_plots_and_images_are_shown_by_site(self):
        found = merge_reports(dict.fromkeys("xy", read(GOOD_REPORT, is_sealed=True)))
        assert [(each["kind"], each["why"]) for each in found["apart"]] == [
            ("plots", "plots are shown by site"),
            ("images", "images are shown by site"),
        ]


class TestImages:
    def test_a_png(self):
        assert picture_of(png(3, 5)) == (".png", 3, 5)

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "neither a PNG nor a JPEG"),
            (b"GIF89a", "neither a PNG nor a JPEG"),
            (png()[:20], "not a whole PNG"),
            (b"\xff\xd8\xff\xe0", "not a whole JPEG"),
            (b"\xff\xd8\xff\xe0\x00\x00\xff\xd9", "not a whole JPEG"),
            (png(1, 1)[:16] + b"\x00\x01\x00\x00" * 2 + png(1, 1)[24:], "has 65536 × 65536 pixels"),
        ],
    )
    def test_what_is_refused(self, data, said):
        with pytest.raises(ValueError, match=said):
            picture_of(data)


def test_the_mean_of_equal_numbers_is_that_number():
    """The sum of six sixths of 0.93 is a little less."""
    bars = [{"title": "t", "labels": ["a", "b"], "values": [0.93, 0.5]}]
    sites = {site: read(of(bars=bars)) for site in "abcdef"}
    (merged,) = merge_reports(sites)["bars"]
    assert merged["values"] == [0.93, 0.5]
