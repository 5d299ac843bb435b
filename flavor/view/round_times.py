"""How long each client takes for a round, from the log: from the round's opening to the verdict on its update.

The time for which the run had ended is no time of the round.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable

from flavor.records.names import count
from flavor.view.facts import Entry, time_of
from flavor.view.round_events import RunFailed, RunFinished, RunResumed, RunStopped

_ENDINGS = (RunFailed.name, RunFinished.name, RunStopped.name)
_KEPT = 20
"""Rounds of one client whose median is taken."""


class RoundTimes:
    """The times of the clients of one run, as far as the entries go that were heard."""

    def __init__(self) -> None:
        self._opened: tuple[int, int] | None = None
        self._ended_ms: int | None = None
        self._is_resumed = False  # whether the run had ended since the newest round was opened
        self._times: dict[str, deque[float]] = {}
        self._told: dict[str, tuple[float | None, float]] = {}
        self._last: dict[str, int] = {}

    def forget(self) -> None:
        """Begin anew: the run is another one."""
        self.__init__()  # type: ignore[misc]

    def hear(self, entries: Iterable[Entry]) -> None:
        """Take in new entries of the log, oldest first."""
        for identity, fields in entries:
            event, round_ = fields.get("event"), count(fields.get("round"))
            if event == "round.opened" and round_ is not None:
                self._opened, self._is_resumed = (round_, time_of(identity)), False
            elif event in _ENDINGS:
                self._ended_ms = time_of(identity)
            elif event == RunResumed.name and self._opened is not None:
                at_ms = time_of(identity)
                worked_ms = 0 if self._ended_ms is None else max(0, self._ended_ms - self._opened[1])
                self._opened, self._ended_ms, self._is_resumed = (self._opened[0], at_ms - worked_ms), None, True
            elif event == "update.accepted" and self._opened is not None and self._opened[0] == round_:
                client = fields.get("client", "")
                times = self._times.setdefault(client, deque(maxlen=_KEPT))
                took_s = max(0, time_of(identity) - self._opened[1]) / 1000
                if not self._is_resumed:  # the client has begun again: how long it took is not what it usually takes
                    times.append(took_s)
                self._told[client] = round(statistics.median(times), 3) if times else None, took_s
                self._last[client] = self._opened[0]
            elif event == "update.refused" and self._opened is not None and self._opened[0] == round_:
                self._last.pop(fields.get("client", ""), None)

    def of(self, client: str) -> tuple[float | None, float | None]:
        """Return the median time of a client in seconds, and that of its newest round; None where nothing is known.

        The median is of rounds in which the run did not end.
        The newest round is the present one, or the one before. An update of it that was refused has no time.
        """
        median_s, last_s = self._told.get(client, (None, None))
        is_new = self._opened is not None and self._last.get(client, 0) >= self._opened[0] - 1
        return median_s, last_s if is_new else None
