"""The table of a run's evaluations: who has judged which model, one metric merged, and which model is the best."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flavor.errors import RunError
from flavor.records.evaluation import AUTOMATIC, CENTRAL, BestModel, EvaluationSummary
from flavor.records.subject import Subject, SubjectKind
from flavor.results.read_evaluated import Chosen, chosen_among, numbered_among
from flavor.results.site_measures import SiteMeasures
from flavor.store.local import LocalStore
from flavor.view.history import History
from flavor.view.judged_table import ROWS, JudgedTable
from tests.driven import Driven


def begun(server: str, tmp_path: Path, **settings: Any) -> Driven:
    return Driven(server, LocalStore(tmp_path / "store", create=True), **settings)


def trains(run: Driven) -> None:
    run.open(["c1"])
    run.accept("c1", 10, {"accuracy": 0.1})
    run.close()


def test_a_row_says_who_has_judged_which_model_and_who_has_not(server: str, tmp_path: Path) -> None:
    run = begun(server, tmp_path)
    trains(run)
    sites = {"c1": (100, {"loss": 2.0, "accuracy": 0.5}), "c2": (300, {"loss": 1.0, "accuracy": 0.9})}
    run.judge(sites, {"c3": "x" * 1000}, skipped=[f"c{n}" for n in range(10, 40)])
    table = History(run.runs, None).evaluations("pooled/accuracy")
    (row,) = table["rows"]
    view = run.runs.read_evaluation(1, AUTOMATIC)
    assert view is not None
    assert (row["round"], row["evaluation"], row["sites"], row["expected"], row["examples"]) == (
        1,
        AUTOMATIC,
        2,
        3,
        400,
    )
    assert (row["model"], row["closed_ms"]) == (view.model.model.digest, view.closed_ms)
    assert row["missing"] == {"c3": "x" * 300}
    assert (len(row["skipped"]), row["all_skipped"]) == (20, 30)
    assert (table["metric"], table["earlier"]) == ("accuracy", 0)
    assert row["merged"]["plain_mean"] == pytest.approx(0.7)
    assert (row["merged"]["lowest"], row["merged"]["worst"], row["merged"]["better"]) == (0.5, "c1", "larger")
    assert History(run.runs, None).evaluations("nothing")["rows"][0]["merged"] is None


def test_a_row_names_no_worst_site_where_redis_lacks_the_value_of_another(server: str, tmp_path: Path) -> None:
    run = begun(server, tmp_path)
    trains(run)
    shared = {f"m{number}": 0.5 for number in range(19)}
    own = {"mine": 1.0, "accuracy": 0.1}  # there is room for the first in the verdict
    sites = {"c1": (100, {**shared, **own}), "c2": (300, {**shared, "accuracy": 0.9})}
    run.judge({**sites, "c3": (1, shared), "c4": (1, shared)})
    (row,) = History(run.runs, None).evaluations("accuracy")["rows"]
    names = ("sites", "lowest", "highest", "worst", "unknown")
    assert [row["merged"][name] for name in names] == [2, 0.1, 0.9, None, 1]


def test_the_best_is_that_of_select_or_else_by_the_values(server: str, tmp_path: Path) -> None:
    by_loss, by_none = begun(server, tmp_path, select="loss:min"), begun(server, tmp_path)
    for run in (by_loss, by_none):
        for accuracy, loss in ((0.9, 3.0), (0.7, 1.0), (0.8, 2.0)):
            trains(run)
            run.judge({"c1": (10, {"accuracy": accuracy, "loss": loss})})
    found = History(by_loss.runs, None).evaluations()
    assert (found["metric"], found["best"]) == ("loss", {"round": 2, "metric": "loss", "selected": True})
    assert [row["round"] for row in found["rows"]] == [3, 2, 1]
    history = History(by_none.runs, None)
    assert history.evaluations()["best"] == {"round": 1, "metric": "accuracy", "selected": False}
    assert history.evaluations("loss")["best"] == {"round": 2, "metric": "loss", "selected": False}


def test_the_curve_of_the_metric_of_select_marks_the_model_that_select_has_chosen(server: str, tmp_path: Path) -> None:
    """Also where most evaluations are by more sites, so that the best of these would be another one."""
    run = begun(server, tmp_path, select="accuracy:max")
    for c1, c3 in ((0.57, 0.1), (0.56, 0.1), (0.58, None)):
        trains(run)
        sites = {"c1": (10, {"accuracy": c1, "loss": c1}), "c2": (10, {"accuracy": c1, "loss": c1})}
        both = {**sites, "c3": (10, {"accuracy": c3, "loss": 0.1})} if c3 else sites
        run.judge(both, {} if c3 else {"c3": "its evaluator ended"})
    chosen = BestModel(3, 0.58, 2)  # as a worker chooses, which compares models over the sites that have judged both
    run.runs.redis.hset(run.runs.keys.state, mapping=chosen.to_hash())
    history = History(run.runs, None)
    marked = history.judged_curves("accuracy").best
    assert marked is not None
    assert (marked.round, marked.value) == (3, pytest.approx(0.58))
    assert (marked.sites, marked.contributors, marked.without) == (2, 2, "")
    assert history.evaluations()["best"]["round"] == 3
    by_values = history.judged_curves("loss").best
    assert by_values is not None
    assert (by_values.round, by_values.newest_fewer) == (2, 3), "of another metric, by its values"


def test_an_evaluation_that_has_failed_has_a_row_with_the_reason_where_it_belongs(server: str, tmp_path: Path) -> None:
    run = begun(server, tmp_path)
    history = History(run.runs, None)

    def fails(number: int = AUTOMATIC) -> None:
        run.open_evaluation(["c1"] if number == AUTOMATIC else [], number=number)
        view = run.runs.read_evaluation(run.round, number)
        assert view is not None
        run.runs.give_up_evaluation("coordinator", view, f"the model of round {run.round}: c1: it ended")

    trains(run)
    fails()
    assert [(row["round"], row["failed"]) for row in history.evaluations()["rows"]] == [
        (1, "the model of round 1: c1: it ended")
    ]
    trains(run)
    run.judge({"c1": (10, {"accuracy": 0.9})})
    trains(run)
    fails()
    fails(CENTRAL)
    for each in (history, History(run.runs, None)):
        found = each.evaluations()
        assert [(row["at"], row["round"], row["evaluation"], bool(row["failed"])) for row in found["rows"]] == [
            (3, 3, CENTRAL, True),
            (2, 3, AUTOMATIC, True),
            (1, 2, AUTOMATIC, False),
            (0, 1, AUTOMATIC, True),
        ]
        assert (found["metric"], found["best"]["round"]) == ("accuracy", 2)
        assert each.evaluation()["round"] == 2


def test_the_operators_own_data_has_rows_of_its_own(server: str, tmp_path: Path) -> None:
    run = begun(server, tmp_path)
    trains(run)
    run.open_evaluation([], number=CENTRAL)
    measured = {"central/accuracy": 0.6, "central/pooled/accuracy": 0.61, "central/loss": 3.0}
    run.judge_centrally(50, measured, 1)
    history = History(run.runs, None)
    assert history.evaluations()["metric"] == "accuracy", "also where no site judges"
    run.judge({"c1": (10, {"accuracy": 0.9})})
    judged, own = history.evaluations("central/accuracy")["rows"]
    assert (judged["evaluation"], judged["own"]) == (AUTOMATIC, {})
    assert (own["evaluation"], own["merged"], own["model"]) == (CENTRAL, None, judged["model"])
    assert own["own"] == {"central/accuracy": 0.6, "central/pooled/accuracy": 0.61}
    assert history.evaluation()["central"]["examples"] == 50
    assert history.evaluation(1, CENTRAL)["evaluation"] == CENTRAL
    assert history.evaluation(1, AUTOMATIC)["evaluation"] == AUTOMATIC
    with pytest.raises(RunError, match="has no evaluation 7 of the model of round 1: there are 0, central"):
        history.evaluation(1, 7)


def test_older_rows_come_by_the_page_and_each_evaluation_is_read_once(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(server, tmp_path)
    for _ in range(ROWS + 3):
        trains(run)
        run.judge({"c1": (10, {"accuracy": 0.9})})
    read, of = [], run.runs.read_evaluation
    monkeypatch.setattr(run.runs, "read_evaluation", lambda *name: read.append(name) or of(*name))
    history = History(run.runs, None)
    for _ in range(3):
        newest = history.evaluations()
        assert [row["round"] for row in newest["rows"]] == list(range(ROWS + 3, 3, -1))
        assert newest["earlier"] == newest["rows"][-1]["at"] == 3
        oldest = history.evaluations(before=3)
        assert ([row["round"] for row in oldest["rows"]], oldest["earlier"]) == ([3, 2, 1], 0)
        assert history.evaluation(5)["round"] == 5
    assert sorted(read) == sorted([(n, AUTOMATIC) for n in range(1, ROWS + 4)] + [(5, AUTOMATIC)])


def test_a_model_that_is_one_sites_update_is_in_the_table_and_is_never_the_newest(server: str, tmp_path: Path) -> None:
    run = begun(server, tmp_path)
    of_all = EvaluationSummary(3, AUTOMATIC, 1, 2, 2, 2, 20, {"accuracy": 0.9})
    own = EvaluationSummary(3, CENTRAL, 1, 3, 1, 1, 50, {"central/accuracy": 0.8})
    of_one = EvaluationSummary(0, 1, 4, 5, 2, 2, 20, {"loss": 0.1}, of=Subject(SubjectKind.UPDATE, 3, "c1"))
    every = [of_all, own, of_one]
    assert chosen_among("r", every) == Chosen(of_all, SiteMeasures(50, {"central/accuracy": 0.8}))
    assert numbered_among("r", every, 0, 1) == Chosen(of_one, None)
    with pytest.raises(RunError, match="no model of run 'r' has been judged"):
        chosen_among("r", [of_one])
    page = JudgedTable(run.runs, run.store).page(every, "", None, None)
    assert (page["metric"], [row["evaluation"] for row in page["rows"]]) == ("accuracy", [1, CENTRAL, AUTOMATIC])
    assert page["rows"][0]["subject"] == {"kind": "update", "round": 3, "site": "c1"}
    assert {row["model"] for row in page["rows"]} == {""}, "Redis has their numbers alone"


def test_what_takes_long_to_read_comes_with_later_calls(server: str, tmp_path: Path) -> None:
    ticks = count()
    slow = JudgedTable(begun(server, tmp_path).runs, None, clock=lambda: 0.4 * next(ticks))
    every = [EvaluationSummary(n, AUTOMATIC, 1, 2, 1, 1, 20, {"accuracy": 0.9}) for n in range(1, 6)]
    found = slow.page(every, "", None, None)
    assert ([row["round"] for row in found["rows"]], found["earlier"]) == ([5, 4, 3], 2)
    found = slow.page(every, "", found["earlier"], None)
    assert ([row["round"] for row in found["rows"]], found["earlier"]) == ([2, 1], 0)
