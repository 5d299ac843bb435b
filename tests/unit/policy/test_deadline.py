"""Deadlines that are learned: from which times, by which sum, and who counts as slow."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flavor.config import RunConfig
from flavor.coordinator.deadlines import Deadlines
from flavor.errors import InvalidSetting
from flavor.policy.deadline import (
    LAST_ROUNDS,
    Times,
    learned_timeout,
    missed_after,
    missing,
    not_awaited,
    slow_of,
    times_of,
    told_slow,
)
from flavor.policy.learned import Learned
from flavor.records.round import RoundView
from flavor.records.states import ClientState
from flavor.records.verdict import Verdict

GOOD, BAD = Verdict(True, "good"), Verdict(False, "bad")


def took(*seconds: float, late: tuple[float, ...] = ()) -> Times:
    return Times(dict(enumerate(seconds)), dict(enumerate(late)))  # type: ignore[arg-type]


def closed(verdicts: dict[str, Any] | None = None, *, at_ms: int = 61_000, number: int = 7, **more: Any) -> RoundView:
    """A round of a, b, c and d that was opened at 1 s, with a deadline of 60 s."""
    view = RoundView.opened(number, tuple("abcd"), opened_ms=1_000, deadline_ms=61_000)
    return replace(view, verdicts=verdicts or {}, aggregating_ms=at_ms, **more)


def lost(clients: int, law: str, rounds: int, *, slower: float = 1.0) -> float:
    """Return the share of updates that come too late, where the first site takes `slower` times as long as the others.

    Each site's time in each round is drawn anew: from 600 s ± a share of it, or with the logarithm's deviation.
    """
    rng, (name, deviation) = random.Random(0), law.split(":")
    known: list[Times] = []
    late = 0
    for _ in range(rounds):
        timeout_s = learned_timeout(Learned(), known[-LAST_ROUNDS:])[0]
        drawn = [rng.gauss(0, float(deviation)) for _ in range(clients)]
        times = [600 * (1 + each if name == "normal" else math.exp(each)) for each in drawn]
        times[0] *= slower
        slow = {str(site): timeout_s for site, time_s in enumerate(times) if time_s > timeout_s}
        known.append(Times({str(site): each for site, each in enumerate(times) if str(site) not in slow}, slow))
        late += len(slow)
    return late / (rounds * clients)


class TestSetting:
    @pytest.mark.parametrize(
        ("given", "kept", "longest_s"),
        [
            (5, 5.0, 5.0),
            ("90", 90.0, 90.0),
            ("1e3", 1000.0, 1000.0),
            ("auto", "auto:k=3,floor=60,ceiling=86400", 86_400.0),
            ("auto:k=2.5", "auto:k=2.5,floor=60,ceiling=86400", 86_400.0),
            ("auto:floor=5,ceiling=100", "auto:k=3,floor=5,ceiling=100", 100.0),
            ("auto:floor=100000", "auto:k=3,floor=100000,ceiling=100000", 100_000.0),
        ],
    )
    def test_a_number_or_a_rule_and_read_again_it_is_the_same(self, given: Any, kept: Any, longest_s: float) -> None:
        config = RunConfig.parse({"rounds": 2, "store": "-", "round_timeout_s": given})
        assert (config.round_timeout_s, config.longest_round_s) == (kept, longest_s)
        assert RunConfig.parse(config.to_mapping()) == config

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ("0", "above 0 s"),
            ("-3", "above 0 s"),
            ("nan", "above 0 s"),
            ("inf", "above 0 s"),
            (True, "above 0 s"),
            (1e300, "above 0 s"),
            ("soon", "a number of seconds, or auto[:k=3,"),
            ("auto:", None),
            ("auto:k", "bad option 'k'"),
            ("auto:mad=2", "bad option 'mad=2'"),
            ("auto:k=2,k=3", "bad option 'k=3'"),
            ("auto:k=many", "k=many of auto is no number"),
            ("auto:k=-1", "k=-1 of auto: a number from 0 to 1000"),
            ("auto:k=nan", "k=nan of auto"),
            ("auto:floor=0", "floor=0 and ceiling=86400"),
            ("auto:floor=9,ceiling=3", "floor=9 and ceiling=3 of auto"),
            ("auto:ceiling=inf", "ceiling=inf"),
        ],
    )
    def test_what_is_neither_is_refused_with_the_reason(self, given: Any, why: str | None) -> None:
        if why is None:
            assert RunConfig.parse({"rounds": 2, "store": "-", "round_timeout_s": given}).longest_round_s == 86_400
            return
        with pytest.raises(InvalidSetting, match="--round-timeout-s") as refused:
            RunConfig.parse({"rounds": 2, "store": "-", "round_timeout_s": given})
        assert why in str(refused.value)


class TestTimeout:
    def test_it_is_the_median_and_k_times_the_median_deviation(self) -> None:
        rounds = [took(30, 41, 47), took(35, 41, 53), took(41, 38, 60)]  # the deviations: 0 0 0 3 6 6 11 12 19
        assert learned_timeout(Learned(4, 5), rounds, is_lost=False) == (
            65.0,
            "deadline in 1 min 5 s: median 41 s + 4 × 6 s over the last 3 rounds",
        )
        assert learned_timeout(Learned(4, 5), rounds, is_lost=False, opening=3) == (
            260.0,
            "deadline in 4 min 20 s: median 41 s + 4 × 6 s over the last 3 rounds, doubled for opening 3",
        )

    def test_no_slack_is_below_a_share_of_the_median_and_the_share_is_larger_where_work_is_lost(self) -> None:
        rounds = [took(600, 601, 602, 660)] * 3
        assert learned_timeout(Learned(), rounds, is_lost=False)[0] == 1.5 * 601.5
        assert learned_timeout(Learned(), rounds) == (
            2406.0,
            "deadline in 40 min 6 s: median 10 min 2 s + 3 × 10 min 2 s, the least slack, over the last 3 rounds",
        )

    def test_a_late_site_doubles_the_deadline_where_its_work_is_lost_unless_it_always_is_late(self) -> None:
        once, twice = [took(10, 10)] * 4 + [took(10, late=(40,))], [took(10, 10)] * 3 + [took(10, late=(40,))] * 2
        assert [learned_timeout(Learned(3, 1), rounds)[0] for rounds in (once, twice)] == [80, 80]
        assert "1 of 10 updates came too late, doubled as such updates are lost" in learned_timeout(Learned(), once)[1]
        assert learned_timeout(Learned(3, 1), once, is_lost=False)[0] == 15
        assert learned_timeout(Learned(3, 1), [took(10, 10)] * 2 + [took(10, 10, late=(40,))] * 3)[0] == 40

    @pytest.mark.parametrize("clients", [3, 4, 10])
    @pytest.mark.parametrize("law", ["normal:0.05", "normal:0.2", "lognormal:0.2", "lognormal:0.5"])
    def test_it_loses_less_than_a_half_of_a_percent_of_the_updates_of_like_sites(self, law: str, clients: int) -> None:
        assert lost(clients, law, 2000) < 0.005

    def test_a_site_that_is_a_little_slower_loses_nothing(self) -> None:
        """Also where a second one keeps the pace of a third to the second."""
        assert lost(3, "normal:0", 50, slower=3.9) == 0
        assert lost(3, "normal:0", 50, slower=7.9) < 0.2 / 3, "beyond that each sixth update of that site"

    def test_the_floor_and_the_ceiling_hold_and_are_told(self) -> None:
        rounds = [took(2.0, 2.5)] * 3
        assert learned_timeout(Learned(), rounds) == (
            60.0,
            "deadline in 1 min: median 2.2 s + 3 × 2.2 s, the least slack, over the last 3 rounds; the floor is 1 min",
        )
        assert learned_timeout(Learned(3, 0.5, 1.5), rounds)[1].endswith("; the ceiling is 1.5 s")
        assert learned_timeout(Learned(3, 0.5, 1.5), rounds, opening=1000)[0] == 1.5

    def test_until_enough_is_known_it_is_the_longest(self) -> None:
        why = "of 3 rounds from which it is learned, 2 are known"
        for rounds in ([took(4)] * 2, [took(4), Times(), took(4)]):
            assert learned_timeout(Learned(), rounds) == (86_400.0, f"deadline in 1 d: {why}")

    def test_only_the_last_rounds_count(self) -> None:
        assert learned_timeout(Learned(3, 1), [took(900)] * 20 + [took(8)] * LAST_ROUNDS)[0] == 32

    def test_a_deadline_that_most_sites_miss_grows_until_they_meet_it(self) -> None:
        """Sites take 500 s from now on, and the deadline is 60 s."""
        rounds, timeout_s, waited = [took(50, 55, 60)] * 5, 60.0, 0
        while timeout_s < 500:
            rounds.append(took(late=(timeout_s,) * 3))
            timeout_s = learned_timeout(Learned(k=0), rounds, is_lost=False)[0]  # with the least slack
            waited += 1
            assert waited < 40
        assert "came too late" in learned_timeout(Learned(), rounds)[1]

    @given(
        late=st.lists(st.floats(0.1, 1e5), min_size=1, max_size=9),
        times=st.lists(st.floats(0.1, 1e5), min_size=0, max_size=9),
        k=st.floats(0, 100),
    )
    def test_it_stays_within_its_bounds(self, late: list[float], times: list[float], k: float) -> None:
        seconds, _ = learned_timeout(Learned(k, 10, 2000), [took(*times, late=tuple(late))] * 4)
        assert 10 <= seconds <= 2000


class TestTimes:
    def test_of_each_client_by_when_its_update_was_accepted(self) -> None:
        view = closed({"a": GOOD, "b": GOOD, "c": BAD})
        assert times_of(view, {"a": 4_500, "b": 61_000, "c": 2_000}, missing(view)) == Times(
            {"a": 3.5, "b": 60.0}, {"d": 60.0}
        )

    def test_who_was_not_waited_for_is_not_late(self) -> None:
        three = dict.fromkeys("abc", GOOD)
        assert missing(closed(three)) == ["d"]
        assert missing(closed(three, at_ms=9_000)) == [], "the round closed without it, early"
        assert missing(closed(three), gone={"d"}) == []

    def test_the_time_of_an_earlier_task_counts_from_when_its_round_was_opened(self) -> None:
        three = dict.fromkeys("abc", GOOD)
        trains_on = closed(three, since={"d": 5})
        assert times_of(trains_on, {}, ["d"], {5: -89_000}).late_s == {"d": 150.0}
        assert times_of(trains_on, {}, ["d"]).late_s == {}, "its round was pruned"
        assert times_of(trains_on, {}, [], {5: -89_000}).late_s == {}, "the round did not wait for it"
        with_d = closed({**three, "d": GOOD}, since={"d": 5})
        judged = {**dict.fromkeys("abc", 9_000), "d": 3_000}
        assert times_of(with_d, judged, [], {5: -89_000}).took_s == {**dict.fromkeys("abc", 8.0), "d": 92.0}
        assert times_of(with_d, judged, []).took_s == dict.fromkeys("abc", 8.0)

    def test_who_was_late_is_still_known_when_another_coordinator_has_seen_no_site_yet(self) -> None:
        rounds = {n: closed(dict.fromkeys("abc", GOOD), number=n, missed={"d": n}) for n in (1, 2, 3)}
        rounds[4] = closed(number=4, missed=missed_after(rounds[3], gone={"d"}))
        unseen = {"d": SimpleNamespace(state=ClientState.READY, alive=False, quarantined=False)}
        measured = {client: SimpleNamespace(judged_ms=9_000) for client in "abc"}
        runs = SimpleNamespace(read_round=rounds.get, measured=lambda _: measured)
        config = RunConfig.parse({"rounds": 9, "store": "-", "round_timeout_s": "auto:floor=1"})
        deadlines = Deadlines(cast(Any, runs), config, cast(Any, SimpleNamespace(clients=unseen)))
        assert "in which 2 of 11 updates came too late" in deadlines.timeout(4)[1], "d was gone in round 3 alone"

    def test_a_round_during_which_the_run_had_ended_tells_nothing(self) -> None:
        assert times_of(closed({"a": GOOD}, pauses=((2_000, 9_000),)), {"a": 9_500}, []) == Times()


class Federation:
    """Sites that hand in some seconds after they got a task, with `sync:slow=async`, a quorum of one and `auto`."""

    def __init__(self, learned: Learned) -> None:
        self.learned, self.now_ms, self.rounds = learned, 0, dict[int, RoundView]()
        self.times: list[Times] = []
        self.since: dict[str, int] = {}
        self.missed: dict[str, int] = {}
        self.told: list[str] = []

    def round(self, takes_s: dict[str, float], *, most: int = 10) -> set[str]:
        """Open a round and close it; return the clients whose updates it has. Tasks are at most `most` rounds old."""
        number, opened_ms = len(self.rounds) + 1, self.now_ms
        timeout_s = learned_timeout(self.learned, self.times[-LAST_ROUNDS:], is_lost=False)[0]
        deadline_ms = opened_ms + int(timeout_s * 1000)
        slow = not_awaited(self.missed, takes_s, is_learned=True)
        begun = {
            client: self.rounds[self.since[client]].opened_ms if client in self.since else opened_ms
            for client in takes_s
        }
        comes = {client: begun[client] + int(takes_s[client] * 1000) for client in takes_s}
        first_ms = min(comes.values())
        awaited_ms = max((ms for client, ms in comes.items() if client not in slow), default=first_ms)
        until_ms = max(first_ms, min(awaited_ms, deadline_ms))
        verdicts = {client: GOOD for client, ms in comes.items() if ms <= until_ms}
        view = RoundView.opened(
            number, tuple(takes_s), opened_ms=opened_ms, deadline_ms=deadline_ms, since=self.since, missed=self.missed
        )
        view = self.rounds[number] = replace(view, verdicts=verdicts, aggregating_ms=until_ms)
        opened = {each: self.rounds[each].opened_ms for each in self.since.values()}
        self.times.append(times_of(view, comes, missing(view), opened))
        before, self.missed = self.missed, missed_after(view)
        if told := told_slow(self.missed, before, view.expected, trains_on=True):
            self.told.append(told)
        going = {client: view.task_round(client) for client in takes_s if client not in verdicts}
        self.since = {client: task for client, task in going.items() if number + 1 - task <= most}
        self.now_ms = until_ms
        return set(verdicts)


class TestMostSitesBecomeSlow:
    @pytest.mark.parametrize("slower_s", [2.0, 6.0, 60.0])
    @pytest.mark.parametrize("sites", ["abc", "abcd", "abcdefghi"])
    def test_the_deadline_grows_until_they_meet_it(self, sites: str, slower_s: float) -> None:
        """The model would be that of the one site that meets it, as no task of the others is done in ten rounds."""
        federation = Federation(Learned(3, 0.5, 600))
        for _ in range(10):
            assert federation.round(dict.fromkeys(sites, 0.3)) == set(sites)
        takes_s = dict.fromkeys(sites, slower_s) | {"a": 0.3}
        came = [federation.round(takes_s) for _ in range(40)]
        assert set(sites) in came[:25]
        assert came[-10:] == [set(sites)] * 10
        assert federation.since == federation.missed == {}

    def test_one_slow_site_of_three_holds_up_nobody_else_for_long(self) -> None:
        federation = Federation(Learned(3, 0.5, 600))
        for _ in range(10):
            federation.round(dict.fromkeys("abc", 0.3))
        began_ms = federation.now_ms
        for _ in range(40):
            assert {"a", "b"} <= federation.round({"a": 0.3, "b": 0.3, "c": 60.0})
        assert federation.now_ms - began_ms < 40 * 1000


class TestMissed:
    def test_each_deadline_in_a_row_counts_until_a_task_is_done_in_its_round(self) -> None:
        abc = dict.fromkeys("abc", GOOD)
        assert missed_after(closed(abc)) == {"d": 1}
        assert missed_after(closed(abc, missed={"d": 2, "a": 1})) == {"d": 3}, "a is in time again"
        assert missed_after(closed(abc, missed={"d": 2}, since={"d": 5})) == {"d": 3}, "also with an earlier task"
        assert missed_after(closed({**abc, "d": GOOD}, missed={"d": 2}, since={"d": 5})) == {"d": 2}
        assert missed_after(closed({**abc, "d": GOOD}, missed={"d": 5})) == {}
        assert missed_after(closed(abc, at_ms=9_000, missed={"d": 3})) == {"d": 3}, "it was not waited for"

    def test_neither_going_nor_a_refused_update_ends_the_row(self) -> None:
        abc = dict.fromkeys("abc", GOOD)
        assert missed_after(closed(abc, missed={"d": 2}), gone={"d"}) == {"d": 2}
        assert missed_after(closed({**abc, "d": BAD}, missed={"d": 2})) == {"d": 2}

    def test_a_learned_deadline_that_most_sites_miss_is_waited_for_by_all(self) -> None:
        missed = {"b": 3, "c": 4}
        assert not_awaited(missed, "abcd", is_learned=True) == ["b", "c"], "half of them are not most"
        assert not_awaited(missed, "abc", is_learned=True) == []
        assert not_awaited(missed, "abc", is_learned=False) == ["b", "c"], "a deadline that never grows"
        assert told_slow(missed, {"b": 2, "c": 4}, "abc", trains_on=True) == (
            "b has missed the deadline of 3 rounds in a row, and most sites are as slow: rounds wait for all, and the "
            "deadline grows until they meet it"
        )
        assert "no longer wait" in told_slow(missed, {"b": 2}, "abc", trains_on=True, is_learned=False)

    def test_three_in_a_row_are_slow_and_are_told_once(self) -> None:
        assert slow_of({"a": 2, "b": 3, "c": 4}) == ["b", "c"]
        assert told_slow({"b": 3}, {"b": 2}, trains_on=True) == (
            "b has missed the deadline of 3 rounds in a row: rounds no longer wait for it, and its update counts in "
            "the round in which it comes"
        )
        assert "--mode sync:slow=async" in told_slow({"b": 3}, {"b": 2}, trains_on=False)
        assert told_slow({"b": 4}, {"b": 3}, trains_on=True) == told_slow({"b": 2}, {}, trains_on=True) == ""
