"""A transfer as others see it: what has moved of how much, since when, and a way to end it.

Whoever wants to know enters `watched(Watch())` around what it asks of a store; the store finds it by `current_watch()`.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flavor.errors import TransferStopped

PHASES = ("uploading", "fetching", "copying")
"""What a transfer can be at."""
_LOOK_S = 0.2


class Progress(NamedTuple):  # no dataclass: a trainer imports this, and its script may be called copy.py
    """Where a transfer is; `phase` is '' between two of them."""

    phase: str = ""
    done: int = 0
    total: int = 0
    since_ms: int = 0


class Watch:
    """What moves in one or several threads, and whether it is still wanted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._progress = Progress()
        self.moved_at = 0.0  # on the monotonic clock
        self.is_unwanted = False
        self._closers: set[Callable[[], None]] = set()

    @property
    def progress(self) -> Progress:
        """Where it is now."""
        return self._progress

    @contextlib.contextmanager
    def phase(self, name: str, total: int, *, done: int = 0) -> Iterator[None]:
        """`total` bytes are to move, of which `done` were moved before."""
        self.check()
        before, self._progress = self._progress, Progress(name, done, total, time.time_ns() // 1_000_000)
        try:
            yield
        finally:
            self._progress = before

    def moved(self, size_bytes: int) -> None:
        """So many bytes more have moved; fewer, if some have to be sent again. Raises `TransferStopped`."""
        with self._lock:
            if size_bytes > 0:
                self.moved_at = time.monotonic()
            now = self._progress
            self._progress = Progress(now.phase, now.done + size_bytes, now.total, now.since_ms)
        self.check()

    def check(self) -> None:
        """Raise `TransferStopped` if this is no longer wanted."""
        if self._stopped.is_set():
            raise TransferStopped("the transfer was ended: what it was for is over")

    def pause(self, seconds: float, *, unless: Callable[[], bool]) -> bool:
        """Sleep, but not on when `unless` says so: then it is True. Raises `TransferStopped` as soon as that is so."""
        deadline = time.monotonic() + seconds
        while not unless() and (left_s := deadline - time.monotonic()) > 0:
            self._stopped.wait(min(left_s, _LOOK_S))
            self.check()
        return unless()

    def stop(self, *, unwanted: bool = False) -> None:
        """End it, from any thread: what waits for a socket is woken up.

        With `unwanted`, what has moved is not to be kept for later either.
        """
        with self._lock:
            self.is_unwanted = self.is_unwanted or unwanted
            self._stopped.set()
            closers = list(self._closers)
        for close in closers:
            close()

    @contextlib.contextmanager
    def closing(self, close: Callable[[], None]) -> Iterator[None]:
        """Have `close` called if this is stopped meanwhile."""
        with self._lock:
            self._closers.add(close)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._closers.discard(close)


_current: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("watch", default=None)


def current_watch() -> Watch:
    """Who watches what this thread moves; nobody, unless somebody said so."""
    return _current.get() or Watch()


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """`current_watch()`, which is the same one for all that this thread does meanwhile."""
    watch = current_watch()
    with watched(watch):
        yield watch


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """What this thread moves meanwhile is seen, and can be ended, by `watch`."""
    token = _current.set(watch)
    try:
        yield
    finally:
        _current.reset(token)
