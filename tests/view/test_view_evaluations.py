"""What a board, a status and a history know of evaluations, apart from what training scripts report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flavor.bus.runs import RunStore
from flavor.cli.status_lines import summary_of
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationSummary
from flavor.records.failed_evaluation import FailedEvaluation
from flavor.records.pulse import Doing, Pulse
from flavor.records.states import RunState
from flavor.records.subject import Subject, SubjectKind
from flavor.results.read_evaluated import from_redis
from flavor.store.local import LocalStore
from flavor.view.board import Board
from flavor.view.client_snapshot import Phase
from flavor.view.described import described
from flavor.view.evaluations import NONE, automatic_of, described_evaluations, read_evaluations
from flavor.view.history import History
from flavor.view.snapshot import take_snapshot
from tests.driven import Driven
from tests.polled import eventually

C1, C2 = (100, {"accuracy": 0.5, "loss": 2.0}), (300, {"accuracy": 0.9, "loss": 1.0})


@pytest.fixture
def run(server: str, tmp_path: Path) -> Driven:
    return Driven(server, LocalStore(tmp_path / "store", create=True), select="accuracy:max")


def trains(run: Driven) -> None:
    run.open(["c1", "c2"])
    for client in ("c1", "c2"):
        run.accept(client, 10, {"accuracy": 0.1, "loss": 9.0})
    run.close()


def joins(run: Driven, client: str, pulse: Pulse | None = None) -> None:
    keys = run.runs.keys.client(client)
    run.runs.redis.set(keys.lease, "x", px=60_000)
    run.runs.redis.hset(keys.hash, mapping={"state": "ready", "round": "0", **(pulse.to_hash() if pulse else {})})
    run.runs.redis.sadd(run.runs.keys.members, client)
    run.runs.redis.publish(keys.state, "ready")


def hands_in(run: Driven, client: str) -> None:
    key = run.runs.keys.client(client).result(run.round, 0)
    run.runs.redis.hset(key, mapping={"refused": "it cannot"})
    run.runs.redis.publish(key, "1")


def test_evaluations_that_lack_a_site_are_counted_until_one_is_complete(server: str, run: Driven) -> None:
    name, known, told = run.runs.run, NONE, list[tuple[int, int, int]]()
    with Board(server) as board:
        for missing in ({}, {"c2": "it failed"}, {"c2": "it failed"}, {}, {"c2": "it failed"}):
            trains(run)
            run.judge({"c1": C1} if missing else {"c1": C1, "c2": C2}, missing=missing)
            run.judge({"c1": C1}, number=1, missing={"c2": "it hangs"})  # asked for: it does not count
            known = read_evaluations(run.runs, known)
            eventually("it is seen", lambda: (automatic_of(board.document(name)) or {}).get("round") == run.round)
            every = (known, read_evaluations(run.runs))
            told.append((board.document(name)["incomplete_in_a_row"], *(each.incomplete_in_a_row for each in every)))
    assert told == [(number,) * 3 for number in (0, 1, 2, 0, 1)]


def test_a_board_follows_an_evaluation_from_its_beginning_to_its_result(server: str, run: Driven) -> None:
    joins(run, "c1")
    joins(run, "c2")
    trains(run)
    with Board(server, runs=[run.runs.run]) as board:
        name = run.runs.run

        def document() -> dict:
            return board.document(name)

        assert (document()["evaluation"], document()["evaluating"], document()["selected"]) == (None, [], None)
        run.open_evaluation(["c1", "c2"])
        eventually("it is open", lambda: [each["awaited"] for each in document()["evaluating"]] == [["c1", "c2"]])
        hands_in(run, "c1")
        eventually(
            "c1 is in",
            lambda: [(each["in"], each["awaited"]) for each in document()["evaluating"]] == [(["c1"], ["c2"])],
        )
        run.runs.redis.delete(run.runs.keys.evaluation(1, 0))
        run.judge({"c1": C1, "c2": C2}, {"c3": "it is gone"})
        eventually("there is a result", lambda: document()["evaluation"] is not None)
        found = document()
        assert found["evaluating"] == []
        assert (found["evaluation"]["round"], found["evaluation"]["sites"], found["evaluation"]["expected"]) == (
            1,
            2,
            3,
        )
        assert found["evaluation"]["missing"] == {"c3": "it is gone"}
        accuracy = found["evaluation"]["metrics"]["accuracy"]
        assert accuracy["plain_mean"] == pytest.approx(0.7)
        assert accuracy["weighted_mean"] == pytest.approx(0.8)
        assert accuracy["worst"] == "c1"
        assert found["selected"] == {
            "metric": "accuracy",
            "better": "larger",
            "round": 1,
            "value": pytest.approx(0.7),
            "sites": 2,
        }
        assert found["last_round"]["metrics"]["accuracy"] == pytest.approx(0.1), "what training scripts report"


def test_an_evaluation_that_was_asked_for_leaves_that_of_the_run_and_of_the_operators_data(run: Driven) -> None:
    trains(run)
    run.judge({"c1": C1, "c2": C2})
    run.open_evaluation([], number=CENTRAL)

    def described() -> dict[str, Any]:
        return described_evaluations(read_evaluations(run.runs), run.runs.read(), run.config, None)

    found = described()
    assert (found["evaluation"]["evaluation"], found["automatic"]) == (0, None)
    (times,) = found["evaluating_central_times"]
    assert (found["evaluating_central"], times["round"]) == ([1], 1)
    assert times["deadline_ms"] - times["opened_ms"] == 600_000
    run.judge_centrally(50, {"central/accuracy": 0.8}, 1)
    for number in range(1, 10):  # more than are looked through later on
        run.judge({"c1": C1}, number=number)
    found = described()
    assert (found["evaluation"]["evaluation"], found["evaluation"]["sites"]) == (9, 1)
    assert automatic_of(found) == found["automatic"]
    assert (found["automatic"]["evaluation"], found["automatic"]["sites"]) == (0, 2)
    assert found["automatic"]["metrics"]["accuracy"]["plain_mean"] == pytest.approx(0.7)
    assert (found["central"]["metrics"], found["evaluating_central_times"]) == ({"central/accuracy": 0.8}, [])
    assert found["automatic"]["metrics"]["accuracy"]["worst"] == "c1"
    before = read_evaluations(run.runs)
    run.judge({"c1": C1}, number=10)
    after = read_evaluations(run.runs, before)
    assert (after.automatic, after.central) == (before.automatic, before.central) != (None, None)
    assert after.own is before.own, "it is not read again"


def test_a_run_whose_evaluations_fail_says_how_many_and_why_until_one_has_a_result(run: Driven) -> None:
    def fails(number: int, reason: str, *, is_skipped: bool = False) -> None:
        run.open_evaluation(["c1"] if number != CENTRAL else [], number=number)
        view = run.runs.read_evaluation(run.round, number)
        assert view is not None
        run.runs.give_up_evaluation("coordinator", view, reason, is_skipped=is_skipped)

    def told() -> tuple[list[str], list[str]]:
        found = described(run.runs, run.url)
        kinds = [line.text for line in summary_of(found) if line.kind == "absent"]
        sentences = [each["sentence"] for each in found["not_judged"]]
        assert set(sentences) <= set(kinds), "as other troubles, in the first lines"
        return sentences, [each["reason"] for each in found["not_judged"]]

    for _ in range(3):
        trains(run)
        fails(AUTOMATIC, f"evaluation of the model of round {run.round}: c1: its evaluator ended")
    fails(1, "asked for")
    fails(CENTRAL, "on its own: false ended")
    assert told() == (
        [
            "the last 3 evaluations by the sites have no result, the newest: evaluation of the model of round 3: "
            "c1: its evaluator ended",
            "no result: on its own: false ended",
        ],
        ["evaluation of the model of round 3: c1: its evaluator ended", "on its own: false ended"],
    )
    trains(run)
    fails(AUTOMATIC, "the run goes on", is_skipped=True)
    assert len(told()[0]) == 2, "one that is not needed says nothing of the others"
    trains(run)
    run.judge({"c1": C1, "c2": C2})
    assert told()[1] == ["on its own: false ended"]
    run.runs.end(RunState.STOPPED, "enough")
    assert told()[1] == ["on its own: false ended"], "also once the run has ended"


def test_curves_of_evaluations_are_apart_from_those_of_training(run: Driven) -> None:
    trains(run)
    run.judge({"c1": C1, "c2": C2})
    trains(run)
    trains(run)
    history = History(run.runs, None)
    before = history.judged_curves("accuracy")
    run.judge({"c1": C1})
    after = history.judged_curves("accuracy")
    assert (before.rounds, after.rounds) == ((1,), (1, 3))
    assert after.plain == pytest.approx((0.7, 0.5))
    assert after.weighted == pytest.approx((0.8, 0.5))
    assert (after.lowest, after.highest) == (pytest.approx((0.5, 0.5)), pytest.approx((0.9, 0.5)))
    assert history.curves("accuracy", ()).plain == pytest.approx((0.1, 0.1, 0.1))
    assert history.judged_names() == ["accuracy", "loss"]
    assert history.evaluation()["round"] == 3
    metrics = {"accuracy": 0.9, "loss": 1.0}
    assert history.evaluation(1)["sites"]["c2"] == {"examples": 300, "metrics": metrics, "not_finite": {}}


def test_the_rule_of_the_run_says_which_judged_values_of_its_metric_are_better(url: str) -> None:
    """Also by a name that says nothing."""
    for select, best in (("x:max", 2), ("worst/x:min", 1), (None, None)):
        driven = Driven(url, **({"select": select} if select else {}))
        for value in (0.1, 0.7):
            driven.open(["c1"])
            driven.accept("c1")
            driven.close()
            driven.judge({"c1": (10, {"x": value})})
        found = History(driven.runs, None).judged_curves("x").best
        assert (found and found.round) == best


def test_a_site_judges_while_its_evaluator_runs_and_its_result_is_awaited(run: Driven) -> None:
    trains(run)
    evaluates = Pulse(Doing.EVALUATING, 1, 5)
    joins(run, "c1", evaluates)
    joins(run, "c2", Pulse(Doing.WAITING, 1, 5))
    phases = lambda: {name: each.phase for name, each in take_snapshot(run.runs).clients.items()}  # noqa: E731
    assert phases() == {"c1": Phase.DONE, "c2": Phase.DONE}, "no evaluation awaits it: what a site says is not enough"
    run.open_evaluation(["c1", "c2"])
    snapshot = take_snapshot(run.runs)
    assert phases() == {"c1": Phase.JUDGING, "c2": Phase.DONE}
    assert snapshot.clients["c1"].progress.doing is Doing.EVALUATING
    hands_in(run, "c1")
    assert phases()["c1"] is Phase.DONE


def test_a_run_of_which_nothing_was_judged_costs_three_commands(run: Driven, server: str) -> None:
    trains(run)
    counted: list[str] = []

    class Counting(RunStore):
        def evaluating(self) -> list[tuple[int, int]]:
            counted.append("evaluating")
            return super().evaluating()

        def failing(self) -> list[FailedEvaluation]:
            counted.append("failing")
            return super().failing()

        def evaluated(self, first: int = 0) -> list[str]:
            counted.append("evaluated")
            return super().evaluated(first)

        def read_evaluation(self, round_: int, number: int):  # type: ignore[no-untyped-def]
            counted.append("read")
            return super().read_evaluation(round_, number)

    take_snapshot(Counting(run.runs.redis, run.runs.run, server))
    assert counted == ["evaluating", "evaluated", "failing"]


def test_no_model_that_is_or_lacks_a_single_site_s_update_is_the_newest_that_was_judged(run: Driven) -> None:
    trains(run)
    run.judge({"c1": C1, "c2": C2})
    for number in range(1, 111):
        of_site = EvaluationSummary(
            0,
            number,
            opened_ms=1,
            sites=1,
            expected=1,
            metrics={"accuracy": 0.1},
            of=Subject(SubjectKind.UPDATE, 3, "c1"),
        )
        run.runs.redis.rpush(run.runs.keys.evaluated, of_site.closed_at(run.runs.now_ms()))
    for known in (NONE, read_evaluations(run.runs)):
        newest = read_evaluations(run.runs, known).newest
        assert newest is not None
        assert newest.round == 1
    assert from_redis(run.runs).round == 1
    asked = EvaluationSummary(1, 1, opened_ms=1, sites=1, expected=1, metrics={"accuracy": 0.1})
    run.runs.redis.rpush(run.runs.keys.evaluated, asked.closed_at(run.runs.now_ms()))
    found = read_evaluations(run.runs)
    assert found.summary is not None
    assert found.automatic is not None
    assert (found.summary.number, found.automatic.number, found.automatic.sites) == (1, 0, 2)
