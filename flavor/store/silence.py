"""A bucket that gives no answer is told of, while the request is repeated by the library that made it."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from flavor.stamp import stamp
from flavor.store.watch import Watch, current_watch

_FIRST_S = 10.0
"""So long without an answer is told; then after twice that time, four times, and so on."""
_LOOK_S = 1.0
_IDLE_LOOKS = 60
"""The thread ends after so many looks at which no request waited."""


@dataclass(frozen=True)
class _Request:
    since: float
    watch: Watch

    def silent_s(self, now: float) -> float:
        """How long it has had no answer, and nothing has moved."""
        return now - max(self.since, self.watch.moved_at)


class _Silence:
    """The requests of this process that wait for one store; looked at by a thread that ends when there are none."""

    def __init__(self, url: str) -> None:
        self._url, self._lock = url, threading.Lock()
        self._waiting: dict[int, _Request] = {}
        self._numbers = itertools.count()
        self._looks = False
        self._told_s = 0.0  # the silence that was told last; 0 for none

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Within this an answer is waited for."""
        number, watch = next(self._numbers), current_watch()
        with self._lock:
            self._waiting[number] = _Request(time.monotonic(), watch)
        try:
            self._look_on()
            yield
        finally:
            with self._lock:
                del self._waiting[number]

    def _look_on(self) -> None:
        """Have the thread; where no thread more is allowed, nothing is said, and the request goes on."""
        with self._lock, contextlib.suppress(RuntimeError):
            if not self._looks:
                threading.Thread(target=self._look, name="silence", daemon=True).start()
                self._looks = True

    def answered(self) -> None:
        """The store has given an answer."""
        with self._lock:
            told_s, self._told_s = self._told_s, 0.0
        if told_s:
            self._tell("answers again")

    def _look(self) -> None:
        idle = 0
        while True:
            time.sleep(_LOOK_S)
            with self._lock:
                idle = 0 if self._waiting else idle + 1
                if idle > _IDLE_LOOKS:
                    self._looks = False
                    return
                now = time.monotonic()
                silent_s = max((request.silent_s(now) for request in self._waiting.values()), default=0.0)
                is_due = silent_s >= (2 * self._told_s or _FIRST_S)
                if is_due:
                    self._told_s = silent_s
            if is_due:
                self._tell(f"has given no answer that helps for {silent_s:.0f} s; trying again and again")

    def _tell(self, what: str) -> None:
        print(f"{stamp()}flavor: store {self._url} {what}", file=sys.stderr, flush=True)


_silences: dict[str, _Silence] = {}


def silence(url: str) -> _Silence:
    """Of this store, the same for all who ask it in this process."""
    return _silences.setdefault(url, _Silence(url))


os.register_at_fork(after_in_child=_silences.clear)
