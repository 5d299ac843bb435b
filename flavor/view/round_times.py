"""How long each client takes for a round, from the log: from the round's opening to the verdict on its update."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable

from flavor.records.names import count
from flavor.view.facts import Entry, time_of

_KEPT = 20
"""Rounds of one client whose median is taken."""


class RoundTimes:
    """The times of the clients of one run, as far as the entries go that were heard."""

    def __init__(self) -> None:
        self._opened: tuple[int, int] | None = None
        self._times: dict[str, deque[float]] = {}
        self._told: dict[str, tuple[float, float]] = {}
        self._last: dict[str, int] = {}

    def forget(self) -> None:
        """Begin anew: the run is another one."""
        self.__init__()  # type: ignore[misc]

    def hear(self, entries: Iterable[Entry]) -> None:
        """Take in new entries of the log, oldest first."""
        for identity, fields in entries:
            event, round_ = fields.get("event"), count(fields.get("round"))
            if event == "round.opened" and round_ is not None:
                self._opened = round_, time_of(identity)
            elif event == "update.accepted" and self._opened is not None and self._opened[0] == round_:
                client = fields.get("client", "")
                times = self._times.setdefault(client, deque(maxlen=_KEPT))
                times.append(max(0, time_of(identity) - self._opened[1]) / 1000)
                self._told[client] = round(statistics.median(times), 3), times[-1]
                self._last[client] = self._opened[0]
            elif event == "update.refused" and self._opened is not None and self._opened[0] == round_:
                self._last.pop(fields.get("client", ""), None)

    def of(self, client: str) -> tuple[float | None, float | None]:
        """Return the median time of a client in seconds, and that of its newest round; None where nothing is known.

        The newest round is the present one, or the one before. An update of it that was refused has no time.
        """
        median_s, last_s = self._told.get(client, (None, None))
        is_new = self._opened is not None and self._last.get(client, 0) >= self._opened[0] - 1
        return median_s, last_s if is_new else None
