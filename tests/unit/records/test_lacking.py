"""Who has a part in the metric of a rule, and no finite value of it."""

from __future__ import annotations

import pytest

from flavor.cook.metrics import binary_counts
from flavor.errors import DamagedRecord
from flavor.records.evaluation import EvaluationSummary
from flavor.records.lacking import Lacking, SomeSites, away_of, lacking_of, reported_by_now

COUNTS = binary_counts([1, 1], [0.5, 0.75], bins=4)  # of one class: the AUC of this site alone is 0/0


def test_a_site_has_a_part_once_it_reports_the_metric_and_keeps_it() -> None:
    sites = {"a": {"loss": 0.5}, "b": {"loss": None}, "c": {"x": 1}, "d": {}}
    found = lacking_of(["loss"], sites, {"c": ["loss"], "a": ["loss"], "gone": ["loss"]})
    assert found == {"loss": Lacking(SomeSites(("b",), 1), SomeSites(("c",), 1))}
    assert found["loss"].words("loss") == ("loss is not a finite number at b; c does not report loss, and has before")
    assert lacking_of(["loss"], {"a": {"loss": 0.5}, "d": {}}, {})["loss"].words("loss") == ""


def test_a_site_that_was_not_asked_keeps_its_part() -> None:
    before = {"a": ["loss"], "b": ["loss", "x"], "c": ["auc"], "d": ["loss"]}
    assert away_of(["loss", "x"], ["a"], before) == ("b", "d")
    assert away_of([], ["a"], before) == ()
    found = lacking_of(["loss", "x"], {"a": {"loss": 0.5}}, before, ["b", "d"])
    assert found == {"loss": Lacking(away=SomeSites(("b", "d"), 2)), "x": Lacking(away=SomeSites(("b",), 1))}
    assert found["x"].words("x") == (
        "b was not there to judge the model, and has reported x before: the rule counts again once it is back, or "
        "without it after `flavor revoke`"
    )
    assert found["loss"].words("loss") == (
        "b and d were not there to judge the model, and have reported loss before: the rule counts again once they are "
        "back, or without them after `flavor revoke`"
    )


def test_the_counts_of_a_site_give_it_a_part_in_a_pooled_metric() -> None:
    sites = {"a": COUNTS, "b": {"pooled/auc": None}, "c": {**COUNTS, "count/binary/negatives": None}}
    assert lacking_of(["pooled/auc"], sites, {})["pooled/auc"] == Lacking()
    found = lacking_of(["pooled/auc"], sites, {"c": ["pooled/auc"]})
    assert found["pooled/auc"].words("pooled/auc") == "c does not report pooled/auc, and has before"


def test_what_is_known_of_a_site_grows() -> None:
    sites = {"a": {"loss": 0.5}, "b": {"loss": None}, "c": COUNTS}
    names = ["loss", "pooled/auc"]
    assert reported_by_now(names, sites, {}) == {"a": ("loss",), "c": ("pooled/auc",)}
    assert reported_by_now(names, sites, {"a": ("loss",), "c": ("loss",)}) == {"c": ("loss", "pooled/auc")}


def test_three_sites_are_named() -> None:
    assert [SomeSites.of("a").words, SomeSites.of("ba").words, SomeSites.of("cba").words] == [
        "a",
        "a and b",
        "a, b and c",
    ]
    assert SomeSites.of("edcba").words == "a, b, c and 2 more"
    two = Lacking(unsaid=SomeSites.of("ab"))
    assert two.words("x") == "a and b do not report x, and have before"
    own = Lacking(not_finite=SomeSites.of(["central"]))
    assert own.words("central/x") == "central/x is not a finite number on the operator's own data"


def test_a_summary_keeps_it() -> None:
    made = EvaluationSummary(
        1, 0, 1, lacking={"loss": Lacking(SomeSites.of("abcd")), "x": Lacking(away=SomeSites.of("e"))}
    )
    text = made.closed_at(1)
    assert EvaluationSummary.from_json(text).lacking == made.lacking
    for wrong in (
        "7",
        '{"loss":7}',
        '{"loss":[[["a"],-1],[[],0]]}',
        '{"loss":[[["a"],1]]}',
        '{"loss":[[[],0],[[],0],[[],0],[[],0]]}',
    ):
        with pytest.raises(DamagedRecord, match="summary of an evaluation"):
            EvaluationSummary.from_json(f'{text[: text.index(chr(34) + "lacking")]}"lacking":{wrong}}}')


def test_the_value_that_is_not_finite_stands_behind_the_site() -> None:
    sites = {site: {"loss": None} for site in "abcde"}
    found = lacking_of(["loss"], sites, {}, odd={"d": {"loss": "Infinity"}, "e": {"other": "NaN"}})["loss"]
    assert found.not_finite == SomeSites(("d (inf)", "a (null)", "b (null)"), 5)
    assert found.has_diverged
    assert not lacking_of(["loss"], sites, {}, odd={})["loss"].has_diverged
    assert not lacking_of(["loss"], sites, {})["loss"].has_diverged, "of an earlier release"
