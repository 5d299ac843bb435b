"""What a coordinator keeps of the current round, without a server."""

from __future__ import annotations

from dataclasses import replace

from flavor.coordinator.round_as_read import CurrentRound
from flavor.records.round import RoundView
from flavor.records.verdict import Verdict
from tests.recorded import accepted

UPDATE = accepted(path="a", digest="a", size_bytes=12, try_id="t").inspected


def opened(*clients: str) -> CurrentRound:
    round_ = CurrentRound(RoundView.opened(1, (), opened_ms=1, deadline_ms=2))
    for client in clients:
        round_.learn_updates([client], {client: UPDATE}, most_taken_back=3)
    return round_


def test_what_was_taken_back_is_inspected_anew_but_not_without_end() -> None:
    round_ = opened()
    for times in range(5):
        round_.learn_updates(["a"], {"a": UPDATE}, most_taken_back=3)
        round_.requests.times["a"], round_.requests.again_at["a"] = 2, 1e9
        round_.learn_updates(["a"], {}, most_taken_back=3)
        assert round_.requests.times["a"] == 0, "it is no nearer to being refused"
        assert ("a" in round_.requests.again_at) == (times >= 3), "and a site can have no number of jobs made"


def test_what_others_have_handed_in_stays_when_one_client_is_read() -> None:
    round_ = opened("a", "b")
    round_.learn_updates(["a"], {}, most_taken_back=3)
    assert list(round_.updates) == ["b"]


def test_a_newer_try_of_a_refused_client_is_inspected_at_once() -> None:
    round_ = opened("a")
    round_.requests.times["a"], round_.requests.again_at["a"] = 1, 1e9
    round_.learn_verdicts({"a": Verdict(False, "NaN", try_id="t")})
    assert (round_.unjudged, round_.requests.times["a"]) == ([], 1), "this try has its verdict"
    round_.learn_updates(["a"], {"a": replace(UPDATE, try_id="t2")}, most_taken_back=3)
    assert (round_.unjudged, round_.requests.times["a"]) == (["a"], 0)
    assert "a" not in round_.requests.again_at


def test_only_refused_clients_may_hand_in_again() -> None:
    round_ = opened("a", "b", "c")
    round_.learn_verdicts({"a": Verdict(True, "12 bytes", try_id="t"), "b": Verdict(False, "NaN", try_id="t")})
    assert [round_.may_hand_in(client) for client in "abc"] == [False, True, True]
    assert round_.taken_back({"a", "b", "c"}) == {"b"}
