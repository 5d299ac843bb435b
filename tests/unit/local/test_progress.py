"""What `flavor run` says at its end."""

from __future__ import annotations

import errno
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flavor.config import RunConfig
from flavor.errors import FlavorError
from flavor.local.judging import JudgedModel
from flavor.local.progress import Progress
from flavor.local.site_warnings import site_warnings
from flavor.records.evaluation import CENTRAL, EvaluationSummary
from flavor.results.evaluated import OWN_DATA
from flavor.results.folder import Results
from flavor.results.goal import Goal, goal_behind
from flavor.results.rounds import RoundResult


def test_a_second_interrupt_does_not_lose_how_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    progress, told = Progress("r", 3), "go on with it: flavor run --resume '/a b'"
    with pytest.raises(KeyboardInterrupt), progress.saying_how_to_go_on(Path("/a b")):
        raise KeyboardInterrupt
    assert told in "".join(capsys.readouterr())
    with pytest.raises(FlavorError), progress.saying_how_to_go_on(Path("/a b")):
        raise FlavorError("which is told otherwise")
    assert told not in "".join(capsys.readouterr())


def test_a_closed_terminal_does_not_hide_the_signal_that_ends_the_run() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    progress = Progress("r", 3)
    progress.console = Console(file=Gone())
    with pytest.raises(KeyboardInterrupt), progress.saying_how_to_go_on(Path("/a b")):
        raise KeyboardInterrupt


def test_sites_that_read_one_folder_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    Progress("r", 3).begin([Path("/a"), Path("/b")])
    assert "same folder" not in "".join(capsys.readouterr())
    Progress("r", 3).begin([Path("/a"), Path("/a")])
    assert "all 2 sites read the same folder ($INPUT_PATH): /a; " in "".join(capsys.readouterr())


def test_what_edges_have_warned_of_is_said_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once for all sites, and nothing of what scripts print."""
    for site in ("a", "b"):
        lines = ["flavor: warning: odd", "flavor: warning: odd", "flavor: joined", "loss: warning: 3"]
        (tmp_path / f"{site}.log").write_text("".join(f"2026-12-01 11:56:34 [{site}] {each}\n" for each in lines))
    progress = Progress("r", 3)
    progress.warnings = site_warnings(tmp_path, ["a", "b", "has-no-log"])
    assert progress.warnings == ["a and 1 more: odd"]
    progress.summary(Results("r", "finished", "all rounds are done", [], None, "/a"))
    assert "warning:       a and 1 more: odd" in capsys.readouterr().err


def test_patterns_that_do_not_fit_are_mended_by_a_new_run_first(capsys: pytest.CaptureFixture[str]) -> None:
    progress, results = Progress("r", 3), Results("r", "failed", "round 1: no update", [], None, "/a")
    progress.what_helps = "begin a new run with other patterns"
    progress.summary(results)
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "what helps: begin a new run with other patterns go on with it: flavor run --resume /a once the script" in told
    )


def test_the_last_lines_name_the_best_round(capsys: pytest.CaptureFixture[str]) -> None:
    losses = {1: 0.5, 2: 0.25, 3: 0.75}
    rounds = [RoundResult(number, 1.0, ["a"], 10, 100, {"loss": loss}) for number, loss in losses.items()]
    Progress("r", 3).summary(Results("r", "finished", "all rounds are done", rounds, "/a b/m.pt", "/a b"))
    told = capsys.readouterr().err
    began = "which began from the model of round 1: flavor get '/a b' --round 1"
    assert f"best round:    loss 0.25 in round 2, {began}\n" in told
    Progress("r", 3).summary(Results("r", "finished", "all rounds are done", rounds[:1], "/a b/m.pt", "/a b"))
    assert "best round" not in capsys.readouterr().err, "of one round there is no best"


def test_a_judged_model_stands_below_its_round_and_what_holds_the_rounds_up_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress("r", 3)
    rounds = [RoundResult(number, 0.5, ["a"], 10, 100, {"loss": 1.0 / number}) for number in (1, 2)]
    first = JudgedModel(1, 20.0, "by 3 sites", "accuracy 0.9 (plain mean)", "accuracy:max", holds_up=True)
    own = JudgedModel(1, 30.0, OWN_DATA, "central/accuracy 0.8")
    progress.judged(first)
    assert not capsys.readouterr().err, "its round is not shown"
    progress.closed(rounds[0], 0)
    progress.judged(own)
    progress.closed(rounds[1], 0)
    progress.judged(replace(first, round=2, value="", best_by=""))
    assert capsys.readouterr().err.splitlines() == [
        "round 1/3  0.50 s  1 site  loss 1",
        "model of round 1  judged in 20.00 s: accuracy 0.9 (plain mean) by 3 sites, the best so far "
        "(--select accuracy:max)",
        "judging a model took 20.00 s, and the round 0.50 s: --evaluate 5 judges one model in five rounds",
        "model of round 1  judged in 30.00 s: central/accuracy 0.8 on the operator's own data",
        "round 2/3  0.50 s  1 site  loss 0.5",
        "model of round 2  judged in 20.00 s: no finite metric by 3 sites",
    ]


@pytest.mark.parametrize("model", [{"seconds": 4.9}, {"seconds": 20.0, "holds_up": False}, {"seconds": 59.0}])
def test_judging_that_is_short_or_holds_up_no_round_is_no_word(
    capsys: pytest.CaptureFixture[str], model: dict[str, Any]
) -> None:
    progress = Progress("r", 3)
    progress.closed(RoundResult(1, 60.0 if model["seconds"] > 20 else 0.5, ["a"], 10, 100, {}), 0)
    progress.judged(replace(JudgedModel(1, 0.0, "by 3 sites", "accuracy 0.9", holds_up=True), **model))
    assert "--evaluate" not in capsys.readouterr().err


def test_the_last_lines_offer_the_model_that_has_met_the_goal(capsys: pytest.CaptureFixture[str]) -> None:
    """A rule on the operator's own data ends a run some rounds later than the model that was good enough."""
    name, words = "central/accuracy", "--stop-when 'central/accuracy>=0.9'"
    config = RunConfig(rounds=9, store="file:///s", stop_when=("central/accuracy>=0.9", "f1>0.5"))
    values = {(2, CENTRAL): 0.95, (3, 0): 1.0, (4, CENTRAL): 0.96, (5, CENTRAL): 0.6, (5, 1): 0.9}
    judged = [
        EvaluationSummary(round_, number, 1, sites=1, expected=1, metrics={name if number == CENTRAL else "x": value})
        for (round_, number), value in values.items()
    ]
    goal = goal_behind(config, judged, closed=5)
    assert goal == Goal("central/accuracy>=0.9", name, 0.96, 4)
    assert goal_behind(config, judged[:3], closed=4) is None, "it is the last model"
    assert goal_behind(config, judged[3:], closed=5) is None
    rounds = [RoundResult(5, 1.0, ["a"], 10, 100, {"loss": 0.5})]
    results = Results("r", "finished", "a goal", rounds, "/m.pt", "/out", goal=goal._asdict(), is_met=True)
    Progress("r", 9).summary(results)
    line = f"goal met by:   the model of round 4, central/accuracy 0.96 ({words}): flavor get /out --round 4"
    assert line in capsys.readouterr().err.splitlines()
    Progress("r", 9).summary(replace(results, best_round=4))
    assert "goal met by" not in capsys.readouterr().err, "it is the best one, which has a line"


@pytest.mark.parametrize(
    ("settings", "lost"),
    [
        ({"keep_globals": 2}, " (--keep-globals 2); --select 'pooled/log loss:min' keeps the best model"),
        ({"keep_globals": 2, "select": "accuracy:max"}, " (--keep-globals 2)"),
        ({}, "; --select 'pooled/log loss:min' keeps the best model"),
    ],
)
def test_the_last_lines_say_that_the_model_that_has_met_the_goal_is_gone(
    settings: dict[str, Any], lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store says whether it has the model: one that --keep-globals does not keep may be there all the same."""
    config = RunConfig(rounds=9, store="file:///s", stop_when=("pooled/log loss<0.2",), **settings)
    judged = [EvaluationSummary(2, 0, 1, sites=1, expected=1, metrics={"pooled/log loss": 0.1})]
    there = goal_behind(config, judged, closed=6, is_there=lambda round_: round_ == 2)
    assert there is not None
    assert not there.lost
    goal = goal_behind(config, judged, closed=6, is_there=lambda round_: round_ != 2)
    assert goal is not None
    assert goal.lost == f"it is no longer in the store{lost}"
    rounds = [RoundResult(6, 1.0, ["a"], 10, 100, {"loss": 0.5})]
    Progress("r", 9).summary(Results("r", "finished", "g", rounds, "/m.pt", "/out", goal=goal._asdict(), is_met=True))
    said = f"the model of round 2, pooled/log loss 0.1 (--stop-when 'pooled/log loss<0.2'): {goal.lost}"
    assert f"goal met by:   {said}" in capsys.readouterr().err.splitlines()


def test_the_last_lines_say_which_mean_is_which_where_models_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    """The same model has two losses: the plain mean of evaluations, and the weighted one of training scripts."""
    rounds = [
        RoundResult(number, 1.0, ["a", "b"], 10, 100, {"loss": 0.5, "loss (weighted)": loss})
        for number, loss in ((1, 0.5), (2, 0.25))
    ]
    judged = {
        "metric": "loss",
        "metrics": {"loss": {"plain_mean": 0.5, "sites": 2}},
        "sites": {site: {"examples": 50, "metrics": {"loss": 0.5}} for site in "ab"},
        "missing": {},
        "expected": "ab",
    }
    best = {"select": "loss:min", "round": 1, "value": 0.5, "sites": 2}
    of_run = Results("r", "finished", "all rounds are done", rounds, "/m.pt", "/out")
    Progress("r", 2).summary(replace(of_run, best=best, evaluation={**judged, "round": 2, "evaluation": 0}))
    told = capsys.readouterr().err
    assert "judged:        loss 0.5 (plain mean) by 2 sites, round 2" in told
    assert "best judged:   the model of round 1, loss 0.5 (plain mean) by 2 sites, by --select" in told
    assert "metrics:       what scripts report in round N is of the model of round N-1, unless " in told
    assert "best reported: loss 0.25 (weighted mean) in round 2" in told
    Progress("r", 2).summary(replace(of_run, best=best, shares="--local '*bn*'"))
    told = capsys.readouterr().err
    assert "its shared tensors: the sites keep their own ones of the last round alone" in told
    assert "whole models are at the sites that have one: /out/clients/SITE/global" in told
    Progress("r", 2).summary(of_run)
    assert "mean" not in capsys.readouterr().err, "there is one only"
