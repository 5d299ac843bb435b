"""What is kept of a closed round for the whole run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from flavor.cook.metrics import binary_counts
from flavor.errors import DamagedRecord
from flavor.records.reporters import (
    UNKNOWN,
    digest_of,
    parts_of,
    read_reporters,
    reporters_of,
    reporters_with,
)
from flavor.records.round import RoundView
from flavor.records.summary import LONGEST_NAME, MOST_BYTES, MOST_METRICS, RoundSummary, kept_metrics, spread_of
from flavor.records.verdict import Verdict
from flavor.results.summaries import refused_of

SUMMARY = RoundSummary(
    round=3,
    opened_ms=1_000,
    aggregating_ms=2_000,
    paused_ms=300,
    expected=4,
    contributors=3,
    refused=1,
    examples=60,
    bytes=12_288,
    attempts=2,
    openings=2,
    metrics={"loss": 0.1 + 0.2, "loss (weighted)": 1 / 3},
    spread={"loss": (0.1, 0.5)},
    few={"loss": 2},
    reporters={"": "0a1b2c3d", "loss": "4e5f6a7b"},
)


def test_it_is_read_as_it_was_written_to_the_last_digit() -> None:
    read = RoundSummary.from_json(SUMMARY.closed_at(2_500))
    assert read.closed_ms == 2_500
    assert RoundSummary.from_json(SUMMARY.closed_at(0)) == SUMMARY
    assert len(SUMMARY.closed_at(2_500)) < 420


def test_a_later_release_may_add_fields_and_an_earlier_one_may_lack_some() -> None:
    assert RoundSummary.from_json('{"round":1,"opened_ms":2,"closed_ms":3,"new":{}}') == RoundSummary(1, 2, 3)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "{", "[" * 5000, '{"round":1,"opened_ms":2}', '{"round":1.5,"opened_ms":2,"closed_ms":3}']
    + [f'{{"round":1,"opened_ms":2,"closed_ms":3,"{name}":[1]}}' for name in ("metrics", "bytes")]
    + [f'{{"round":1,"opened_ms":2,"closed_ms":3,"spread":{{"a":{pair}}}}}' for pair in ("5", "[0]", "[0,1,2]", "[]")]
    + ['{"round":1,"opened_ms":true,"closed_ms":3}'],
)
def test_what_is_none_is_damage(text: str) -> None:
    with pytest.raises(DamagedRecord, match="summary of a round"):
        RoundSummary.from_json(text)


def test_sites_choose_names_and_so_they_are_bounded() -> None:
    names = {f"{number:02}{'ü' * (LONGEST_NAME - 2)}": 1 / 3 for number in range(60)}
    kept = kept_metrics({"x" * (LONGEST_NAME + 1): 1.0, "nan": float("nan"), "yes": True, "text": "1", **names})
    assert list(kept) == list(names)[:MOST_METRICS]
    text = RoundSummary(1, 2, metrics=kept, spread=dict.fromkeys(kept, (0.1, 0.2))).closed_at(3)
    assert len(text) <= MOST_BYTES + 40
    read = RoundSummary.from_json(text)
    assert list(read.metrics) == list(kept)[: len(read.metrics)]
    assert set(read.spread) == set(read.metrics)


def test_the_spread_is_over_the_sites_that_report_a_metric() -> None:
    sites = [{"loss": 0.5, "auc": None}, {"loss": 0.25}, {"loss": float("nan"), "count": 3}]
    assert spread_of(["loss", "auc", "count"], sites) == {"loss": (0.25, 0.5), "count": (3, 3)}
    assert json.loads(RoundSummary(1, 2, metrics={"loss": 1.0}).to_json())["spread"] == {}


def test_who_reports_a_metric_is_known_by_a_digest_in_any_order() -> None:
    metrics = {"a": {"loss": 0.5, "auc": 1.0}, "b": {"loss": 0.5, "auc": None}, "c": {"auc": float("nan"), "loss": 1}}
    found = reporters_of("abc", {"auc": 1, "pooled/auc": 2}, metrics)
    assert found == {"": digest_of("cba"), "auc": digest_of("a"), "pooled/auc": UNKNOWN}
    assert reporters_with("auc (weighted)", found) == digest_of("a") != digest_of("b")
    assert reporters_with("loss", found) == digest_of("abc")
    assert reporters_with("loss", {}) == "", "an earlier release has closed the round"
    assert read_reporters({"": "x", "a": 3, "b": "too long by far"}) == {"": "x"}
    assert read_reporters([]) == {}
    kept = RoundSummary(1, 2, metrics={"loss": 1.0}, few={"auc": 1}, reporters=found).to_json()
    assert RoundSummary.from_json(kept[:-1] + ',"closed_ms":3}').reporters == {"": digest_of("abc")}


def test_who_reports_a_pooled_metric_is_known_by_the_counts_of_each_site() -> None:
    counts = binary_counts([1, 1], [0.5, 0.75], bins=4)  # no example of class 0: the AUC of this site alone is 0/0
    metrics = {"a": {**counts, "auc": None}, "b": {"pooled/auc": 1.0}, "c": {**counts, "count/binary/negatives": None}}
    assert reporters_of("abc", {"pooled/auc": 1}, metrics)["pooled/auc"] == digest_of("a")
    assert reporters_of("abc", {"pooled/recall": 2}, metrics)["pooled/recall"] == digest_of("ac")
    parts = parts_of(["pooled/auc", "auc", "pooled/recall"], metrics)
    assert {name: part.reporting for name, part in parts.items()} == {
        "pooled/auc": ("a",),
        "auc": (),
        "pooled/recall": ("a", "c"),
    }


def test_refusals_that_nobody_knows_are_not_none_at_all() -> None:
    """A manifest has verdicts of contributors alone: of a client that is missing there, nothing is known."""
    accepted = Verdict(True, "good", None, try_id="t")
    view = replace(RoundView.opened(1, ("a", "b"), opened_ms=1, deadline_ms=2), contributors=("a",))
    assert refused_of(replace(view, verdicts={"a": accepted})) is None
    assert refused_of(replace(view, verdicts={"a": accepted, "b": Verdict(False, "NaN", None, try_id="u")})) == 1
    assert refused_of(replace(view, expected=("a",), verdicts={"a": accepted})) == 0
    unknown = RoundSummary(1, 1, closed_ms=9, refused=None)
    assert RoundSummary.from_json(unknown.closed_at(9)) == unknown
