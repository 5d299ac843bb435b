"""Watch a transfer: how much has moved of how much, since when, and a way to end it.

A caller enters `watched(Watch())` around its calls of a store; the store finds the watch by `current_watch()`.
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
"""Phases of a transfer."""
_LOOK_S = 0.2


class Progress(NamedTuple):  # no dataclass: a trainer imports this module, and its script may be called copy.py
    """The progress of a transfer; `phase` is '' between two transfers."""

    phase: str = ""
    done: int = 0
    total: int = 0
    since_ms: int = 0


class Watch:
    """The transfers of one or several threads, and whether they are still needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._progress = Progress()
        self.moved_at = 0.0  # on the monotonic clock
        self.is_unwanted = False
        self._closers: set[Callable[[], None]] = set()

    @property
    def progress(self) -> Progress:
        """The progress now."""
        return self._progress

    @contextlib.contextmanager
    def phase(self, name: str, total: int, *, done: int = 0) -> Iterator[None]:
        """Begin a phase: `total` bytes to move, of which `done` were moved before."""
        self.check()
        before, self._progress = self._progress, Progress(name, done, total, time.time_ns() // 1_000_000)
        try:
            yield
        finally:
            self._progress = before

    def moved(self, size_bytes: int) -> None:
        """Record moved bytes; a negative number for bytes to be sent again. Raises `TransferStopped`."""
        with self._lock:
            if size_bytes > 0:
                self.moved_at = time.monotonic()
            now = self._progress
            self._progress = Progress(now.phase, now.done + size_bytes, now.total, now.since_ms)
        self.check()

    def check(self) -> None:
        """Raise `TransferStopped` if the transfer was ended."""
        if self._stopped.is_set():
            raise TransferStopped("the transfer was ended: what it was for is over")

    def pause(self, seconds: float, *, unless: Callable[[], bool]) -> bool:
        """Sleep; return True early when `unless` does. Raises `TransferStopped` as soon as the transfer is ended."""
        deadline = time.monotonic() + seconds
        while not unless() and (left_s := deadline - time.monotonic()) > 0:
            self._stopped.wait(min(left_s, _LOOK_S))
            self.check()
        return unless()

    def stop(self, *, unwanted: bool = False) -> None:
        """End the transfer, from any thread, and wake threads that wait for a socket.

        With `unwanted`, moved bytes are not kept for a later attempt.
        """
        with self._lock:
            self.is_unwanted = self.is_unwanted or unwanted
            self._stopped.set()
            closers = list(self._closers)
        for close in closers:
            close()

    @contextlib.contextmanager
    def closing(self, close: Callable[[], None]) -> Iterator[None]:
        """Call `close` if the transfer is ended during the block."""
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
    """Return the watch of this thread's transfers; one without an observer where none was set."""
    return _current.get() or Watch()


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Yield `current_watch()`, and keep it for all transfers of this thread during the block."""
    watch = current_watch()
    with watched(watch):
        yield watch


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Let `watch` see, and end, the transfers of this thread during the block."""
    token = _current.set(watch)
    try:
        yield
    finally:
        _current.reset(token)
