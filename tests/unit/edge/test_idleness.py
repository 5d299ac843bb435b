"""A site that has nothing to do says so, once, after a while."""

from __future__ import annotations

from flavor.edge.idleness import SILENT_S, STALLED_S, Idleness
from flavor.view.observer import Lines


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[Idleness, Clock, list[str]]:
    clock, told = Clock(), list[str]()
    return Idleness(Lines(told.append), now=clock), clock, told


def passes(idleness: Idleness, clock: Clock, what: str, seconds: float) -> None:
    """So much time, in which the bus is asked every five seconds."""
    until = clock.now + seconds
    while clock.now < until:
        clock.now = min(clock.now + 5, until)
        idleness.waits_for(what)
        idleness.look()


def test_each_wait_is_told_once_and_a_short_one_never() -> None:
    idleness, clock, told = made()
    passes(idleness, clock, "round 2", SILENT_S - 1)
    passes(idleness, clock, "", 5)
    assert not told
    idleness.waits_for("round 3")
    assert idleness.left_s() == SILENT_S
    passes(idleness, clock, "round 3", 10 * SILENT_S)
    assert told == ["waiting for round 3"]
    assert idleness.left_s() is None
    passes(idleness, clock, "", 1000)
    passes(idleness, clock, "round 4", 2 * SILENT_S)
    assert told == ["waiting for round 3", "waiting for round 4"]


def test_it_is_told_again_after_the_process_stood_still() -> None:
    idleness, clock, told = made()
    passes(idleness, clock, "round 2", 2 * SILENT_S)
    clock.now += 600
    passes(idleness, clock, "round 2", 100)
    assert told == ["waiting for round 2"] * 2


def test_a_trainer_that_keeps_its_site_from_going_on_is_told_of_soon() -> None:
    idleness, clock, told = made()
    idleness.waits_for("TrainFinished of round 1", is_stalled=True)
    assert idleness.left_s() == STALLED_S
    clock.now += STALLED_S
    assert idleness.look()
    assert told == ["waiting for TrainFinished of round 1"]
