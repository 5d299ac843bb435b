"""Who hears of what happens: a terminal, a counter of metrics, a page that shows runs.

The coordinator and the workers give each event to an `Observer`. An observer in another process follows the run's log
instead (`flavor.view.log`), where the same events are stored. What lies below, and only says that a server or a store
is away, or what became of a job (`flavor.bus`, `flavor.store`, `flavor.ledger`, and the queue of `workers`), takes a
function for lines: `notices` makes one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flavor.view.event import Event, Notice


class Observer(Protocol):
    """Hears what happens. It is called in the thread in which it happens, and must neither block nor raise."""

    def hear(self, event: Event) -> None:
        """This has happened."""


class Lines:
    """Shows each event that is no routine as its line for people."""

    def __init__(self, show: Callable[[str], None], *, name_runs: bool = False) -> None:
        """With `name_runs` each line says which run it is about."""
        self._show, self._name_runs = show, name_runs

    def hear(self, event: Event) -> None:
        """See `Observer`."""
        if not event.is_routine:
            self._show(f"run {event.run}, {event.line}" if self._name_runs and event.run else event.line)


class Nobody:
    """Hears nothing."""

    def hear(self, event: Event) -> None:
        """See `Observer`."""


class Everyone:
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def hear(self, event: Event) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.hear(event)


def notices(observer: Observer) -> Callable[[str], None]:
    """A function for lines that an observer hears as notices."""
    return lambda line: observer.hear(Notice(line))
