"""Looks into stores, which may take long: a few threads for each kind, and one look for all who ask for the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import anyio

MOST_WAITING = 64
"""How many wait for a look of one kind."""


class Kind(StrEnum):
    """What is looked at. Each kind has threads of its own, so that none waits for another."""

    RECORDS = "records"
    OBJECTS = "objects"
    REPORTS = "reports"


_THREADS = {Kind.RECORDS: 1, Kind.OBJECTS: 1, Kind.REPORTS: 2}


class TooManyWaiting(Exception):
    """So many wait for the store that one more is refused."""


class StoreLooks:
    """The looks that go on at present. To be used in one event loop."""

    def __init__(self) -> None:
        self._awaiting = Counter[Kind]()
        self._limiters: dict[Kind, anyio.CapacityLimiter] = {}
        self._going_on: dict[object, asyncio.Future[Any]] = {}

    async def ask(self, kind: Kind, key: object, look: Callable[[], Any]) -> Any:
        """Return what `look` returns, or the look that goes on for the same `key`. Raises what it raises.

        Raises `TooManyWaiting` at once where too many wait already.
        """
        if self._awaiting[kind] >= MOST_WAITING:
            raise TooManyWaiting
        self._awaiting[kind] += 1
        try:
            return await asyncio.shield(self._look(kind, (kind, key), look))
        finally:
            self._awaiting[kind] -= 1

    def _look(self, kind: Kind, key: object, look: Callable[[], Any]) -> asyncio.Future[Any]:
        if key not in self._going_on:
            limiter = self._limiters.setdefault(kind, anyio.CapacityLimiter(_THREADS[kind]))
            found = asyncio.ensure_future(anyio.to_thread.run_sync(look, limiter=limiter, abandon_on_cancel=True))
            self._going_on[key] = found

            def ended(done: asyncio.Future[Any]) -> None:
                del self._going_on[key]
                done.cancelled() or done.exception()  # told to those who wait, if anybody still does

            found.add_done_callback(ended)
        return self._going_on[key]
