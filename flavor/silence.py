"""Report a server that gives no answer, while the requests to it go on waiting.

Redis may stand still with its connections open, so that no request fails, and a bucket's library repeats a request
without a message. One thread of the process checks all waiting requests when the first of them is due. The thread ends
a while after the last request.
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
"""Seconds without an answer until the first report; the next one comes after twice the time, and so on."""
_IDLE_S = 60.0
"""The thread ends after this time without a waiting request."""


class Moving(Protocol):
    """Progress of a request, such as a `flavor.watch.Watch`."""

    @property
    def moved_at(self) -> float:
        """Monotonic time of the last progress."""
        ...


class Silence:
    """Reports the silence of one server: calls `tell` with the seconds for which a request has had no answer."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self.tell, self._told_s = tell, 0.0  # the last reported silence; 0 for none
        self.why = ""
        """Why the last attempt has failed, where that is known; '' once the server has answered."""

    @contextlib.contextmanager
    def request(self, watch: Moving | None = None) -> Iterator[None]:
        """Wait for an answer during the block. Progress, by its `watch`, counts as an answer."""
        request = _Request(self, time.monotonic(), watch, threading.get_ident())
        watcher = _watcher
        watcher.add(request)
        try:
            yield
        finally:
            watcher.remove(request)

    @property
    def is_told(self) -> bool:
        """Whether a request without an answer was reported, and not yet that all have answers."""
        return bool(self._told_s)

    def answered(self) -> bool:
        """Record that the server has answered this thread; return whether that ends a reported silence.

        The silence goes on while another thread's request has no answer.
        """
        self.why = ""
        return self.is_told and _watcher.end(self)


@dataclass(frozen=True, eq=False)
class _Request:
    silence: Silence
    since: float
    watch: Moving | None
    thread: int

    def silent_s(self, now: float) -> float:
        """Return how long the request has had neither an answer nor progress."""
        return now - (self.since if self.watch is None else max(self.since, self.watch.moved_at))

    def left_s(self, now: float) -> float:
        """Return the silence after which the next report is due."""
        return (2 * self.silence._told_s or FIRST_S) - self.silent_s(now)


class _Watcher:
    """The waiting requests of this process, and the thread that checks them while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: set[_Request] = set()
        self._looks_at = math.inf  # time of the next check
        self._is_there = False

    def add(self, request: _Request) -> None:
        """Check the request from now on. Where no further thread is allowed, the request goes on without reports."""
        with self._changed:
            self._waiting.add(request)
            if not self._is_there:
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=self._look, name="silence", daemon=True).start()
                    self._is_there = True
            elif time.monotonic() + FIRST_S < self._looks_at:
                self._changed.notify()

    def remove(self, request: _Request) -> None:
        """Stop checking the request."""
        with self._changed:
            self._waiting.discard(request)

    def end(self, silence: Silence) -> bool:
        """End the reported silence of this server, unless another thread's request has waited for long."""
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
                silence._told_s = silent_s  # at once: the report that it answers again comes later

    def _due(self, now: float) -> dict[Silence, float]:
        """Return the servers to report, and how long each has been silent."""
        due: dict[Silence, float] = {}
        for request in self._waiting:
            if request.left_s(now) <= 0:
                due[request.silence] = max(request.silent_s(now), due.get(request.silence, 0.0))
        return due


_watcher = _Watcher()
_silences: dict[str, Silence] = {}


def silence(server: str, tell: Callable[[float], None]) -> Silence:
    """Return the `Silence` of this server: one for all its callers in this process."""
    return _silences.setdefault(server, Silence(tell))


def is_silent(server: str) -> bool:
    """Whether it was reported that this server gives a request of this process no answer."""
    found = _silences.get(server)
    return found is not None and found.is_told


def _forget() -> None:
    """Start without a thread and without waiting requests, in a forked process."""
    global _watcher  # noqa: PLW0603 - one thread a process
    _watcher = _Watcher()
    _silences.clear()


os.register_at_fork(after_in_child=_forget)
