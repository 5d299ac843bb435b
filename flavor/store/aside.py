"""Work in threads beside the one that waits for it, so that a signal is heard at once, whatever a library is at."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def begun(act: Callable[[], T]) -> Future[T]:
    """Do it in a thread that keeps no process from ending."""
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(act))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="transfer", daemon=True).start()
    return future


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
