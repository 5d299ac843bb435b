"""Run work in another thread while this one waits, so that signals are handled even while a library blocks."""

from __future__ import annotations

import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar, TypeVar

from flavor import alive

T = TypeVar("T")
R = TypeVar("R")


class _Lane:
    """A daemon thread that runs one task after the other.

    An idle lane waits to be used again, because starting a thread takes longer than moving a small file.
    """

    _MOST_IDLE = 8
    _idle: ClassVar[list[_Lane]] = []

    def __init__(self) -> None:
        self._given = queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]()
        threading.Thread(target=self._run, name="transfer", daemon=True).start()

    @classmethod
    def take(cls) -> _Lane:
        """Return an idle lane, or a new one."""
        try:
            return cls._idle.pop()
        except IndexError:
            return cls()

    @classmethod
    def forget(cls) -> None:
        """Forget all lanes: a forked process has no threads but its own."""
        cls._idle = []

    def do(self, act: Callable[[], T]) -> Future[T]:
        """Run the task."""
        future: Future[T] = Future()
        self._given.put((act, future))
        return future

    def _run(self) -> None:
        is_kept = True
        while is_kept:
            act, future = self._given.get()
            try:
                settle = partial(future.set_result, act())
            except BaseException as error:
                settle = partial(future.set_exception, error)
            is_kept = len(self._idle) < self._MOST_IDLE
            if is_kept:  # before the waiting thread can ask for the next lane
                self._idle.append(self)
            settle()
            del act, future, settle  # an idle lane keeps no files open


os.register_at_fork(after_in_child=_Lane.forget)


def begun(act: Callable[[], T]) -> Future[T]:
    """Run `act` in a daemon thread."""
    return _Lane.take().do(partial(contextvars.copy_context().run, act))


def aside(act: Callable[[], T]) -> T:
    """Run `act` and return its result. In the main thread, a signal's handler can end the wait.

    Python runs handlers in the main thread only, and not while the main thread is inside a library.
    """
    return begun(act).result() if threading.current_thread() is threading.main_thread() else act()


def in_lanes(items: Iterable[T], do: Callable[[T], R], *, lanes: Callable[[], int]) -> Iterator[R]:
    """Run `act` on each item, on `lanes()` items at once, and yield the results in order."""
    left, coming = iter(items), deque[Future[R]]()
    more = True
    try:
        while more or coming:
            while more and len(coming) < lanes():
                item = next(left, _NOTHING)
                if isinstance(item, _Nothing):
                    more = False
                else:
                    coming.append(begun(lambda item=item: do(item)))  # type: ignore[misc]
            if coming:
                done = coming.popleft().result()
                alive.turned()  # an object of many parts may take hours
                yield done
    finally:
        for each in coming:  # tasks that end at once are waited for; the others end by themselves
            with_patience(each)


def with_patience(future: Future[R], seconds: float = 1.0) -> bool:
    """Whether the task has ended within this time, with a result or an error."""
    try:
        future.exception(timeout=seconds)
    except TimeoutError:
        return False
    return True


class _Nothing:
    pass


_NOTHING = _Nothing()
