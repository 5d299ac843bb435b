"""A server that gives no answer is told of, while those who asked it wait on.

Redis may stand still with its connections open, so that no request fails; and a bucket's library repeats a request
without a word. One thread of the process looks at all that waits, when the first of it is due, and ends a while after
the last.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

FIRST_S = 10.0
"""So long without an answer is told; then after twice that time, four times, and so on."""
_IDLE_S = 60.0
"""The thread ends when no request has waited for so long."""


class Moving(Protocol):
    """What a request may move, such as a `flavor.watch.Watch`."""

    @property
    def moved_at(self) -> float:
        """When something moved last, on the monotonic clock."""
        ...


class Silence:
    """What is told of one server: `tell` is called with how long a request has had no answer of it, in seconds."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self.tell, self._told_s = tell, 0.0  # the silence that was told last; 0 for none

    @contextlib.contextmanager
    def request(self, watch: Moving | None = None) -> Iterator[None]:
        """Within this an answer is waited for; what moves in that time, by its `watch`, counts as one."""
        request = _Request(self, time.monotonic(), watch, threading.get_ident())
        watcher = _watcher
        watcher.add(request)
        try:
            yield
        finally:
            watcher.remove(request)

    @property
    def is_told(self) -> bool:
        """Whether it was told that a request has no answer, and not yet that all have."""
        return bool(self._told_s)

    def answered(self) -> bool:
        """Note that the server has answered this thread; whether that ends a silence that was told.

        It does not while it leaves another thread's request without an answer.
        """
        return self.is_told and _watcher.end(self)


@dataclass(frozen=True, eq=False)
class _Request:
    silence: Silence
    since: float
    watch: Moving | None
    thread: int

    def silent_s(self, now: float) -> float:
        """How long it has had no answer, and nothing has moved."""
        return now - (self.since if self.watch is None else max(self.since, self.watch.moved_at))

    def left_s(self, now: float) -> float:
        """How long that may go on without a word."""
        return (2 * self.silence._told_s or FIRST_S) - self.silent_s(now)


class _Watcher:
    """The requests of this process that wait, and the thread that looks at them while there are some."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: set[_Request] = set()
        self._looks_at = math.inf  # when the thread looks next
        self._is_there = False

    def add(self, request: _Request) -> None:
        """Look at it from now on; where no thread more is allowed, nothing is said, and the request goes on."""
        with self._changed:
            self._waiting.add(request)
            if not self._is_there:
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=self._look, name="silence", daemon=True).start()
                    self._is_there = True
            elif time.monotonic() + FIRST_S < self._looks_at:
                self._changed.notify()

    def remove(self, request: _Request) -> None:
        """It waits no more."""
        with self._changed:
            self._waiting.discard(request)

    def end(self, silence: Silence) -> bool:
        """End what was told of this server, if none but this thread's requests to it have waited for long."""
        with self._changed:
            now, thread = time.monotonic(), threading.get_ident()
            for request in self._waiting:
                if request.silence is silence and request.thread != thread and request.silent_s(now) >= FIRST_S:
                    return False
            told_s, silence._told_s = silence._told_s, 0.0
            return bool(told_s)

    def _look(self) -> None:
        waited_at = time.monotonic()
        while True:
            with self._changed:
                now = time.monotonic()
                if self._waiting:
                    waited_at = now
                elif now - waited_at > _IDLE_S:
                    self._is_there = False
                    return
                due = self._due(now)
                if not due:
                    left_s = min((FIRST_S, *(request.left_s(now) for request in self._waiting)))
                    self._looks_at = now + left_s
                    self._changed.wait(left_s)
            for silence, silent_s in due.items():
                with contextlib.suppress(OSError, ValueError):  # stderr is closed
                    silence.tell(silent_s)
                silence._told_s = silent_s  # now: that it answers again is told afterwards

    def _due(self, now: float) -> dict[Silence, float]:
        """Which servers are to be told of, and how long each has been silent."""
        due: dict[Silence, float] = {}
        for request in self._waiting:
            if request.left_s(now) <= 0:
                due[request.silence] = max(request.silent_s(now), due.get(request.silence, 0.0))
        return due


_watcher = _Watcher()
_silences: dict[str, Silence] = {}


def silence(server: str, tell: Callable[[float], None]) -> Silence:
    """Of this server, the same for all who ask it in this process."""
    return _silences.setdefault(server, Silence(tell))


def is_silent(server: str) -> bool:
    """Whether it was told that this server gives a request of this process no answer."""
    found = _silences.get(server)
    return found is not None and found.is_told


def _forget() -> None:
    """A fork has no thread, and nothing that waits."""
    global _watcher  # noqa: PLW0603 - one thread a process
    _watcher = _Watcher()
    _silences.clear()


os.register_at_fork(after_in_child=_forget)
