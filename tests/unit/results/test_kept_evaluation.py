"""Which file of a result folder has the evaluation that Redis names, and what it adds to what the store has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flavor.records.evaluation import EvaluationSummary
from flavor.results.evaluated import Evaluated
from flavor.results.kept_evaluation import completed, is_of
from flavor.results.site_measures import SiteMeasures

KNOWN = Evaluated(
    run="r",
    round=2,
    number=0,
    model="ab",
    opened_ms=1000,
    closed_ms=2000,
    expected=("c1", "c2", "c3"),
    sites={"c1": SiteMeasures(10, {"accuracy": 0.5}), "c2": SiteMeasures(30, {"accuracy": 0.7})},
    missing={"c3": "it is gone"},
    skipped=("c4",),
    metrics={"accuracy": 0.6, "loss": 1.0},
)
SUMMARY = EvaluationSummary(2, 0, 1000, 2000, sites=2, expected=3, examples=40, metrics={"accuracy": 0.6})


def test_the_time_at_which_redis_closed_an_evaluation_does_not_tell_it_from_the_rebuilt_one() -> None:
    assert is_of(KNOWN, "r", replace(SUMMARY, closed_ms=1960))


@pytest.mark.parametrize(
    "differs",
    [
        {"round": 3},
        {"number": 1},
        {"opened_ms": 1001},
        {"sites": 3},
        {"expected": 2},
        {"examples": 41},
        {"metrics": {"accuracy": 0.61}},
        {"metrics": {"auc": 0.6}},
    ],
    ids="-".join,
)
def test_an_evaluation_that_was_opened_or_merged_anew_is_another_one(differs: dict[str, Any]) -> None:
    assert not is_of(KNOWN, "r", replace(SUMMARY, **differs))
    assert not is_of(KNOWN, "another run", SUMMARY)


def test_folder_and_store_complete_each_other() -> None:
    known = replace(KNOWN, sites={**KNOWN.sites, "c2": SiteMeasures(30)}, unread={"c2": "it was changed"})
    stored = replace(
        KNOWN,
        closed_ms=1960,
        sites={**KNOWN.sites, "c1": SiteMeasures(10)},
        skipped=(),
        metrics={"accuracy": 0.6},
        unread={"c1": "it is gone"},
    )
    assert completed(stored, known) == replace(KNOWN, closed_ms=1960)


def test_what_both_lack_is_told_with_the_lowest_and_highest_value_that_are_known() -> None:
    known = replace(KNOWN, unread={"c1": "it was changed"}, spread={"accuracy": (0.5, 0.7)})
    stored = replace(KNOWN, sites={**KNOWN.sites, "c1": SiteMeasures(10)}, unread={"c1": "it is gone"})
    found = completed(stored, known)
    assert (found.unread, found.spread) == ({"c1": "it is gone"}, known.spread)
    assert found.sites == KNOWN.sites, "the first metrics of c1, which Redis had"


def test_a_file_of_another_model_adds_nothing() -> None:
    stored = replace(KNOWN, unread={"c1": "it is gone"})
    assert completed(stored, replace(KNOWN, model="cd")) == stored
