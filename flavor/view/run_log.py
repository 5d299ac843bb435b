"""The newest entries of a run's log, kept in memory for those who look at the run."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from flavor.bus.connection import translated
from flavor.bus.runs import RunStore
from flavor.view.evaluation_events import EvaluationEvent
from flavor.view.events import event_of
from flavor.view.facts import Entry, time_of

MOST_ENTRIES = 2000
_MOST_CHARACTERS = 2**21
_AT_ONCE = 1000
_MOST_SEARCHED = 20_000
"""How many older entries are searched for those of one client or kind."""


class RunLog:
    """The newest entries of one run's log. One thread adds to it; others may read it at the same time."""

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._entries: deque[Entry] = deque()
        self._characters = 0

    @property
    def newest_id(self) -> str:
        """The id of the newest entry; '' before the first."""
        return self._entries[-1][0] if self._entries else ""

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries, newest first."""
        return iter(list(self._entries)[::-1])

    def load(self) -> list[Entry]:
        """Read the newest entries anew, in place of those that are known; returns those that are new, oldest first."""
        known = self.newest_id
        with translated(self._runs.where):
            entries = self._runs.redis.xrevrange(self._runs.keys.log, count=MOST_ENTRIES)[::-1]
        is_same = any(identity == known for identity, _ in entries)
        fresh = RunLog(self._runs)
        fresh.add(entries)
        self._entries, self._characters = fresh._entries, fresh._characters  # at once: no other thread sees a part
        return [entry for entry in entries if not is_same or _is_after(entry[0], known)]

    def read_on(self) -> list[Entry]:
        """Read the entries after the newest one; returns them, oldest first."""
        found: list[Entry] = []
        while True:
            with translated(self._runs.where):
                batches: Any = self._runs.redis.xread({self._runs.keys.log: self.newest_id or "0"}, count=_AT_ONCE)
            entries = batches[0][1] if batches else []
            self.add(entries)
            found += entries
            if len(entries) < _AT_ONCE:
                return found

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries, oldest first, and forget the oldest ones where there are too many."""
        for entry in entries:
            self._entries.append(entry)
            self._characters += _size(entry)
        while len(self._entries) > MOST_ENTRIES or (self._characters > _MOST_CHARACTERS and len(self._entries) > 1):
            self._characters -= _size(self._entries.popleft())

    def after(self, identity: str, most: int, client: str = "", kinds: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return the newest entries after this one, oldest first."""
        newer = itertools.takewhile(lambda entry: not identity or _is_after(entry[0], identity), self)
        return _chosen(newer, most, client, kinds, self._runs.run)

    def before(self, identity: str, most: int, client: str = "", kinds: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return the newest entries before this one, or the newest of all for '', oldest first.

        Reads from Redis what is not known here. Raises `BusUnavailable`.
        """
        return _chosen(self._older(identity), most, client, kinds, self._runs.run)

    def _older(self, identity: str) -> Iterator[Entry]:
        if identity and order_of(identity) == (0, 0):
            return  # no entry has a smaller id, and Redis refuses to search before it
        oldest = identity
        for entry in self:
            if not identity or _is_after(identity, entry[0]):
                oldest = entry[0]
                yield entry
        searched = 0
        while searched < _MOST_SEARCHED:
            maximum = f"({oldest}" if oldest else "+"
            with translated(self._runs.where):
                entries = self._runs.redis.xrevrange(self._runs.keys.log, max=maximum, count=_AT_ONCE)
            yield from entries
            searched += len(entries)
            if len(entries) < _AT_ONCE:
                return
            oldest = entries[-1][0]


def _chosen(entries: Iterable[Entry], most: int, client: str, kinds: Collection[str], run: str) -> list[dict[str, Any]]:
    wanted = frozenset(kinds)
    found = (entry for entry in entries if _is_of(entry[1], client, wanted))
    return [_shown(*entry, run) for entry in itertools.islice(found, most)][::-1]


def _is_of(fields: Mapping[str, str], client: str, kinds: Collection[str]) -> bool:
    event = fields.get("event", "")
    is_kind = not kinds or event in kinds or event.partition(".")[0] in kinds
    return is_kind and (not client or fields.get("client") == client)


def _shown(identity: str, fields: Mapping[str, str], run: str) -> dict[str, Any]:
    event = event_of(fields, run=run)
    return {
        "id": identity,
        "time_ms": time_of(identity),
        "event": fields.get("event", ""),
        "round": getattr(event, "round", None),
        "client": fields.get("client", ""),
        "reason": fields.get("reason", ""),
        "line": event.line,
        **({"evaluation": event.number} if isinstance(event, EvaluationEvent) else {}),
    }


def _is_after(identity: str, other: str) -> bool:
    return order_of(identity) > order_of(other)


def order_of(identity: str) -> tuple[int, int]:
    """Return what entries of a log are ordered by."""
    milliseconds, _, number = identity.partition("-")
    return int(milliseconds), int(number or 0)


def _size(entry: Entry) -> int:
    return sum(map(len, entry[1].values())) + 100
