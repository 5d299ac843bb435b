"""An evaluation as people read it: which number is which mean, which site is worst, and what no name says."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from flavor.config import RunConfig
from flavor.cook.metrics import regression_sums
from flavor.errors import InvalidRecord
from flavor.policy.selection import Select
from flavor.records.counts import COMPUTED
from flavor.records.evaluation import CENTRAL as OWN
from flavor.records.evaluation import EvaluationSummary, Result, ResultVerdict
from flavor.records.merging import merge_infos, sites_of
from flavor.records.objects import ObjectRef
from flavor.records.subject import Subject, SubjectKind
from flavor.results.chosen_evaluation import chosen_of
from flavor.results.evaluated import Evaluated, as_round, mean_of, null_in
from flavor.results.evaluated_table import (
    described,
    diverged_words,
    judged_words,
    lines_of,
    name_in,
    table_of,
    why_not_there,
)
from flavor.results.evaluation_summary import evaluation_summary
from flavor.results.evaluation_tables import EvaluationTables, values_of
from flavor.results.folder import ResultFolder
from flavor.results.metric_of_sites import headline_as_told, headline_of, metrics_of, shown_by
from flavor.results.plot import Plotted, draw
from flavor.results.rounds import RoundResult, SiteResult, measured_by_site, scalars
from flavor.results.selected import Selected
from flavor.results.site_measures import SiteMeasures, kept_of
from flavor.results.table_columns import ruled_by
from flavor.trackers.files import CsvTracker
from tests.driven import info

REPORTED = {
    "a": (100, {"accuracy": 0.5, "loss": 2.0, "score2x": 1.0, "count/n": 3}),
    "b": (300, {"accuracy": 0.9, "loss": 1.0, "score2x": 2.0, "count/n": 4}),
    "c": (0, {"accuracy": 0.7, "loss": 1.5, "rare": 7.0}),
}
MERGED = merge_infos(list(REPORTED), [info(examples, metrics) for examples, metrics in REPORTED.values()])
FOUND = Evaluated(
    run="r",
    round=3,
    number=0,
    model="f" * 64,
    opened_ms=1,
    closed_ms=2,
    expected=("a", "b", "c", "d"),
    sites={site: SiteMeasures(examples, metrics) for site, (examples, metrics) in REPORTED.items()},
    missing={"d": "it handed in no result in time"},
    skipped=("e",),
    metrics={**scalars(MERGED["metrics"]), "pooled/accuracy": 0.8, "pooled/auc": 0.93, "pooled/auc_bound": 0.002},
    few=sites_of(MERGED)[0],
)


def test_each_number_of_a_metric_is_what_it_is_called():
    accuracy, loss = metrics_of(FOUND)[:2]
    assert (accuracy.name, accuracy.sites, accuracy.pooled) == ("accuracy", 3, 0.8)
    assert accuracy.plain_mean == pytest.approx((0.5 + 0.9 + 0.7) / 3)
    assert accuracy.weighted_mean == pytest.approx((100 * 0.5 + 300 * 0.9) / 400)
    assert (accuracy.lowest, accuracy.highest, accuracy.better, accuracy.worst) == (0.5, 0.9, "larger", "a")
    assert (loss.lowest, loss.highest, loss.better, loss.worst) == (1.0, 2.0, "smaller", "a")


def test_a_name_that_does_not_say_what_is_good_has_no_worst_site_unless_the_run_selects_by_it():
    (of_run,) = [each for each in metrics_of(FOUND, Select("worst/score2x", False)) if each.name == "score2x"]
    (plain,) = [each for each in metrics_of(FOUND) if each.name == "score2x"]
    assert (plain.better, plain.worst, plain.sites) == (None, None, 2)
    assert (of_run.better, of_run.worst) == ("smaller", "b")


def test_the_words_of_an_evaluation_say_how_many_sites_report_its_metric():
    assert judged_words(described(FOUND)) == "accuracy 0.7 (plain mean) by 3 of 4 sites, round 3"
    few = replace(FOUND, metrics={"rare": 7.0}, sites={**FOUND.sites, "d": SiteMeasures(1)}, few={"rare": 1})
    words = judged_words(described(few, select=Select("rare", True)))
    assert words == "rare 7 by 4 sites, rare of 1, round 3"
    nothing = replace(few, metrics={}, sites={site: SiteMeasures(1) for site in "abcd"})
    assert judged_words(described(nothing)) == "no finite metric by 4 sites, round 3"
    summary = EvaluationSummary(3, 0, 1, sites=4, expected=4, metrics={"rare": 7.0}, few={"rare": 3})
    assert shown_by(summary, None) == "rare 7 (plain mean) of 3 of 4 sites"
    assert shown_by(replace(summary, few={}), None) == "rare 7 (plain mean)"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("auc:max", "auc 0.6 (plain mean)"),
        ("pooled/auc:max", "auc 0.6 (plain mean), pooled/auc 0.62 of 2 of 3 sites"),
        ("worst/auc:max", "auc 0.6 (plain mean), worst/auc 0.4"),
        ("worst/auc:min", "auc 0.6 (plain mean), worst/auc 0.9"),
        ("auc (weighted):max", "auc 0.6 (plain mean), auc (weighted) 0.7"),
        ("pooled/f1:max", "pooled/f1 0.5"),
        ("central/auc:max", "auc 0.6 (plain mean)"),
        ("other:max", "auc 0.6 (plain mean)"),
    ],
)
def test_an_evaluation_shows_the_number_by_which_the_run_selects(rule: str, words: str) -> None:
    metrics = {"auc": 0.6, "auc (weighted)": 0.7, "pooled/auc": 0.62, "pooled/f1": 0.5}
    spread, few = {"auc": (0.4, 0.9)}, {"pooled/auc": 2}
    summary = EvaluationSummary(1, 0, 1, sites=3, expected=3, metrics=metrics, spread=spread, few=few)
    assert shown_by(summary, Select.parse(rule)) == words


@pytest.mark.parametrize(
    "name", ["contrastive/neg_loss", "1-val/auc", "std/accuracy", "train_loss-val/loss", "rpn/neg_loss", "target - auc"]
)
def test_no_site_is_the_worst_of_a_metric_by_the_last_part_of_its_name(name: str) -> None:
    """Also where all sites together have a metric of the name: that one is flavor's, and the sites' is not."""
    sites = {site: SiteMeasures(1, {name: value}) for site, value in zip("abc", (0.1, 0.3, 0.5), strict=True)}
    for merged in ({name: 0.3}, {name: 0.3, f"pooled/{name}": 0.3}, {f"pooled/{name}": 0.3}):
        found = replace(FOUND, sites=sites, metrics=merged)
        (metric,) = metrics_of(found)
        assert (metric.better, metric.worst) == (None, None)
        assert table_of(found)[2] == (
            f"no worst site of {name}: its name does not say which values are better, "
            "and --select NAME:max or NAME:min would"
        )
    (judged,) = metrics_of(replace(FOUND, sites={}, metrics={"pooled/1-val/auc": 0.3}))
    assert judged.better == "larger", "an area under a curve that flavor has computed, of a label of the name 1-val"


def test_a_metric_of_all_sites_alone_has_its_bound_and_no_sites():
    (auc,) = [each for each in metrics_of(FOUND) if each.name == "auc"]
    assert (auc.pooled, auc.pooled_bound, auc.plain_mean, auc.worst, auc.value) == (0.93, 0.002, None, None, 0.93)
    names = [each.name for each in metrics_of(FOUND)]
    assert not [name for name in names if name.startswith(("count/", "basic/", "pooled/")) or name.endswith("_bound")]


def test_a_site_has_no_column_of_a_name_with_a_meaning_of_its_own():
    """Else exports would have it beside the true one, under one name."""
    claims = {f"{prefix}{name}": 1.0 for prefix in COMPUTED for name in ("accuracy", "mine")}
    claims |= {"accuracy (weighted)": 1.0, "mine (weighted)": 1.0}
    assert measured_by_site({**REPORTED["a"][1], **claims}) == FOUND.sites["a"].metrics


def test_equal_sites_have_no_worst_one():
    same = replace(FOUND, sites={site: SiteMeasures(1, {"accuracy": 0.5}) for site in "ab"})
    assert metrics_of(same)[0].worst is None


def test_the_headline_is_that_of_select_or_the_first():
    assert headline_of(metrics_of(FOUND)) == "accuracy"
    assert headline_of(metrics_of(FOUND), Select("worst/loss", False)) == "loss"
    assert headline_of(metrics_of(FOUND), Select("pooled/auc", True)) == "auc"
    assert headline_of(metrics_of(FOUND), Select("unheard", True), "rare") == "rare"
    assert headline_of([]) is None


def test_the_table_has_a_line_for_each_site_also_for_one_that_is_missing():
    heads, rows, further = table_of(FOUND, names=["accuracy", "auc", "rare"])
    assert heads == ["SITE", "EXAMPLES", "accuracy", "rare", "auc"]
    cells = {row[0]: row[1:] for row in rows}
    assert cells["a"] == ["100", "0.5", "-", "-"]
    assert cells["d"] == ["-"] * 4
    assert cells["[pooled]"] == ["400", "0.8", "-", "0.93 ± 0.002"]
    assert cells["[lowest]"] == ["", "0.5", "7", "-"]
    assert cells["[worst site]"] == ["", "a", "-", "-"]
    assert not further, "one site alone reports the metric of which nothing is known"
    assert "without d: it handed in no result in time" in lines_of(FOUND)
    assert "judged by 3 of 4 sites, 400 examples" in lines_of(FOUND)[0]


CENTRAL = {f"central/{name}": 0.9 for name in ("a1", "a2", "a3", "a4", "a5", "a6", "accuracy", "pooled/auc")}
BOTH = replace(FOUND, central=SiteMeasures(50, {**CENTRAL, "central/pooled/auc_bound": 0.1}))


@pytest.mark.parametrize(
    ("name", "there", "line", "heads"),
    [
        ("central/accuracy", "central/accuracy", "central/accuracy 0.9", []),
        ("accuracy", "accuracy", "central/accuracy 0.9", ["accuracy"]),
        ("worst/accuracy", "accuracy", "central/accuracy 0.9", ["accuracy"]),
        ("pooled/auc", "auc", "central/pooled/auc 0.9 ± 0.1", ["auc"]),
        ("a6", "central/a6", "central/a6 0.9", []),
        ("loss", "loss", "no loss", ["loss"]),
        ("central/loss", None, "", []),
    ],
)
def test_a_metric_is_shown_of_the_sites_and_of_the_operator_s_own_data(
    name: str, there: str | None, line: str, heads: list[str]
) -> None:
    assert name_in(BOTH, name) == there
    if there is not None:
        assert lines_of(BOTH, names=[there])[-2] == f"on the operator's own data, 50 examples: {line}"
        assert table_of(BOTH, names=[there])[0][2:] == heads


def test_the_operator_s_own_data_have_as_many_metrics_above_the_table_as_it_has():
    assert lines_of(BOTH)[-2].split(": ")[1] == ", ".join(f"central/a{number} 0.9" for number in range(1, 7))
    alone = replace(BOTH, number=OWN, sites={}, metrics=CENTRAL)
    assert alone.is_central
    assert name_in(alone, "auc") == name_in(alone, "pooled/auc") == "central/pooled/auc"
    assert name_in(alone, "worst/auc") is None
    assert table_of(alone, names=["central/pooled/auc"])[1] == [["[central]", "50", "0.9 ± 0.1"]]


def test_a_count_that_is_left_out_of_one_site_is_told_and_kept():
    found = replace(FOUND, left_out={"b": {"count/binary/confusion": "a site reports -1\x1b[2J"}})
    assert "without count/binary/confusion of b: a site reports -1\\x1b[2J" in lines_of(found)
    assert described(found)["left_out"] == {"b": {"count/binary/confusion": "a site reports -1\x1b[2J"}}
    assert Evaluated.from_json(found.to_json(), "here").left_out == found.left_out
    assert "left_out" not in FOUND.to_json()


def test_a_value_of_fewer_sites_says_of_how_many_and_names_no_number_of_examples_of_all():
    few = {**FOUND.few, "pooled/auc": 2, "accuracy": 3}
    found = replace(FOUND, few=few)
    heads, rows, _ = table_of(found, names=["accuracy", "auc", "rare"])
    cells = {row[0]: row[1:] for row in rows}
    assert heads[2:] == ["accuracy", "rare", "auc"]
    assert cells["[pooled]"] == ["", "0.8", "-", "0.93 ± 0.002 of 2 of 3 sites"]
    assert cells["[plain mean]"] == ["", "0.7", "7 of 1 of 3 sites", "-"]
    assert cells["[weighted mean]"][2].endswith(" of 1 of 3 sites")
    assert cells["[lowest]"][2] == "7"
    whole = {row[0]: row for row in table_of(found, names=["accuracy"])[1]}
    assert whole["[pooled]"][1:] == ["400", "0.8"], "all sites have a part in each value that is shown"
    accuracy, auc = (next(each for each in metrics_of(found) if each.name == name) for name in ("accuracy", "auc"))
    assert (accuracy.sites, accuracy.pooled_sites, auc.sites, auc.pooled_sites) == (3, 3, 2, 2)
    other = replace(FOUND, few={"pooled/accuracy": 2})
    (accuracy,) = [each for each in metrics_of(other) if each.name == "accuracy"]
    assert (accuracy.sites, accuracy.pooled_sites) == (3, 2), "all report it, and two of them counts"


LOSSES = {"a": 0.4, "b": math.inf, "c": math.nan, "d": None, "e": 0.5, "f": -math.inf}
ODD = replace(
    FOUND,
    sites={
        **{site: SiteMeasures.of_info(10, info(10, {"acc": 0.5, "loss": value})) for site, value in LOSSES.items()},
        "g": SiteMeasures(10, {"acc": 0.75}),
    },
    metrics={"loss": 0.45, "acc": 0.6},
    few={"loss": 2},
    missing={},
)


def test_a_value_that_is_infinite_nan_or_null_and_one_that_is_not_reported_are_told_apart():
    heads, rows, further = table_of(ODD)
    assert (heads[2:], further) == (["loss", "acc"], "")
    cells = {row[0]: row[2] for row in rows}
    assert [cells[site] for site in "abcdefg"] == ["0.4", "inf", "NaN", "null", "0.5", "-inf", "-"]
    assert (cells["[highest]"], cells["[worst site]"]) == ("0.5", "b"), "no site is worse than one that diverges"
    sites = described(ODD)["sites"]
    assert [sites[site]["not_finite"] for site in "abcdg"] == [
        {},
        {"loss": "Infinity"},
        {"loss": "NaN"},
        {"loss": "null"},
        {},
    ]
    loss = described(ODD)["metrics"]["loss"]
    assert (loss["worst"], loss["worst_not_finite"], loss["sites"]) == ("b", "Infinity", 2)
    assert described(ODD)["metrics"]["acc"]["worst_not_finite"] is None
    assert diverged_words(described(ODD)) == "loss is not a finite number at b (inf), c (NaN) and f (-inf)"
    assert not diverged_words(described(FOUND))


@pytest.mark.parametrize("name", ["accuracy", "score2x"])
def test_a_site_that_diverges_is_the_worst_by_any_metric(name: str) -> None:
    sites = {site: SiteMeasures.of_info(1, info(1, {name: value})) for site, value in (("a", 0.5), ("b", math.inf))}
    (metric,) = metrics_of(replace(FOUND, sites={**sites, "c": SiteMeasures(1, {name: 0.1})}, metrics={name: 0.3}))
    assert (metric.worst, metric.worst_not_finite, metric.lowest) == ("b", "Infinity", 0.1)


def test_a_metric_of_which_no_site_has_a_finite_value_has_a_column() -> None:
    alone = replace(ODD, sites={site: of for site, of in ODD.sites.items() if site in "bd"}, metrics={}, few={})
    (metric, loss) = metrics_of(alone)
    assert (metric.name, loss.name, loss.sites, loss.value, loss.worst) == ("acc", "loss", 0, None, "b")
    assert [row[3] for row in table_of(alone)[1][:2]] == ["inf", "null"]
    own = replace(alone, number=OWN, sites={}, central=SiteMeasures(5, {"central/acc": 0.5}, {"central/loss": "NaN"}))
    assert name_in(own, "loss") == "central/loss"
    assert table_of(own, names=["central/loss"])[1] == [["[central]", "5", "NaN"]]
    both = replace(own, number=0)
    assert lines_of(both)[-2] == "on the operator's own data, 5 examples: central/acc 0.5, central/loss NaN"


def test_files_keep_what_a_site_could_not_measure(tmp_path: Path) -> None:
    assert Evaluated.from_json(ODD.to_json(), "x.json") == ODD
    EvaluationTables(tmp_path).write([ODD])
    with (tmp_path / "evaluations-sites.csv").open(newline="") as file:
        rows = {row["site"]: row["loss"] for row in csv.DictReader(file)}
    assert rows == {"a": "0.4", "b": "inf", "c": "NaN", "d": "null", "e": "0.5", "f": "-inf", "g": ""}


def test_a_table_of_such_values_is_exported_again(tmp_path: Path) -> None:
    assert [CsvTracker(tmp_path / "m.csv", print).write_evaluations([ODD]) for _ in range(2)] == [1, 0]


def test_redis_keeps_what_a_site_could_not_measure() -> None:
    result = Result(ObjectRef("p", "d"), 10, "m")
    names = {f"m{number}": None for number in range(30)}
    for metrics, kept in (({"loss": math.nan, "acc": None}, {"loss": "NaN", "acc": "null"}), (names, 20)):
        verdict = ResultVerdict(True, "", result, *kept_of(info(10, metrics)))
        again = ResultVerdict.from_json(verdict.to_json())
        assert again == verdict
        assert SiteMeasures.of_verdict(again).not_finite == kept or len(again.not_finite) == kept
    foreign = json.dumps({**json.loads(verdict.to_json()), "not_finite": {"loss": "huge", "x": 3, "y": "NaN"}})
    assert ResultVerdict.from_json(foreign).not_finite == {"y": "NaN"}
    assert "not_finite" not in ResultVerdict(True, "", result, {"acc": 0.5}).to_json()


def test_the_file_of_a_result_folder_is_read_as_it_was_written():
    again = Evaluated.from_json(FOUND.to_json(), "x.json")
    assert again == FOUND
    assert described(again) == described(FOUND)
    for text in ("", "[]", '{"version": 1}', FOUND.to_json().replace('"version": 1', '"version": 2')):
        with pytest.raises(InvalidRecord, match=r"^x\.json is no evaluation of a result folder"):
            Evaluated.from_json(text, "x.json")


def test_a_metric_that_is_called_like_a_computed_column_has_a_column_of_its_own():
    names = ["auc", "auc (lowest)", "auc (highest)", "auc (sites)", "auc (lowest) (metric)"]
    reported = {"a": (1, dict.fromkeys(names, 0.5)), "b": (1, {**dict.fromkeys(names[1:], 0.25), "auc": 1.0})}
    merged = merge_infos(["a", "b"], [info(*each) for each in reported.values()])
    sites = {site: SiteMeasures(*each) for site, each in reported.items()}
    few = {"auc": 1, "auc (lowest)": 1}
    values = values_of(replace(FOUND, sites=sites, metrics=scalars(merged["metrics"]), few=few))
    assert values["auc"] == values["auc (weighted)"] == 0.75
    assert (values["auc (lowest)"], values["auc (highest)"], values["auc (sites)"]) == (0.5, 1.0, 1)
    for own in names[1:]:
        assert values[f"{own} (metric)"] == values[f"{own} (metric) (weighted)"] == 0.375
        assert (values[f"{own} (lowest)"], values[f"{own} (highest)"]) == (0.25, 0.5)
    assert values["auc (lowest) (sites)"] == 1
    assert len({*names, *(f"{own} (metric)" for own in names[1:])} & values.keys()) == 8


def test_a_merged_metric_without_a_value_is_told_from_one_that_is_not_there() -> None:
    counts = regression_sums([2.0, 2.0], [1.0, 3.0], name="const")
    merged = merge_infos(["a", "b"], [info(2, {**counts, "loss": 1.0})] * 2)
    found = replace(FOUND, metrics=scalars(merged["metrics"]), null=null_in(merged))
    again = Evaluated.from_json(found.to_json(), "x.json")
    for name in ("pooled/const/r2", "const/r2", "worst/const/r2"):
        assert name_in(again, name) is None
        assert why_not_there(again, name).startswith("pooled/const/r2 is null in this evaluation: 0/0, ")
    assert why_not_there(again, "const/r3").startswith("this evaluation has no such metric: ")
    assert Evaluated.from_json(FOUND.to_json().replace('"null": []', '"later": []'), "x.json").null == ()


def test_metrics_of_evaluations_have_panels_of_their_own():
    pytest.importorskip("matplotlib")
    trained = [RoundResult(round_, 1.0, ["a"], 10, 5, {"accuracy": 0.1 * round_}) for round_ in (1, 2, 3)]
    judged = [as_round(replace(FOUND, round=round_)) for round_ in (2, 3)]
    panels = {axes.get_title("left"): axes for axes in draw(Plotted("r", trained, judged)).axes}
    assert "accuracy" in panels
    assert "accuracy (judged)" in panels
    lines = {line.get_label(): list(line.get_xdata()) for line in panels["accuracy (judged)"].lines}
    assert all(x in ([2, 3], [2]) for x in lines.values()), "the rounds whose models were judged, and the best of them"
    assert next(list(line.get_xdata()) for line in panels["accuracy"].lines) == [1, 2, 3]


def test_each_mean_looks_the_same_in_all_panels_and_the_thick_one_is_that_of_the_best_round() -> None:
    pytest.importorskip("matplotlib")

    def rounds(*extra: str) -> list[RoundResult]:
        values = {1: (0.5, 0.6), 2: (0.7, 0.5)}
        return [
            RoundResult(
                number,
                1.0,
                ["a", "b"],
                10,
                5,
                {"accuracy": plain, "accuracy (weighted)": weighted, **dict.fromkeys(extra, plain)},
            )
            for number, (plain, weighted) in values.items()
        ]

    figure = draw(Plotted("r", rounds("count/n"), rounds("pooled/accuracy", "central/accuracy")))
    panels = {axes.get_title("left"): axes for axes in figure.axes}
    looks = {
        title: [(line.get_color(), line.get_linestyle(), line.get_linewidth()) for line in panels[title].lines[:2]]
        for title in ("accuracy", "accuracy (judged)")
    }
    weighted, plain = ("#1761C0", "-"), ("#9A5B00", "--")
    assert looks["accuracy"] == [(*weighted, 3.5), (*plain, 1.5)]
    assert looks["accuracy (judged)"] == [(*plain, 3.5), (*weighted, 1.5)]
    assert panels["accuracy"].get_title("right") == "best: 0.6 in round 1"
    assert panels["accuracy (judged)"].get_title("right") == "best: 0.7 in round 2", "as --select has it"
    legend = figure.legends[0]
    of = dict(zip((text.get_text() for text in legend.get_texts()), legend.get_lines(), strict=True))
    alone = ("of the examples of all sites", "on the operator's own data", "sum")
    assert len({(of[label].get_color(), of[label].get_linestyle()) for label in alone}) == 3
    for title, label in zip(("pooled/accuracy (judged)", "central/accuracy (judged)", "count/n"), alone, strict=True):
        assert panels[title].lines[0].get_linestyle() == of[label].get_linestyle()


def test_no_two_panels_have_one_title() -> None:
    pytest.importorskip("matplotlib")
    names = [
        "pooled/three/accuracy",
        "pooled/three/auc",
        f"{'x' * 90}/accuracy/{'y' * 90}",
        f"{'x' * 90}/{'y' * 90}/auc",
    ]
    judged = [RoundResult(number, 1.0, ["a"], 1, 1, dict.fromkeys(names, number / 4)) for number in (1, 2)]
    titles = {axes.get_title("left"): axes.get_title("right") for axes in draw(Plotted("r", [], judged)).axes}
    assert len(titles) == 4
    assert titles["pooled/three/auc (judged)"]
    assert titles["pooled/three/accuracy (judged)\n"], "the best value stands below a longer title"
    longest = max(titles, key=len)
    assert "…" in longest
    assert all(len(line) <= 40 for line in longest.splitlines())


@pytest.mark.parametrize(
    ("name", "sites", "said"),
    [
        ("accuracy", 2, " (plain mean)"),
        ("accuracy", 1, ""),
        *((name, 2, "") for name in ("accuracy (weighted)", "pooled/auc", "worst/auc", "central/auc", "count/n")),
    ],
)
def test_a_number_of_several_sites_says_which_mean_it_is(name: str, sites: int, said: str) -> None:
    assert mean_of(name, sites) == said


def test_the_metric_by_which_an_evaluation_is_shown_has_the_first_panels_of_many() -> None:
    pytest.importorskip("matplotlib")
    many = {f"pooled/m{number:02}": 0.5 for number in range(40)}
    own = {"auc": 0.1, "central/auc": 0.2, "central/pooled/auc": 0.3, "central/f1": 0.4}
    judged = RoundResult(1, 1.0, ["a", "b"], 1, 1, {**many, **own}, sites=[SiteResult("a", 1, 0, {"auc": 0.1})])
    shown = ["auc (judged)", "central/auc (judged)", "central/pooled/auc (judged)"]
    for select, first in ((None, []), (Select.parse("central/f1:max"), ["central/f1 (judged)"])):
        figure = draw(Plotted("r", [], [judged], select, headline="auc"))
        titles = [axes.get_title("left").strip() for axes in figure.axes]
        assert (titles[: len(first) + 3], len(titles)) == (first + shown, 24)


def test_the_headline_of_a_plot_is_that_of_the_lines_of_the_terminal(tmp_path: Path) -> None:
    """The only one to report f1 reports fewest metrics, so that its own is the first in what is merged."""
    reported = {"a": {"f1": 0.1}, "b": {"acc": 0.5, "loss": 0.4}, "c": {"acc": 0.5, "loss": 0.4}}
    merged = merge_infos([*reported], [info(1, each) for each in reported.values()])
    sites = {site: SiteMeasures(1, each) for site, each in reported.items()}
    config = RunConfig(rounds=1, store="file:///s")
    summary = evaluation_summary(
        1, 0, opened_ms=0, expected=3, examples=3, merged=merged, sites=reported, config=config
    )
    few = merged["metadata"]["metricSites"]
    found = replace(FOUND, sites=sites, metrics=scalars(merged["metrics"]), few=few, central=None)
    folder = ResultFolder(tmp_path, print)
    folder._evaluations.found = [found]
    view = SimpleNamespace(run="r", config={"rounds": 1, "store": "file:///s"}, best=None)
    assert folder._plotted(view).headline == "acc"
    assert next(iter(found.metrics)) == "f1"
    assert headline_as_told(found, None) == "acc"
    view.config["stop_when"] = ["f1>=0.9"]
    assert folder._plotted(view).headline == "f1"
    assert shown_by(summary, None).startswith("acc ")


def test_many_metrics_of_scripts_leave_room_for_those_of_evaluations():
    pytest.importorskip("matplotlib")
    trained = [RoundResult(1, 1.0, ["a"], 10, 5, {f"m{number}": 0.1 for number in range(40)})]
    titles = [axes.get_title("left") for axes in draw(Plotted("r", trained, [as_round(FOUND)])).axes]
    assert len(titles) == 24
    assert {"accuracy (judged)", "loss (judged)", "m0"} <= set(titles)


@pytest.mark.parametrize(("which", "best"), [("max", "best: 3 in round 2"), ("min", "best: 1 in round 1")])
def test_the_rule_of_the_run_says_which_values_of_its_metric_are_better_in_the_plot(which: str, best: str) -> None:
    pytest.importorskip("matplotlib")
    judged = [RoundResult(number, 1.0, ["a"], 1, 1, {"x": value}) for number, value in ((1, 1.0), (2, 3.0))]
    for select, title in ((Select.parse(f"pooled/x:{which}"), best), (None, "")):
        (axes,) = [
            each for each in draw(Plotted("r", [], judged, select)).axes if each.get_title("left") == "x (judged)"
        ]
        assert axes.get_title("right") == title


@pytest.mark.parametrize("name", ["x", "x (weighted)", "worst/x", "pooled/x"])
def test_the_star_of_a_judged_metric_is_at_the_model_that_select_has_chosen(name: str) -> None:
    """By each number that is merged the last round is the best, and by that of --select it was the first."""
    pytest.importorskip("matplotlib")
    merged = {"x": 0.5, "x (weighted)": 0.4, "pooled/x": 0.3}
    judged = [
        RoundResult(number, 1.0, ["a"], 1, 1, {each: number * value for each, value in merged.items()})
        for number in (1, 2, 3)
    ]
    select = Select.parse(f"{name}:max")
    panel = "pooled/x" if name == "pooled/x" else "x"
    for selected, title in ((Selected(f"{name}:max", 1, 0.25, 1), "best: 0.25 in round 1"), (None, "")):
        figure = draw(Plotted("r", [], judged, select, selected))
        titles = {axes.get_title("left"): axes.get_title("right") for axes in figure.axes}
        assert titles[f"{panel} (judged)"] == title
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert (f"best model, by --select {name}:max" in legend) == (selected is not None)
    other = "x" if panel == "pooled/x" else "pooled/x"
    assert titles[f"{other} (judged)"].endswith("in round 3"), "the rule does not go by it"


def test_the_tables_name_the_model_that_was_judged(tmp_path: Path) -> None:
    update = replace(FOUND, round=0, number=1, of=Subject(SubjectKind.UPDATE, 3, "site-2"))
    EvaluationTables(tmp_path).write([FOUND, update])
    for name, lines in (("evaluations.csv", 1), ("evaluations-sites.csv", len(FOUND.sites))):
        with (tmp_path / name).open(newline="") as file:
            found = [(row["round"], row["model"]) for row in csv.DictReader(file)]
        assert (
            found
            == [(str(FOUND.round), f"the model of round {FOUND.round}")] * lines
            + [("0", "the update of site-2 in round 3")] * lines
        )


def test_a_command_shows_the_metrics_for_which_the_table_has_no_room() -> None:
    many = {site: SiteMeasures(1, {f"m{number}": 0.5 for number in range(8)}) for site in "ab"}
    found = replace(FOUND, sites=many, metrics={})
    assert table_of(found)[2].startswith("2 further metrics: `flavor results --metric NAME` shows them")


@pytest.mark.parametrize(
    ("rules", "columns", "own"),
    [
        (["worst/f1:max", "central/pooled/auc:max"], ["auc", "f1", "accuracy"], ["pooled/auc", "a", "b"]),
        (["a:max"], ["accuracy", "auc", "one 0"], ["a", "b", "c"]),
        ([], ["accuracy", "auc", "one 0"], ["a", "b", "c"]),
    ],
)
def test_metrics_of_rules_and_of_most_sites_are_shown_before_those_of_one(
    rules: list[str], columns: list[str], own: list[str]
) -> None:
    """The evaluator of one site reports many names, and the operator's own data have many before that of the rule."""
    alone = {f"one {number}": 0.5 for number in range(9)}
    sites = {"a": {**alone, "accuracy": 0.5, "auc": 0.7}, "b": {"accuracy": 0.9, "auc": 0.8}, "c": {"f1": 0.5}}
    names = dict.fromkeys(name for metrics in sites.values() for name in metrics)
    central = {f"central/{name}": 0.9 for name in (*"abcdefgh", "pooled/auc")}
    found = replace(
        FOUND,
        sites={site: SiteMeasures(1, metrics) for site, metrics in sites.items()},
        metrics=dict.fromkeys(names, 0.5),
        few={name: sum(name in metrics for metrics in sites.values()) for name in names},
        central=SiteMeasures(50, central),
    )
    ruled = ruled_by(map(Select.parse, rules))
    assert table_of(found, ruled=ruled)[0][2:5] == columns
    (line,) = [line for line in lines_of(found, ruled=ruled) if "own data" in line]
    assert line.split(": ")[1].split(", ")[:3] == [f"central/{name} 0.9" for name in own]


def test_a_round_is_shown_by_the_runs_own_evaluation_and_the_newest_of_all_may_be_one_that_was_asked_for():
    own, asked = FOUND, replace(FOUND, number=1, sites={"a": FOUND.sites["a"]}, expected=("a",))
    later, central = replace(asked, round=2, number=2), replace(FOUND, number=OWN, central=SiteMeasures(50))
    every = [own, asked, central, later]
    for round_, number in ((3, 0), (2, 2), (None, 2)):
        chosen = chosen_of(every, round_)
        assert chosen is not None
        assert chosen.number == number, round_
    assert chosen_of([asked, later], 3) == asked, "where the run has none of its own"
    assert chosen_of([central], 3) == central
    assert "judged by 1 site that a command has asked, 100 examples" in lines_of(asked)[0]
    assert "judged by 3 of 4 sites, 400 examples" in lines_of(own)[0]
