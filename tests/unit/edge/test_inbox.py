"""What the channels that woke an edge are about."""

from __future__ import annotations

from flavor.bus.keys import RunKeys
from flavor.bus.subscription import RESYNC
from flavor.edge.inbox import News, Woken
from flavor.records.names import Event

RUN = RunKeys("r")
KEYS = RUN.client("a")


def news(*channels: str) -> News:
    return News.of(Woken(channels), KEYS, RUN.state)


def test_channels_are_read_by_what_they_are_about() -> None:
    heard = news(KEYS.task(3), KEYS.task(2), KEYS.verdict(2), KEYS.event(0, Event.TRAIN_INIT_DONE), RUN.state)
    assert (heard.run, heard.resync, heard.admission) == (True, False, False)
    assert heard.rounds("task") == [2, 3]
    assert heard.rounds("verdict") == [2]
    assert heard.is_set(Event.TRAIN_INIT_DONE, 0)
    assert not heard.is_set(Event.TRAIN_INIT_DONE, 1)
    assert news(KEYS.admission).admission
    assert news(RESYNC).resync


def test_a_channel_that_is_named_otherwise_says_nothing() -> None:
    odd = [f"{KEYS.to}:round:{number}:task" for number in ("", "x", "-1", "1e3", "9" * 99)]
    assert news(*odd, "elsewhere", f"{KEYS.to}:round", RUN.client("b").task(1)).by_round == frozenset()
