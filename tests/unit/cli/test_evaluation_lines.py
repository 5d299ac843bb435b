"""What `flavor status` says of an evaluation: of all sites together, and of metrics that are pooled alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from flavor.cli.evaluation_lines import lines_of_evaluations
from flavor.config import RunConfig
from flavor.records.evaluation import CENTRAL, EvaluationSummary
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.records.subject import Subject
from flavor.results.evaluated import Evaluated, numbers_of
from flavor.results.metric_of_sites import MetricOfSites
from flavor.results.site_measures import SiteMeasures
from flavor.view.evaluations import KnownEvaluations, described_evaluations, merged_of

RUN = RunView("r", RunState.RUNNING, 2, 5, {"rounds": 5}, "", None, created_ms=1, ended_ms=None)
NONE: Mapping[str, Mapping[str, str]] = {}
OWN = {"a": 0.5, "b": 0.9}
FIRST = "; a site judges it before it trains again"
POOLED_AUC = {"pooled/auc": 0.93, "pooled/auc_bound": 0.002}


def said(
    metrics: Mapping[str, float],
    select: str | None = None,
    named: str | None = None,
    own: Mapping[str, float] = OWN,
    odd: Mapping[str, Mapping[str, str]] = NONE,
    number: int = 0,
) -> list[str]:
    """Return the lines about the evaluation of round 3 with these merged metrics, as Redis has it.

    `own` is the accuracy at those of the three sites that report one.
    """
    sites = {
        site: SiteMeasures(40, {"accuracy": own[site]} if site in own else {}, odd.get(site, {})) for site in "abc"
    }
    few = {"accuracy": len(own)}
    found = Evaluated("r", 3, number, "f" * 64, 1, 2, tuple(sites), sites, {}, metrics=metrics, few=few)
    summary = EvaluationSummary(3, number, 1, closed_ms=2, sites=3, expected=3, examples=120, metrics=metrics, few=few)
    config = RunConfig(rounds=5, store="s", select=select)
    described = described_evaluations(KnownEvaluations(found, summary), RUN, config, named)
    assert merged_of(described["evaluation"]) == {
        name: value for name, value in metrics.items() if not name.endswith("_bound")
    }
    return lines_of_evaluations({**described, "run": "r"})


@pytest.mark.parametrize(
    ("metrics", "select", "named", "line"),
    [
        (POOLED_AUC, None, None, "judged: the model of round 3 by 3 sites: pooled/auc 0.93"),
        (
            {"accuracy": 0.7, **POOLED_AUC},
            "pooled/auc:max",
            None,
            "judged: the model of round 3 by 3 sites, plain means: pooled/auc 0.93, accuracy 0.7 of 2 of 3 sites",
        ),
        (
            {**POOLED_AUC, "accuracy": 0.7},
            None,
            "accuracy",
            "judged: the model of round 3 by 3 sites, plain means: accuracy 0.7 of 2 of 3 sites (worst: a, 0.5), "
            "pooled/auc 0.93",
        ),
        ({}, "pooled/auc:max", None, "judged: the model of round 3 by 3 sites: no finite metric"),
    ],
)
def test_a_metric_that_is_pooled_alone_is_shown(
    metrics: Mapping[str, float], select: str | None, named: str | None, line: str
) -> None:
    assert said(metrics, select, named) == [line]


@pytest.mark.parametrize(("number", "asked", "first"), [(0, "", ""), (2, " (asked for)", FIRST), (CENTRAL, "", "")])
def test_an_open_evaluation_says_whether_somebody_asked_for_it(number: int, asked: str, first: str) -> None:
    open_ = {"evaluation": number, "subject": Subject.of_round(3).to_plain(), "merging": False, "in": ["a"]}
    (line,) = lines_of_evaluations({"run": "r", "evaluating": [{**open_, "awaited": ["b"]}]})
    assert line == f"judging{asked}: the model of round 3: a has handed in, b is awaited{first}"
    (line,) = lines_of_evaluations({"run": "r", "evaluating": [{**open_, "awaited": [], "merging": True}]})
    assert line == f"judging{asked}: the model of round 3: an aggregator merges the results of a"


def test_the_value_of_one_site_is_no_mean() -> None:
    (line,) = said({"accuracy": 0.5}, own={"a": 0.5})
    assert line == "judged: the model of round 3 by 3 sites: accuracy 0.5 of 1 of 3 sites"


def test_the_result_of_an_evaluation_says_whether_somebody_asked_for_it() -> None:
    (line,) = said({"accuracy": 0.5}, number=2)
    assert line.startswith("judged: the model of round 3 by 3 sites that a command has asked, plain means: accuracy")


def test_what_a_command_has_asked_stands_beside_the_run_s_own() -> None:
    own, asked = (
        EvaluationSummary(round_, number, 1, closed_ms=2, sites=sites, expected=3, metrics={"accuracy": value})
        for round_, number, sites, value in ((8, 0, 2, 0.7584), (1, 1, 3, 0.7415))
    )
    sites = {site: SiteMeasures(1, {"accuracy": value}) for site, value in (("a", 0.7), ("b", 0.8168))}
    found = replace(numbers_of(own), sites=sites, missing={"c": "it is gone"})
    known = KnownEvaluations(summary=asked, automatic=own, own=found)
    described = described_evaluations(known, RUN, RunConfig(rounds=5, store="s"), None)
    assert lines_of_evaluations({**described, "run": "r"}) == [
        "judged: the model of round 8 by 2 of 3 sites, plain means: accuracy 0.7584 (worst: a, 0.7); "
        "without c: it is gone",
        "judged: the model of round 1 by 3 sites that a command has asked, plain means: accuracy 0.7415",
    ]


def test_the_worst_site_is_the_one_that_diverges() -> None:
    (line,) = said({"accuracy": 0.7}, odd={"c": {"accuracy": "NaN"}})
    assert line.endswith("accuracy 0.7 of 2 of 3 sites (worst: c, NaN)")


def test_the_worst_site_is_not_known_where_redis_lacks_values_of_a_site() -> None:
    sites = {"a": SiteMeasures(1, {"x": 0.1}, is_cut=True), "b": SiteMeasures(1, {"accuracy": 0.9})}
    summary = EvaluationSummary(
        3, 0, 1, sites=2, expected=2, metrics={"accuracy": 0.5}, spread={"accuracy": (0.1, 0.9)}
    )
    known = KnownEvaluations(replace(numbers_of(summary), sites=sites), summary)
    described = described_evaluations(known, RUN, RunConfig(rounds=5, store="s"), None)
    (line,) = lines_of_evaluations({**described, "run": "r"})
    assert "accuracy 0.5 (worst: not known without the values of 1 site)" in line


def test_a_described_metric_need_not_name_what_is_none() -> None:
    assert MetricOfSites.in_document("auc", {"sites": 3, "pooled": 0.9}) == MetricOfSites("auc", 3, pooled=0.9)
