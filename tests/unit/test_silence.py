"""A server that gives no answer is told of, by one thread for all that wait."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from flavor import silence
from flavor.silence import Silence
from tests.polled import eventually

LONG_S = 30.0


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "_watcher", silence._Watcher())  # one that is not asleep for ten seconds
    monkeypatch.setattr(silence, "FIRST_S", 0.05)


class Told:
    """What was told of a server, and a way to wait for it."""

    def __init__(self) -> None:
        self._changed, self.seconds = threading.Condition(), list[float]()

    def __call__(self, seconds: float) -> None:
        with self._changed:
            self.seconds.append(seconds)
            self._changed.notify_all()

    def until(self, times: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seconds) >= times, LONG_S)


def watchers() -> int:
    return sum(thread.name == "silence" for thread in threading.enumerate())


@contextlib.contextmanager
def others(servers: int) -> Iterator[list[Told]]:
    """Requests to so many further servers."""
    told = [Told() for _ in range(servers)]
    with contextlib.ExitStack() as stack:
        for each in told:
            stack.enter_context(Silence(each).request())
        yield told


def test_what_lasts_is_told_again_after_twice_the_time() -> None:
    told = Told()
    server = Silence(told)
    with server.request():
        told.until(3)
    first, second, third = told.seconds[:3]
    assert first >= 0.05
    assert second >= 2 * first
    assert third >= 2 * second
    assert server.answered()
    assert not server.answered()


def test_one_thread_looks_at_all_servers_and_ends_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "_IDLE_S", 0.2)
    before = watchers()
    with others(3) as told:
        for each in told:
            each.until(1)
        assert watchers() == before + 1
    eventually("it ends", lambda: watchers() <= before, LONG_S)
    with others(1) as told:
        told[0].until(1)


def test_what_moves_is_an_answer() -> None:
    class Moving:
        moved_at = time.monotonic() + LONG_S

    told, other = Told(), Told()
    with Silence(told).request(Moving()), Silence(other).request():
        other.until(2)
    assert told.seconds == []


def test_a_request_that_is_due_sooner_wakes_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    late, soon = Told(), Told()
    monkeypatch.setattr(silence, "FIRST_S", LONG_S)
    with Silence(late).request():
        monkeypatch.setattr(silence, "FIRST_S", 0.05)
        with Silence(soon).request():
            soon.until(1)


def test_a_process_that_may_start_no_thread_asks_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is told again of what is silent once it may."""
    told = Told()

    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limit:
        limit.setattr(threading.Thread, "start", none)
        with Silence(told).request():
            pass
    with Silence(told).request():
        told.until(1)


def test_one_that_cannot_be_told_of_keeps_no_other_from_it() -> None:
    def closed(_: float) -> None:
        raise ValueError("I/O operation on closed file")

    told = Told()
    with Silence(closed).request(), Silence(told).request():
        told.until(2)


def test_a_fork_looks_on_its_own() -> None:
    told = Told()
    with Silence(told).request():
        told.until(1)
        if not (pid := os.fork()):
            with Silence(lambda _: os._exit(3)).request():
                time.sleep(LONG_S)
            os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_one_that_hangs_while_others_are_answered_is_no_news_each_time() -> None:
    told, hanging, over = Told(), threading.Event(), threading.Event()
    server = Silence(told)

    def hang() -> None:
        with server.request():
            hanging.set()
            over.wait(LONG_S)

    thread = threading.Thread(target=hang)
    thread.start()
    hanging.wait(LONG_S)
    while len(told.seconds) < 3:
        with server.request():
            time.sleep(0.001)
        assert not server.answered()
    over.set()
    thread.join(LONG_S)
    assert all(later >= 2 * sooner for sooner, later in pairwise(told.seconds)), told.seconds
    assert server.is_told
    assert server.answered()
    assert not server.is_told


def test_who_has_its_answer_has_it_within_a_longer_request() -> None:
    """A request that is repeated until it helps is one that waits, too."""
    told = Told()
    server = Silence(told)
    with server.request():
        told.until(1)
        with server.request():
            pass
        assert server.answered()
