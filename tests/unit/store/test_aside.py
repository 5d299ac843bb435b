"""Work in threads beside the one that waits: taken again, holding nothing, none too many."""

from __future__ import annotations

import os
import threading
import time
import weakref

import pytest

from flavor.store.aside import begun, in_lanes


def in_thread() -> int:
    return threading.get_ident()


def test_one_thing_after_the_other_takes_the_same_thread():
    first = begun(in_thread).result()
    assert first != threading.get_ident()
    assert {begun(in_thread).result() for _ in range(50)} == {first}


def test_what_hangs_keeps_nothing_else_waiting():
    go_on = threading.Event()
    hanging = begun(lambda: go_on.wait(60) and threading.get_ident())
    assert begun(in_thread).result(60) is not None
    go_on.set()
    assert hanging.result(60) != threading.get_ident()


def test_an_error_reaches_the_one_that_waits_and_ends_no_thread():
    with pytest.raises(ZeroDivisionError):
        begun(lambda: 1 / 0).result()
    assert begun(lambda: 7).result() == 7


def test_an_idle_thread_holds_nothing():
    class Thing:
        pass

    thing = Thing()
    gone = threading.Event()
    weakref.finalize(thing, gone.set)

    def act(held: Thing = thing) -> Thing:
        return held

    future = begun(act)
    future.result()
    del future, act, thing
    assert gone.wait(60)


def test_no_more_threads_stay_than_are_kept():
    def transfers() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "transfer"]

    together = threading.Barrier(20)
    list(in_lanes(range(20), lambda _: together.wait(60), lanes=lambda: 20))
    deadline = time.monotonic() + 60
    while len(left := transfers()) > 8 and time.monotonic() < deadline:
        left[-1].join(0.01)
    assert len(left) == 8


def test_a_forked_process_has_threads_of_its_own():
    begun(in_thread).result()
    child = os.fork()
    if child == 0:
        os._exit(0 if begun(lambda: 3).result(30) == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
