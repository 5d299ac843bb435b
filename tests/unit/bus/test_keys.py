"""The strings of the protocol: clients in other languages spell them."""

from __future__ import annotations

import pytest

from flavor.bus import events
from flavor.bus.keys import FEDTRAIN_SESSIONS, REMOVED, RUNS, RunKeys
from flavor.errors import InvalidSetting, UnknownEvent
from flavor.records.names import Event, event_name
from flavor.records.states import RunState


def test_golden_keys() -> None:
    keys = RunKeys("mnist")
    client = keys.client("site-1")
    assert [
        RUNS,
        REMOVED,
        keys.state,
        keys.members,
        keys.public_keys,
        keys.replaced,
        keys.coordinator,
        keys.refusals,
        keys.aggregator,
        keys.log,
        keys.round(3),
        keys.verdicts(3),
        keys.entries(3),
        keys.measured(3),
        keys.closed,
        keys.reported,
        keys.failing,
        keys.unjudged,
    ] == [
        "flavor:runs",
        "flavor:removed",
        "flavor:{mnist}:run",
        "flavor:{mnist}:members",
        "flavor:{mnist}:public_keys",
        "flavor:{mnist}:replaced",
        "flavor:{mnist}:coordinator",
        "flavor:{mnist}:refusals",
        "flavor:{mnist}:aggregator",
        "flavor:{mnist}:log",
        "flavor:{mnist}:round:3",
        "flavor:{mnist}:round:3:verdicts",
        "flavor:{mnist}:round:3:entries",
        "flavor:{mnist}:round:3:measured",
        "flavor:{mnist}:closed",
        "flavor:{mnist}:reported",
        "flavor:{mnist}:failing",
        "flavor:{mnist}:unjudged",
    ]
    assert FEDTRAIN_SESSIONS == "flavor:fedtrain:sessions"
    assert client.log == "flavor:{mnist}:client:site-1:log"
    assert [client.state, client.lease, client.started, client.hash, client.events_pattern] == [
        "flavor:{mnist}:client:site-1:state",
        "flavor:{mnist}:client:site-1:lease",
        "flavor:{mnist}:client:site-1:started",
        "flavor:{mnist}:client:site-1",
        "flavor:{mnist}:client:site-1:round:*:event:*",
    ]
    assert client.event(2, Event.TRAIN_FINISHED) == "flavor:{mnist}:client:site-1:round:2:event:TrainFinished"
    assert client.update(2) == "flavor:{mnist}:client:site-1:round:2:update"
    assert client.task(2) == "flavor:{mnist}:to:site-1:round:2:task"
    assert client.verdict(2) == "flavor:{mnist}:to:site-1:round:2:verdict"
    assert [client.own_pattern, client.to_pattern] == ["flavor:{mnist}:client:site-1:*", "flavor:{mnist}:to:site-1:*"]
    assert keys.client_patterns == (
        "flavor:{mnist}:client:*:state",
        "flavor:{mnist}:client:*:update",
        "flavor:{mnist}:to:*:verdict",
    )


def test_what_a_client_writes_and_what_it_is_told_have_nothing_in_common() -> None:
    client = RunKeys("r").client("c")
    for key in (client.lease, client.started, client.event(1, Event.ERROR), client.state, client.update(1)):
        assert key.startswith("flavor:{r}:client:c:")
    for key in (client.task(1), client.verdict(1)):
        assert key.startswith("flavor:{r}:to:c:")


def test_channels_parse_back() -> None:
    keys = RunKeys("r")
    client = keys.client("c")
    assert keys.parse_client_channel(client.update(7)) == ("c", "round:7:update")
    assert keys.parse_client_channel(client.state) == ("c", "state")
    assert keys.parse_client_channel(client.verdict(7)) == ("c", "round:7:verdict")
    assert keys.parse_client_channel(keys.round(7)) is None
    assert [client.rest(name) for name in (client.update(7), client.task(7))] == ["round:7:update", "round:7:task"]


@pytest.mark.parametrize("name", ["", "a:b", "a b", "{a}", "../x", ".hidden", "a" * 65, "ä", "a\n"])
def test_names_that_could_leave_a_key_or_a_folder_are_refused(name: str) -> None:
    with pytest.raises(InvalidSetting, match="cannot be used"):
        RunKeys("r").client(name)
    with pytest.raises(InvalidSetting):
        RunKeys(name)


def test_the_accepted_events_are_listed_by_the_error() -> None:
    assert event_name("TrainStarted") is Event.TRAIN_STARTED
    with pytest.raises(UnknownEvent) as caught:
        event_name("TrainStart")
    assert isinstance(caught.value, ValueError)
    for event in Event:
        assert event in str(caught.value)


def test_who_waits_knows_the_ended_states() -> None:
    assert (
        {state for state in RunState if state.ended}
        == set(events._ENDED)
        == {
            RunState.FINISHED,
            RunState.FAILED,
            RunState.STOPPED,
        }
    )
