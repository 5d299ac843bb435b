"""Whose turn it is to be read again: clients that have something new to say that can wait, but not for long."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable

NEWEST_S, OLDEST_S, A_CLIENT_S = 1.0, 3.0, 0.25
"""A client that has something new is read again once it was not read for so long, however poor the reader is.

A quarter of a second for each client of the run, but one second at least, and three at most.
"""
A_SECOND = 10.0
"""How many clients are read so in a second: of more than 30 clients, each waits 0.1 s longer for each further one."""
_MOST_AT_ONCE = OLDEST_S * A_SECOND


def oldest_s(clients: int) -> float:
    """Return how long a client of so many waits at most, as long as they are at most 30."""
    return min(OLDEST_S, max(NEWEST_S, A_CLIENT_S * clients))


class Turns:
    """Clients that have something new that can wait, and when each client was read last."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[str, bool] = {}
        self._all_at = self._grown_at = clock()
        self._read_at: dict[str, float] = {}  # of those that were read since `_all_at`
        self._may = _MOST_AT_ONCE

    def __bool__(self) -> bool:
        """Whether any client waits."""
        return bool(self._waiting)

    def note(self, name: str, *, is_early: bool = True) -> None:
        """Note that a client has something new; `is_early` is whether it may be read before it must be."""
        self._waiting[name] = is_early or self._waiting.get(name, False)

    def read_all(self) -> None:
        """Note that all clients are read now."""
        self._waiting.clear()
        self._read_at.clear()
        self._all_at = self._clock()

    def read(self, names: Iterable[str]) -> None:
        """Note that these clients are read now."""
        now = self._clock()
        for name in names:
            self._waiting.pop(name, None)
            self._read_at[name] = now

    def due(self, clients: int) -> list[str]:
        """Return those of so many clients that must not wait any longer, those first that have waited longest."""
        now = self._clock()
        self._may = min(_MOST_AT_ONCE, self._may + (now - self._grown_at) * A_SECOND)
        self._grown_at = now
        before = now - oldest_s(clients)
        old = (name for name in self._waiting if self._read_at.get(name, self._all_at) <= before)
        found = list(itertools.islice(old, int(self._may)))
        self._may -= len(found)
        return found

    def early(self, most: int) -> list[str]:
        """Return the others that may be read now, at most so many, those first that have waited longest."""
        return list(itertools.islice((name for name, is_early in self._waiting.items() if is_early), most))
