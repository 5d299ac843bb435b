"""Asynchronous rounds: when one closes, who trains on, whose task is too old, and who joins while it is open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flavor.config import RunConfig
from flavor.policy.buffered import carried, given_up, given_up_lately, newcomers, outdated_after
from flavor.policy.closers import are_few, most_of, told_most, why_outpaced
from flavor.policy.decision import Action, close_round
from flavor.policy.mode import Buffered
from flavor.policy.next_step import Known, next_step
from flavor.policy.standing import Client, Standing
from flavor.policy.told_tasks import too_old, why_outdated
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import ClientState, RoundState, RunState
from flavor.records.verdict import Verdict

MODE = Buffered(2, max_staleness=3)
CONFIG = RunConfig(rounds=9, store="-", min_clients=3, mode=str(MODE))
READY = Client(ClientState.READY, alive=True)
ACCEPTED = Verdict(True, "good")


def a_round(number: int = 5, expected: str = "abc", since: dict[str, int] | None = None, judged: str = "") -> RoundView:
    view = RoundView.opened(number, tuple(expected), opened_ms=0, deadline_ms=1000, since=since or {})
    return replace(view, verdicts=dict.fromkeys(judged, ACCEPTED))


def standings(**of: Standing) -> dict[str, tuple[Standing, str]]:
    return {name: (standing, "") for name, standing in of.items()}


def closed(now_ms: int = 500, *, is_early: bool = True, since: dict[str, int] | None = None, **of: Standing):
    found = close_round("r", now_ms, a_round(since=since), standings(**of), CONFIG, is_early=is_early)
    return found.action, found.reason


A, P, S, G = Standing.ACCEPTED, Standing.PENDING, Standing.SUBMITTED, Standing.GONE


class TestWhenARoundCloses:
    def test_with_the_buffer_full_it_closes_and_says_who_trains_on(self) -> None:
        assert closed(a=A, b=A, c=P, since={"c": 3}) == (
            Action.AGGREGATE,
            "2 of 2 needed updates accepted; 1 client trains on: c (since round 3)",
        )
        assert closed(a=A, b=A, c=A) == (Action.AGGREGATE, "3 of 2 needed updates accepted")
        assert closed(a=A, b=S, c=A)[1].endswith("1 client trains on: b"), "its update counts in the next round"

    def test_until_then_it_waits_for_any_and_says_from_which_model_each_trains(self) -> None:
        action, reason = closed(a=A, b=P, c=P, since={"c": 3})
        assert action is Action.WAIT
        assert reason == "1 of 2 updates accepted, waiting for b, c (since round 3)"

    def test_it_does_not_wait_for_the_slow_once_it_has_its_quorum(self) -> None:
        def found(now_ms: int = 500, slow: str = "c", **of: Standing) -> tuple[Action, str]:
            config = CONFIG.model_copy(update={"mode": str(Buffered(None)), "quorum": 2})
            made = close_round("r", now_ms, a_round(since={"c": 3}), standings(**of), config, slow=slow)
            return made.action, made.reason

        on = "1 client trains on: c (since round 3)"
        assert found(a=A, b=A, c=P) == (Action.AGGREGATE, f"2 of 3 updates accepted; {on}")
        assert found(a=A, b=A, c=P, slow="") == (
            Action.WAIT,
            "2 of 3 updates accepted, waiting for c (since round 3)",
        )
        assert found(a=A, b=P, c=P)[1] == "1 of 3 updates accepted, waiting for b, c (since round 3)", "no quorum yet"
        assert found(a=A, b=P, c=A, slow="c")[1] == "2 of 3 updates accepted, waiting for b", (
            "c has come, b is not slow"
        )
        assert found(a=A, b=A, c=S)[0] is Action.WAIT, "what is handed in is inspected"
        assert found(a=A, b=A, c=G) == (Action.AGGREGATE, "2 of 3 updates accepted; without c: ")
        assert found(2_000, slow="", a=A, b=A, c=P)[0] is Action.AGGREGATE

    def test_without_a_model_it_waits_for_all_as_a_synchronous_one(self) -> None:
        assert closed(a=A, b=A, c=P, is_early=False)[0] is Action.WAIT

    def test_those_that_are_gone_may_leave_too_few(self) -> None:
        action, reason = closed(a=A, b=G, c=G)
        assert action is Action.FAIL
        assert "2 updates are needed and 1 can come" in reason
        waits = CONFIG.model_copy(update={"on_quorum_lost": "wait"})
        found = close_round("r", 500, a_round(), standings(a=A, b=G, c=G), waits, is_early=True)
        assert found.action is Action.HOLD

    def test_the_deadline_bounds_the_wait_for_the_buffer(self) -> None:
        assert closed(1000, a=A, b=P, c=P)[0] is Action.FAIL
        assert closed(1000, a=A, b=A, c=P)[0] is Action.AGGREGATE

    @pytest.mark.parametrize("has_model", [True, False])
    def test_the_next_step_knows_whether_updates_have_a_base(self, has_model: bool) -> None:
        model = GlobalModel(ObjectRef("p", "d" * 64, 3)) if has_model else None
        run = RunView("r", RunState.RUNNING, 5, 9, {}, "", model, created_ms=0, ended_ms=None)
        round_ = replace(a_round(), state=RoundState.OPEN)
        known = Known(run, round_, standings(a=A, b=A, c=P), dict.fromkeys("abc", READY), CONFIG, 500)
        assert next_step(known).action is (Action.AGGREGATE if has_model else Action.WAIT)


class TestWhoGoesOn:
    def test_who_has_no_verdict_goes_on_with_the_task_that_it_has(self) -> None:
        view = a_round(since={"c": 4}, expected="abcd", judged="a")
        assert carried(view, dict.fromkeys("abcd", READY), MODE) == ({"b": 5, "c": 4, "d": 5}, {})

    def test_who_was_refused_gets_another_task(self) -> None:
        view = replace(a_round(), verdicts={"a": Verdict(False, "NaN")})
        assert "a" not in carried(view, dict.fromkeys("abc", READY), MODE)[0]

    def test_who_is_away_for_now_goes_on_and_who_is_gone_for_good_does_not(self) -> None:
        clients = {
            "a": replace(READY, alive=False),
            "b": replace(READY, state=ClientState.STOPPED),
            "c": replace(READY, state=ClientState.LEFT),
            "d": replace(READY, state=ClientState.REVOKED),
            "e": replace(READY, quarantined=True),
            "f": replace(READY, is_admitted=False),
            "g": replace(READY, trains=False),
        }
        assert carried(a_round(expected="abcdefgh"), clients, MODE) == ({"a": 5, "b": 5}, {})

    def test_a_task_may_be_as_many_rounds_old_as_the_maximum(self) -> None:
        view = a_round(10, since={"a": 8, "b": 7})
        going, old = carried(view, dict.fromkeys("abc", READY), MODE)
        assert (going, old) == ({"a": 8, "c": 10}, {"b": 7})
        assert too_old(11, old, MODE) == (
            "; past the maximum staleness of 3 rounds: b (since round 7, 4 rounds): no update of these tasks counts "
            "any more, and their sites get the newest model"
        )
        assert too_old(11, {}, MODE) == ""

    def test_with_a_maximum_of_0_nobody_goes_on(self) -> None:
        assert carried(a_round(), dict.fromkeys("abc", READY), Buffered(2, max_staleness=0))[0] == {}


def test_a_task_is_given_up_that_the_next_round_is_not_open_for() -> None:
    before = a_round(5, expected="abcde", since={"b": 4, "c": 2, "d": 4}, judged="a")
    now = a_round(6, expected="abcd", since={"b": 4})
    assert given_up(before, now) == {"c": 2, "d": 4, "e": 5}, "c and d have a new task, e is gone"
    assert given_up(before, a_round(6, since={"b": 4, "c": 2, "d": 4, "e": 5})) == {}


def test_a_coordinator_that_takes_over_knows_the_tasks_that_were_given_up_some_rounds_before() -> None:
    """c is gone since round 4, and hands in its task of round 3 now; the task of d counted in round 5."""
    rounds = [
        a_round(3, expected="abcd", judged="ab"),
        a_round(4, expected="abcd", since={"c": 3, "d": 3}, judged="ab"),
        a_round(5, expected="abd", since={"d": 3}, judged="abd"),
        a_round(6, expected="abd", judged="ad"),
    ]
    assert given_up_lately(rounds, a_round(7, expected="abd", since={"b": 6})) == {"c": 3}
    assert given_up_lately(rounds, a_round(7, expected="abd")) == {"b": 6, "c": 3}


def test_tasks_that_get_too_old_count_in_a_row_until_an_update_counts() -> None:
    before = replace(a_round(expected="abcd", judged="a"), outdated={"a": 2, "b": 2, "c": 1})
    refused = replace(before, verdicts={**before.verdicts, "c": Verdict(False, "NaN")})
    assert outdated_after(refused, {"b": 3, "d": 3}) == {"b": 3, "c": 1, "d": 1}
    assert outdated_after(a_round(), {}) == {}
    assert why_outdated(MODE) == (
        "its last 3 tasks were given up, each past the maximum staleness of 3 rounds: nothing that it trains counts; "
        "have it train less in a round"
    )


def test_sites_that_few_quick_ones_leave_behind_are_not_slow() -> None:
    alone = [replace(a_round(number), contributors=("a",)) for number in range(4)]
    assert are_few(alone, 4)
    assert not are_few([*alone, replace(a_round(5), contributors=("b", "c"))], 4), "three of four keep the pace"
    assert why_outpaced(MODE, alone, 4) == (
        "its last 3 tasks were given up, each past the maximum staleness of 3 rounds: the last 4 rounds were closed by "
        "a of 4 sites, sooner than most sites train: nothing that it trains counts; a run with a buffer larger than 2, "
        "a larger max_staleness, or --mode sync:slow=async has more of the sites in its rounds"
    )


def test_a_site_that_has_half_of_the_updates_is_told() -> None:
    def rounds(*contributors: str) -> list[RoundView]:
        return [replace(a_round(number), contributors=tuple(each)) for number, each in enumerate(contributors)]

    assert most_of(rounds(*"aaab"), 4) == most_of(rounds("ab", "ac", "ad", "ab"), 4) == "a"
    assert most_of(rounds("abc", "abd", "acd"), 4) == most_of(rounds(*"aaa"), 2) == most_of([], 4) == ""
    assert told_most(MODE, rounds(*"aaab"), "a").startswith(
        "warning: a has handed in 3 of the 4 updates of the last 4 rounds: it hands in sooner than the other sites"
    )


def test_who_becomes_ready_gets_the_task_of_the_open_round() -> None:
    clients = {**dict.fromkeys("abcxe", READY), "y": Client(ClientState.JOINED, alive=True)}
    assert newcomers(a_round(), clients) == ("e", "x")
