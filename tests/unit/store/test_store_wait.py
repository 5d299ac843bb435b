"""The wait for a store that cannot be used for now: how often it is tried, what is told, and when it is given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from flavor.errors import ShareAway, StoreUnavailable
from flavor.store.trouble import MOST_UNSURE, Trouble
from flavor.store.waiting import AGAIN_S, StoreWait

AWAY = ShareAway("store '/s' cannot be used")


@dataclass
class Told:
    """What is told, and the time, which passes only in pauses."""

    told: list[str] = field(default_factory=list)
    now: float = 0.0

    def waits(self, trouble: Trouble) -> None:
        self.told.append("waits")

    def is_back(self) -> None:
        self.told.append("back")

    def pause(self, seconds: float) -> bool:
        self.now += seconds
        return False


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr("flavor.store.waiting.time.monotonic", lambda: told.now)
    return told


def failing(times: int, error: Exception = AWAY) -> Callable[[], str]:
    """Work that fails so many times, and is done then."""
    left = [error] * times

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    return work


def test_work_is_tried_until_it_is_done(told: Told) -> None:
    wait = StoreWait(lambda _: Trouble(AWAY), told, pause=told.pause)
    assert wait.until_done(failing(3)) == "done"
    assert told.told == ["waits"] * 3 + ["back"]
    assert told.now == 3 * AGAIN_S


def test_an_error_that_is_none_of_the_stores_is_raised_at_once(told: Told) -> None:
    with pytest.raises(ShareAway):
        StoreWait(lambda _: None, told, pause=told.pause).until_done(failing(1))
    assert (told.told, told.now) == ([], 0.0)


def test_a_wait_is_given_up_after_its_patience_and_not_because_of_an_earlier_one(told: Told) -> None:
    wait = StoreWait(
        lambda _: Trouble(AWAY),
        told,
        pause=told.pause,
        patience_s=10,
        given_up=lambda trouble: StoreUnavailable(f"{trouble.error}; given up"),
    )
    for _ in range(3):
        wait.until_done(failing(8))
    before = told.now
    with pytest.raises(StoreUnavailable, match="cannot be used; given up"):
        wait.until_done(failing(99))
    assert told.now - before == 10


def test_what_may_be_no_fault_of_the_store_is_tried_a_few_times_in_a_row_and_told_by_nobody(told: Told) -> None:
    wait = StoreWait(lambda _: Trouble(AWAY, is_sure=False), told, pause=told.pause)
    for _ in range(2):  # what worked in between shows that it was not this process
        assert wait.until_done(failing(MOST_UNSURE)) == "done"
    with pytest.raises(ShareAway):
        wait.until_done(failing(MOST_UNSURE + 1))
    assert told.told == ["back"] * 2
    impatient = StoreWait(lambda _: Trouble(AWAY, is_sure=False), told, pause=told.pause, patience_s=2)
    with pytest.raises(ShareAway):
        impatient.until_done(failing(3))


def test_the_end_of_the_program_ends_the_wait(told: Told) -> None:
    with pytest.raises(ShareAway):
        StoreWait(lambda _: Trouble(AWAY), told, pause=lambda _: True).until_done(failing(1))
