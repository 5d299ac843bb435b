"""All kinds of events by name. Each kind has a name in the log, fields, and a line for people.

The run's log in Redis stores events: an entry has the event's name, a reason, and the round and the client that it is
about. Most entries are written by the script that makes the transition; `flavor.view.log` reads them back as events.
Events without a name are shown to people, and not logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flavor.view import client_events, evaluation_events, round_events
from flavor.view.event import Event, Unknown

_MODULES = (client_events, round_events, evaluation_events)


KINDS: Mapping[str, type[Event]] = {
    kind.name: kind
    for module in _MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind.name
}
"""The kind of event of each name in the log."""


def event_of(entry: Mapping[str, str], *, run: str = "") -> Event:
    """Return the event that an entry of this run's log stores."""
    kind = KINDS.get(entry.get("event", ""))
    if kind is None:
        return Unknown(entry.get("reason", ""), dict(entry), run=run)
    return replace(kind.from_entry(entry), run=run)
