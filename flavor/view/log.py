"""Reads the log of a run as typed events: the entries that there are, or also those to come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flavor.bus.connection import translated
from flavor.bus.runs import RunStore
from flavor.view.event import Event
from flavor.view.events import event_of

START = "0"
"""The id before the first entry."""
_AT_ONCE = 1000
_WAIT_MS = 1000


def before(time_ms: int) -> str:
    """Return the id of the last possible entry before this moment: pass it as `after` to begin with the moment."""
    return f"{time_ms - 1}-{2**64 - 1}" if time_ms > 0 else START


@dataclass(frozen=True)
class Logged:
    """An event with its entry in the log."""

    id: str
    """The id of the entry: pass it as `after` to go on from here."""
    event: Event
    entry: Mapping[str, str]
    """All fields of the entry, also those that this release does not know."""

    @property
    def time_ms(self) -> int:
        """When the event was logged, in milliseconds of the server's clock."""
        return int(self.id.partition("-")[0])


def newest_entry(runs: RunStore) -> str:
    """Return the id of the newest entry: pass it as `after` to read only what is to come. Raises `BusUnavailable`."""
    with translated(runs.where):
        entries: Any = runs.redis.xrevrange(runs.keys.log, count=1)
    return str(entries[0][0]) if entries else START


def read_log(runs: RunStore, *, after: str = START, wait_ms: int | None = None) -> list[Logged]:
    """Return the next entries after the one with the id `after`, at most 1,000; wait for `wait_ms` where there is none.

    Returns at once where `wait_ms` is None. Raises `BusUnavailable`.
    """
    with translated(runs.where):
        batches: Any = runs.redis.xread({runs.keys.log: after}, count=_AT_ONCE, block=wait_ms)
    return [
        Logged(identity, event_of(entry, run=runs.run), entry) for identity, entry in (batches[0][1] if batches else [])
    ]


def follow(runs: RunStore, *, after: str = START, until_end: bool = True) -> Iterator[Logged]:
    """Yield every entry of a run's log after the one with the id `after`; with `until_end` also those until its end.

    Raises `RunNotFound` and `BusUnavailable`.
    """
    runs.read()
    while True:
        has_ended = runs.read().state.ended
        entries = read_log(runs, after=after, wait_ms=_WAIT_MS if until_end and not has_ended else None)
        yield from entries
        if entries:
            after = entries[-1].id
        elif has_ended or not until_end:
            return
