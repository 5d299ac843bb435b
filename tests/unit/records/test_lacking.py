"""Who has a part in the metric of a rule, and no finite value of it."""

from __future__ import annotations

import pytest

from flavor.cook.metrics import binary_counts
from flavor.errors import DamagedRecord
from flavor.records.evaluation import EvaluationSummary
from flavor.records.lacking import Lacking, SomeSites, away_of, lacking_of, reported_by_now
from flavor.records.merging import merge_infos, sites_of, sites_with
from flavor.records.reporters import parts_of

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


LEFT_OUT = {
    "other bins": binary_counts([0, 1], [0.5, 0.75], bins=20),
    "another threshold": binary_counts([0, 1], [0.5, 0.75], bins=4, threshold=0.4),
    "impossible": {**COUNTS, "count/binary/positives": [-1, 0, 0, 0], "count/binary/confusion": [-1, 0, 0, 0]},
    "another kind": {"count/multiclass/confusion": [1, 0, 0, 1]},
    "impossible, of another kind": {"count/multiclass/confusion": [1, -1, 0, 0]},
    "both kinds": {**COUNTS, "count/multiclass/confusion": [1, 0, 0, 1]},
    "of its own": {"count/binary/confusion": [1, 1, 1, 1], "count/binary/confusion.same": 0.3},
    "another setting": {**COUNTS, "count/n": 1, "count/n.same": 3, "loss": None},
}


@pytest.mark.parametrize("how", LEFT_OUT)
def test_who_lacks_a_metric_is_who_is_not_in_the_merged_value(how: str) -> None:
    """The number of sites of a merged metric, and who lacks it, are never at odds."""
    own = {"metadata": {"datasetSize": 2, "epoch": 1, "importance": 1.0}}
    usual = {**COUNTS, "count/n": 1, "count/n.same": 2, "loss": 0.5}
    sites = {"a": usual, "b": usual, "c": LEFT_OUT[how]}
    merged = merge_infos([*sites], [own | {"metrics": metrics} for metrics in sites.values()])
    few, number = sites_of(merged)
    names = [name for name in merged["metrics"] if name.startswith("pooled/")] + ["loss", "count/n"]
    parts, found, first = parts_of(names, sites), lacking_of(names, sites, {}), lacking_of(names, sites, {"c": names})
    for name in names:
        assert len(parts[name].merged) == sites_with(name, few, number), name
        assert (first[name] == Lacking()) == ("c" in parts[name].merged), name
        if parts[name].left_out:
            assert found[name].words(name) == f"the counts of c are left out of {name}"
    left_out = {name for name, part in parts.items() if part.left_out}
    assert (
        left_out & {"pooled/auc", "pooled/accuracy", "count/n"}
        == {
            "other bins": {"pooled/auc"},
            "another threshold": {"pooled/accuracy"},
            "impossible": {"pooled/auc", "pooled/accuracy"},
            "another kind": {"pooled/accuracy"},
            "impossible, of another kind": {"pooled/accuracy"},
            "both kinds": set(),
            "of its own": {"pooled/accuracy"},
            "another setting": {"count/n"},
        }[how]
    )


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
        1,
        0,
        1,
        lacking={
            "loss": Lacking(SomeSites.of("abcd")),
            "x": Lacking(away=SomeSites.of("e")),
            "y": Lacking(left_out=SomeSites.of("f")),
            "z": Lacking(unread=SomeSites.of("g")),
        },
    )
    text = made.closed_at(1)
    assert EvaluationSummary.from_json(text).lacking == made.lacking
    for wrong in (
        "7",
        '{"loss":7}',
        '{"loss":[[["a"],-1],[[],0]]}',
        '{"loss":[[["a"],1]]}',
        '{"loss":[[[],0],[[],0],[[],0],[[],0],[[],0],[[],0]]}',
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
