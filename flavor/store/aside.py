"""Work in threads beside the one that waits for it, so that a signal is heard at once, whatever a library is at."""

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

T = TypeVar("T")
R = TypeVar("R")


class _Lane:
    """A thread that does one thing after the other, and keeps no process from ending.

    One that has nothing to do waits to be taken again: to start a thread takes longer than to move a small file.
    """

    _MOST_IDLE = 8
    _idle: ClassVar[list[_Lane]] = []

    def __init__(self) -> None:
        self._given = queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]()
        threading.Thread(target=self._run, name="transfer", daemon=True).start()

    @classmethod
    def take(cls) -> _Lane:
        """An idle one, or else a new one."""
        try:
            return cls._idle.pop()
        except IndexError:
            return cls()

    @classmethod
    def forget(cls) -> None:
        """Know of none: a process that was forked has no threads but its own."""
        cls._idle = []

    def do(self, act: Callable[[], T]) -> Future[T]:
        """Do it now."""
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
            if is_kept:  # before the one that waits can ask for the next
                self._idle.append(self)
            settle()
            del act, future, settle  # an idle lane holds nobody's files


os.register_at_fork(after_in_child=_Lane.forget)


def begun(act: Callable[[], T]) -> Future[T]:
    """Do it in a thread that keeps no process from ending."""
    return _Lane.take().do(partial(contextvars.copy_context().run, act))


def aside(act: Callable[[], T]) -> T:
    """Do it and wait for it; in the main thread, so that a signal's handler can end the wait.

    Python runs handlers in the main thread only, and not while that is inside a library.
    """
    return begun(act).result() if threading.current_thread() is threading.main_thread() else act()


def in_lanes(items: Iterable[T], do: Callable[[T], R], *, lanes: Callable[[], int]) -> Iterator[R]:
    """Do it with each item, as many at once as `lanes` says at that time; yields the results in order."""
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
                yield coming.popleft().result()
    finally:
        for each in coming:  # what ends at once is not left behind; what does not ends by itself
            with_patience(each)


def with_patience(future: Future[R], seconds: float = 1.0) -> bool:
    """Whether it has ended within this time, well or badly."""
    try:
        future.exception(timeout=seconds)
    except TimeoutError:
        return False
    return True


class _Nothing:
    pass


_NOTHING = _Nothing()
