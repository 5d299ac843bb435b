"""Two models are compared over the sites of which both have a value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from flavor.config import RunConfig
from flavor.cook.metrics import binary_counts
from flavor.policy.compared import compared_notes
from flavor.policy.selection import Choice, Select, choose
from flavor.programs.result_file import read_measured
from flavor.records.comparison import Beside, Comparison
from flavor.records.evaluation import BestModel, EvaluationSummary
from flavor.records.info import CONFUSION, Info, checked_info
from flavor.records.lacking import SomeSites
from flavor.records.merging import merge_infos
from flavor.records.not_finite import not_finite_of
from flavor.results.evaluation_summary import central_comparison, evaluation_summary
from flavor.results.judged_both import JudgedBoth

OTHER = {"x": 1.0}


def right(number: int) -> dict[str, object]:
    """The counts of a site that classifies so many of 20 examples right."""
    return {"count/multiclass/confusion": [number, 20 - number, 0, 0]}


def compared(select: str, first: Mapping[str, dict[str, object]], second: Mapping[str, dict[str, object]]) -> Choice:
    """What the second evaluation means, by these metrics of each site."""
    rule = Select.parse(select)
    config = RunConfig(rounds=2, store="file:///store", select=select)
    before, after = ({site: info(metrics) for site, metrics in each.items()} for each in (first, second))
    best = choose(None, summary(1, before, config), select=rule, when=()).best
    judged_both = JudgedBoth(config, rule, after, asked=after)
    return choose(
        best,
        summary(2, after, config),
        select=rule,
        when=(),
        compare=lambda best, found: judged_both.compare(best, found, judged=before, result_of=before.get),
    )


def info(metrics: dict[str, object]) -> Info:
    metadata = {"epoch": 1, "datasetSize": 20, "importance": 1.0}
    return checked_info({"metadata": metadata, "metrics": {**dict.fromkeys(CONFUSION, -1), **metrics}})


def by_info(folder: Path, metrics: dict[str, object]) -> None:
    """Write an info.json, as `SaveInfoJson` does."""
    (folder / "info.json").write_text(json.dumps(info(metrics)))


def by_table(folder: Path, metrics: dict[str, object]) -> None:
    """Write a result.json with a table."""
    table = {"title": "", "labels": list(metrics), "values": list(metrics.values())}
    (folder / "result.json").write_text(json.dumps({"metadata": {"datasetSize": 20}, "results": {"tables": [table]}}))


@pytest.mark.parametrize(
    ("metric", "other"),
    [
        ("pooled/auc", binary_counts([0, 1], [0.5, 0.75], bins=20)),
        ("pooled/accuracy", binary_counts([0, 1], [0.5, 0.75], threshold=0.4)),
        ("pooled/accuracy", right(20)),
    ],
)
def test_a_site_whose_counts_are_left_out_has_judged_neither_model(metric: str, other: dict[str, object]) -> None:
    """Without its bad values the new model only looks better."""
    good, bad = binary_counts([0, 1], [0.2, 0.8]), binary_counts([0, 1] * 20, [0.8, 0.2] * 20)
    choice = compared(f"{metric}:max", {"a": good, "b": good, "c": bad}, {"a": good, "b": good, "c": other})
    assert choice.best is not None
    assert choice.best.round == 1
    assert choice.comparison.beside == Beside(1.0, 1.0, 2)
    assert choice.comparison.lacked == SomeSites.of("c")


@pytest.mark.parametrize("write", [by_info, by_table])
@pytest.mark.parametrize("select", ["a:min", "worst/a:min"])
@pytest.mark.parametrize(("word", "value"), [("inf", math.inf), ("NaN", math.nan)])
def test_both_ways_of_reporting_name_a_model_that_has_diverged(
    tmp_path: Path, write: Callable[[Path, dict[str, object]], None], select: str, word: str, value: float
) -> None:
    """The plan of a reader: the second model is infinite or NaN at one site, and better at the others."""
    rule = Select.parse(select)
    config = RunConfig(rounds=2, store="file:///store", select=select)
    rounds = [values(a=0.5, b=0.5, c=0.5, d=0.5), values(a=0.45, b=0.45, c=0.45, d=value)]
    measured: list[dict[str, Info]] = []
    for number, sites in enumerate(rounds, 1):
        measured.append({})
        for site, metrics in sites.items():
            (folder := tmp_path / str(number) / site).mkdir(parents=True)
            write(folder, metrics)
            measured[-1][site] = read_measured(folder, folder / "info.json", number)[0]
    before, after = measured
    best = choose(None, summary(1, before, config), select=rule, when=()).best
    both = JudgedBoth(config, rule, after, asked=after)
    choice = choose(
        best,
        summary(2, after, config),
        select=rule,
        when=(),
        compare=lambda best, found: both.compare(best, found, judged=before, result_of=before.get),
    )
    assert choice.best == best
    assert choice.comparison.diverged.named == (f"d ({word})",)


def summary(round_: int, infos: Mapping[str, Info], config: RunConfig) -> EvaluationSummary:
    return evaluation_summary(
        round_,
        0,
        opened_ms=1,
        expected=len(infos),
        examples=80,
        merged=merge_infos(list(infos), list(infos.values())),
        sites={site: each["metrics"] for site, each in infos.items()},
        config=config,
        odd={site: not_finite_of(each) for site, each in infos.items()},
    )


def test_counts_of_other_sites_are_not_compared() -> None:
    """The two good sites count in the second evaluation alone, the two bad ones in the first."""
    first = {"a": OTHER, "b": OTHER, "c": right(12), "d": right(12)}
    second = {"a": right(18), "b": right(18), "c": OTHER, "d": OTHER}
    choice = compared("pooled/accuracy:max", first, second)
    assert choice.best is not None
    assert (choice.best.round, choice.comparison.beside) == (1, None)
    assert choice.notes == (
        "pooled/accuracy of 2 sites is not compared with that of round 1, of 2 sites: "
        "too few sites have a value of it for both models (a, b, c and 1 more have one of one model alone)",
    )


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (
            "abc",
            "round 1 stays the best by a: by the 3 sites with a result of both models, a is 0.5 now and was 0.5; "
            "what d has measured of the model of round 1 cannot be read",
        ),
        (
            "ab",
            "a of 5 sites is not compared with that of round 1, of 4 sites: too few sites have a value of it for both "
            "models (what c and d have measured of the model of round 1 cannot be read; e has one of one model alone)",
        ),
    ],
)
def test_a_lost_result_of_the_best_model_is_told_as_lost(there: str, said: str) -> None:
    before, after = ({site: info({"a": 0.5}) for site in sites} for sites in ("abcd", "abcde"))
    config, best = RunConfig(rounds=2, store="file:///store", select="a:max"), BestModel(1, 0.5, 4)
    both = JudgedBoth(config, Select.parse("a:max"), {**after, "e": info({"a": 0.25})}, asked=after)
    kept = {site: before[site] for site in there}
    made = both.compare(best, (0.45, 5), judged=before, result_of=kept.get)
    assert (made.unread, made.lacked) == (SomeSites.of({*before} - {*kept}), SomeSites.of("e"))
    assert Comparison.of_plain(json.loads(json.dumps(made.to_plain()))) == made
    assert compared_notes("a", best, (0.45, 5), made) == [said]


@pytest.mark.parametrize(("good", "best"), [(14, 2), (10, 1)])
def test_counts_of_the_sites_that_have_them_of_both_models_are_compared(good: int, best: int) -> None:
    """The fourth site counts in the first evaluation alone, and badly."""
    first = {**dict.fromkeys("abc", right(12)), "d": right(0)}
    second = {**dict.fromkeys("abc", right(good)), "d": OTHER}
    choice = compared("pooled/accuracy:max", first, second)
    assert choice.best is not None
    assert (choice.best.round, choice.comparison.beside) == (best, Beside(good / 20, 0.6, 3))


@pytest.mark.parametrize("select", ["accuracy:max", "worst/accuracy:max", "accuracy (weighted):max"])
def test_a_value_that_is_not_finite_leaves_its_site_out_of_both(select: str) -> None:
    first = {**{site: {"accuracy": 0.5} for site in "abc"}, "d": {"accuracy": 0.125}}
    second = {**{site: {"accuracy": 0.375} for site in "abc"}, "d": {"accuracy": None}}
    choice = compared(select, first, second)
    assert choice.best is not None
    assert (choice.best.round, choice.comparison.beside) == (1, Beside(0.375, 0.5, 3))


def values(**of: object) -> dict[str, dict[str, object]]:
    return {site: {"a": value} if value is not ... else OTHER for site, value in of.items()}


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("lack", [None, NAN, ...], ids=["null", "NaN", "not reported"])
@pytest.mark.parametrize("select", ["a:max", "worst/a:max", "a (weighted):max"])
def test_two_sites_of_four_are_compared_where_they_alone_report_the_metric(select: str, lack: object) -> None:
    first, second = (values(a=low, b=low + 0.1, c=lack, d=lack) for low in (0.4, 0.5))
    choice = compared(select, first, second)
    assert choice.best is not None
    assert (choice.best.round, choice.best.sites) == (2, 2)
    assert "(of 2 of 4 sites)" in choice.reason
    assert compared(select, second, first).best == compared(select, second, second).best, "the first one stays"


def test_one_of_the_reporting_sites_is_compared_only_if_it_is_most_of_them() -> None:
    first = values(a=0.5, b=0.5, c=0.5, d=...)
    fewer = compared("a:max", first, values(a=0.9, b=None, c=None, d=...))
    assert fewer.best is not None
    assert (fewer.best.round, fewer.comparison.is_made) == (1, False)
    assert "(b and c have one of one model alone)" in fewer.notes[0]
    most = compared("a:max", first, values(a=0.9, b=0.6, c=None, d=...))
    assert (most.best and most.best.round, most.comparison.beside) == (2, Beside(0.75, 0.5, 2))


@pytest.mark.parametrize(("word", "value"), [("inf", INF), ("-inf", -INF), ("NaN", NAN)])
@pytest.mark.parametrize("select", ["a:min", "worst/a:min", "a (weighted):min"])
def test_a_model_that_diverges_at_a_site_where_the_best_one_did_not_is_not_better(
    select: str, word: str, value: float
) -> None:
    finite = values(a=0.5, b=0.5, c=0.5, d=0.5)
    odd = values(a=0.4, b=0.4, c=0.4, d=value)
    choice = compared(select, finite, odd)
    assert choice.best is not None
    assert choice.best.round == 1
    assert choice.comparison.diverged.named == (f"d ({word})",)
    assert f"diverged at d ({word})" in choice.notes[-1]
    recovered = compared(select, odd, finite)
    assert recovered.best is not None
    assert recovered.best.round == 2, "though its other sites are worse"
    assert f"diverged at d ({word})" in recovered.reason
    both = compared(select, odd, values(a=0.3, b=0.3, c=0.3, d=value))
    assert both.best is not None
    assert (both.best.round, both.comparison.diverged.count) == (2, 0), "it has no value of either model"
    assert f"not a finite number at d ({word})" in both.reason


@pytest.mark.parametrize("select", ["a:max", "worst/a:max"])
def test_a_best_model_with_one_nan_does_not_give_way_to_a_model_that_few_sites_have_judged(select: str) -> None:
    """Three of four evaluators fail, and the one that is left could not measure the first model."""
    first = values(a=0.9, b=0.9, c=0.9, d=NAN)
    failed = {"b": None, "c": None}
    fewer = compared(select, first, values(**failed, a=None, d=0.1))
    assert (fewer.best and fewer.best.round, fewer.comparison.is_made) == (1, False)
    assert (
        "too few sites have a value of it for both models (a, b, c and 1 more have one of one model" in fewer.notes[0]
    )
    half = compared(select, first, values(**failed, a=0.1, d=0.1))
    assert (half.best and half.best.round, half.comparison.is_made) == (1, False)
    most = compared(select, first, values(a=0.1, b=0.1, c=None, d=0.1))
    assert (most.best and most.best.round, most.comparison.recovered.named) == (2, ("d (NaN)",))


def test_sites_that_are_infinite_with_both_models_count_where_one_of_them_gives_way() -> None:
    """Two of four sites have a finite value of the new model: not most of those that have measured one of both."""
    first = values(a=NAN, b=NAN, c=NAN, d=0.5)
    choice = compared("a:max", first, values(a=0.9, b=NAN, c=NAN, d=0.1))
    assert (choice.comparison.recovered.count, choice.comparison.beside) == (0, None)
    assert choice.best is not None
    assert choice.best.round == 2, "more sites have judged it, and the values are not compared"


def test_a_site_that_is_infinite_at_all_sites_is_compared_too() -> None:
    choice = compared("a:min", values(a=0.5, b=0.5), values(a=INF, b=NAN))
    assert choice.comparison.diverged.named == ("a (inf)", "b (NaN)")
    assert (choice.best and choice.best.round) == 1


@pytest.mark.parametrize(("value", "is_better"), [(math.inf, False), (math.nan, False), (0.4, True), (0.6, False)])
def test_a_model_that_diverges_on_the_operator_s_own_data_is_not_better(value: float, is_better: bool) -> None:
    select = Select.parse("central/loss:min")
    merged = info({"central/loss": value})
    found = None if merged["metrics"]["central/loss"] is None else (value, 1)
    made = central_comparison(select, BestModel(1, 0.5, 1), found, merged)
    assert made.is_made
    assert made.is_better(is_larger=False) is is_better
    word = {math.inf: "inf", 0.4: "", 0.6: ""}.get(value, "NaN")
    assert made.diverged.named == ((f"the operator's own data ({word})",) if word else ())


def test_a_model_without_a_value_on_the_operator_s_own_data_has_not_diverged() -> None:
    merged = info({"central/loss": None})
    assert not central_comparison(Select.parse("central/loss:min"), BestModel(1, 0.5, 1), None, merged).diverged.count
