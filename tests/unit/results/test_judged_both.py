"""Two models are compared over the sites of which both have a value."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from flavor.config import RunConfig
from flavor.policy.selection import Choice, Select, choose
from flavor.records.evaluation import Beside, EvaluationSummary
from flavor.records.info import Info
from flavor.records.merging import merge_infos
from flavor.results.evaluation_summary import evaluation_summary
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
    judged_both = JudgedBoth(config, rule, after, asked=len(after))
    return choose(
        best,
        summary(2, after, config),
        select=rule,
        when=(),
        compare=lambda best, value, sites: judged_both.compare(best, value, sites, judged=before, result_of=before.get),
    )


def info(metrics: dict[str, object]) -> Info:
    return {"metadata": {"epoch": 1, "datasetSize": 20, "importance": 1.0}, "metrics": metrics}


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
    )


def test_counts_of_other_sites_are_not_compared() -> None:
    """The two good sites count in the second evaluation alone, the two bad ones in the first."""
    first = {"a": OTHER, "b": OTHER, "c": right(12), "d": right(12)}
    second = {"a": right(18), "b": right(18), "c": OTHER, "d": OTHER}
    choice = compared("pooled/accuracy:max", first, second)
    assert choice.best is not None
    assert (choice.best.round, choice.beside) == (1, None)
    assert choice.notes == (
        "pooled/accuracy of 2 sites is not compared with that of round 1, of 2 sites: "
        "too few sites have a value of it for both models",
    )


@pytest.mark.parametrize(("good", "best"), [(14, 2), (10, 1)])
def test_counts_of_the_sites_that_have_them_of_both_models_are_compared(good: int, best: int) -> None:
    """The fourth site counts in the first evaluation alone, and badly."""
    first = {**dict.fromkeys("abc", right(12)), "d": right(0)}
    second = {**dict.fromkeys("abc", right(good)), "d": OTHER}
    choice = compared("pooled/accuracy:max", first, second)
    assert choice.best is not None
    assert (choice.best.round, choice.beside) == (best, Beside(good / 20, 0.6, 3))


@pytest.mark.parametrize("select", ["accuracy:max", "worst/accuracy:max", "accuracy (weighted):max"])
def test_a_value_that_is_not_finite_leaves_its_site_out_of_both(select: str) -> None:
    first = {**{site: {"accuracy": 0.5} for site in "abc"}, "d": {"accuracy": 0.125}}
    second = {**{site: {"accuracy": 0.375} for site in "abc"}, "d": {"accuracy": None}}
    choice = compared(select, first, second)
    assert choice.best is not None
    assert (choice.best.round, choice.beside) == (1, Beside(0.375, 0.5, 3))
