"""Observers hear the events of a run: a terminal, a counter of metrics, a page that shows runs.

The coordinator, the workers and the edges pass each event to an `Observer`. A program in another process follows the
run's log instead (`flavor.view.log`), which stores the events of the run. The lower layers (`flavor.bus`,
`flavor.store`, `flavor.ledger` and the queue of `workers`) only report lines, such as that a server is away: they take
a function for lines, which `notices` makes of an observer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flavor.view.event import Event, Notice


class Observer(Protocol):
    """Hears events. It is called in the thread in which an event happens, and must neither block nor raise."""

    def hear(self, event: Event) -> None:
        """Take note of an event that has just happened."""


class Lines:
    """Shows the line of each event that is not routine."""

    def __init__(self, show: Callable[[str], None], *, name_runs: bool = False) -> None:
        """Make an observer that calls `show` with each line. With `name_runs`, each line names its run."""
        self._show, self._name_runs = show, name_runs

    def hear(self, event: Event) -> None:
        """See `Observer`."""
        if not event.is_routine:
            self._show(f"run {event.run}, {event.line}" if self._name_runs and event.run else event.line)


class Silent:
    """Ignores every event."""

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
    """Return a function for lines, which the observer hears as notices."""
    return lambda line: observer.hear(Notice(line))
