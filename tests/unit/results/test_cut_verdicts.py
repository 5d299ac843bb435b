"""Redis keeps the first metrics of each site: what they say, and what is not known by them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from flavor.config import RunConfig
from flavor.evaluation_settings import select_of
from flavor.policy.selection import Select
from flavor.records.evaluation import CENTRAL, MOST_METRICS, EvaluationSummary, Result, ResultVerdict
from flavor.records.info import Info
from flavor.records.objects import ObjectRef
from flavor.records.summary import kept_metrics
from flavor.results.evaluated import Evaluated
from flavor.results.evaluated_table import described, table_of
from flavor.results.evaluation_summary import kept_first
from flavor.results.metric_of_sites import MetricOfSites, metrics_of, shown_by
from flavor.results.site_measures import SiteMeasures, first_names, kept_of
from tests.driven import info

CLASSES = {f"recall/class {number}": 0.5 for number in range(30)}
NO_RULES = RunConfig(rounds=1, store="file:///s")
RESULT = Result(ObjectRef("p", "d"), 10, "m")


def test_a_verdict_keeps_the_metrics_of_rules_and_those_of_most_sites_before_a_site_s_own() -> None:
    infos: list[Info] = [
        info(10, {**CLASSES, "loss": math.inf, "accuracy": 0.1, "auc": 0.7}),
        info(10, {"accuracy": 0.9, "loss": 1.0}),
        info(10, {"accuracy": 0.8, "loss": 1.0}),
    ]
    first = first_names(infos, ["pooled/auc", "accuracy (weighted)"])
    assert first == ["auc", "accuracy (weighted)", "accuracy", "loss"]
    kept = kept_of(infos[0], first)
    assert list(kept.metrics)[:3] == ["auc", "accuracy", "recall/class 0"]
    assert (len(kept.metrics), kept.is_cut, kept.are_words_cut) == (MOST_METRICS, True, False)
    assert kept_of(infos[1], first) == ({"accuracy": 0.9, "loss": 1.0}, {}, False, False)


def test_a_summary_keeps_the_metrics_of_rules_first_and_a_pooled_one_with_its_bound() -> None:
    """Lines begin with the first ones. On the operator's own data those of rules on sites' metrics are first, too."""
    config = RunConfig(rounds=1, store="file:///s", select="pooled/auc:max", stop_when=("worst/f1>0.5",))
    names = ["f1", "f1 (weighted)", "pooled/auc", "pooled/dice", "pooled/auc_bound"]
    every = {**dict.fromkeys(map(str, range(60)), 0.5), **dict.fromkeys(names, 0.9)}
    kept = list(kept_metrics(kept_first(every, config)))
    assert kept[:5] == ["pooled/auc", "pooled/auc_bound", "f1", "f1 (weighted)", "0"]
    own = {f"central/{name}": value for name, value in (*every.items(), ("auc", 0.8))}
    kept = list(kept_metrics(kept_first(own, config)))
    assert kept[:5] == [f"central/{name}" for name in ("pooled/auc", "pooled/auc_bound", "auc", "f1", "f1 (weighted)")]
    line = EvaluationSummary(1, CENTRAL, 1, sites=1, expected=1, metrics={name: own[name] for name in kept[2:]})
    assert shown_by(line, select_of(config)) == "central/auc 0.8"
    assert list(kept_metrics(kept_first({"0": 1.0, "pooled/auc": 0.9, "pooled/auc_bound": 0.1}, NO_RULES), 2)) == ["0"]


def test_a_verdict_says_whether_the_site_reports_more() -> None:
    full = dict(list(CLASSES.items())[:MOST_METRICS])
    for metrics, is_cut in ((full, False), (CLASSES, True), ({"x" * 200: 1.0}, True), ({"loss": 1.0}, False)):
        written = ResultVerdict(True, "", RESULT, *kept_of(info(1, metrics))).to_json()
        assert ResultVerdict.from_json(written).is_cut is is_cut
    names = dict.fromkeys(CLASSES)
    assert ResultVerdict.from_json(ResultVerdict(True, "", RESULT, *kept_of(info(1, names))).to_json()).are_words_cut
    old = {**json.loads(written), "metrics": full, "not_finite": dict.fromkeys(full, "NaN")}
    read = ResultVerdict.from_json(json.dumps(old))
    assert (read.is_cut, read.are_words_cut) == (True, True), "an earlier release does not say it"


CUT = SiteMeasures(10, {"recall/class 0": 0.5}, is_cut=True)
FOUND = Evaluated(
    run="r",
    round=3,
    number=0,
    model="f" * 64,
    opened_ms=1,
    closed_ms=2,
    expected=("a", "b", "c"),
    sites={"a": CUT, "b": SiteMeasures(10, {"accuracy": 0.8}), "c": SiteMeasures(10, {"accuracy": 0.9})},
    missing={},
    metrics={"accuracy": 0.6, "recall/class 0": 0.5},
    few={"recall/class 0": 1},
    spread={"accuracy": (0.1, 0.9)},
)


def accuracy(found: Evaluated, select: Select | None = None) -> MetricOfSites:
    return next(each for each in metrics_of(found, select) if each.name == "accuracy")


def test_the_lowest_value_of_a_site_that_redis_has_not_is_that_of_the_summary_and_the_worst_site_is_not_known() -> None:
    metric = accuracy(FOUND)
    assert (metric.lowest, metric.highest, metric.worst, metric.unknown) == (0.1, 0.9, None, 1)
    _, rows, further = table_of(FOUND, names=["accuracy"])
    cells = {row[0]: row[2] for row in rows}
    assert [cells[name] for name in ("a", "[lowest]", "[highest]", "[worst site]")] == ["?", "0.1", "0.9", "?"]
    assert not further
    lost = replace(FOUND, spread={})
    metric = accuracy(lost)
    assert (metric.lowest, metric.highest, metric.worst, metric.unknown) == (None, None, None, 1)
    assert {row[0]: row[2] for row in table_of(lost, names=["accuracy"])[1]}["[worst site]"] == "?"


@pytest.mark.parametrize(
    ("spread", "few", "cut", "worst"),
    [
        ((0.8, 0.95), {}, CUT, "b"),  # the best value is that of the site that is cut
        ((0.8, 0.9), {"accuracy": 2}, CUT, "b"),  # it reports none
        ((0.8, 0.9), {"accuracy": 2}, replace(CUT, are_words_cut=True), None),  # it may report NaN
        ((0.8, 0.9), {"accuracy": 2}, replace(CUT, not_finite={"accuracy": "NaN"}), "a"),
    ],
)
def test_a_site_is_known_to_be_the_worst_where_no_other_can_be(
    spread: tuple[float, float], few: dict[str, int], cut: SiteMeasures, worst: str | None
) -> None:
    metric = accuracy(replace(FOUND, spread={"accuracy": spread}, few=few, sites={**FOUND.sites, "a": cut}))
    assert (metric.worst, metric.unknown) == (worst, None if worst else 1)
    assert metric.sites == few.get("accuracy", 3)


def test_a_metric_that_the_summary_lacks_counts_the_sites_that_are_known_to_report_it() -> None:
    metric = accuracy(replace(FOUND, metrics={}, spread={}))
    assert (metric.sites, metric.lowest, metric.worst, metric.unknown) == (2, None, None, 1)
    whole = replace(FOUND, metrics={}, spread={}, sites={site: FOUND.sites[site] for site in "bc"})
    assert accuracy(replace(whole, sites={**whole.sites, "a": SiteMeasures(1, {"loss": 1.0})})).sites == 2


def test_a_file_and_a_document_keep_that_a_site_has_more() -> None:
    assert Evaluated.from_json(FOUND.to_json(), "here") == FOUND
    assert [of.get("cut") for of in described(FOUND)["sites"].values()] == [True, None, None]
    assert SiteMeasures.of_plain(CUT.to_plain()) == CUT
