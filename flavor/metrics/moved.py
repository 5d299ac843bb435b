"""Bytes of models that clients have moved, as counters that never go back.

What clients say may fall: Redis comes back a moment older, edges count from zero again after `flavor recover`, a client
that was revoked does so once it is enrolled anew, and a client gets or loses a label of its own. Prometheus would take
each fall for a new beginning of the counter, and invent bytes. So what each client has moved beyond the most that it
has said before is added to the counter of its label. A sum that began anew is told from one of an older Redis by the
time since when it counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from flavor.metrics.table import OTHERS
from flavor.records.states import ClientState

DIRECTIONS = {"sent": "sent_bytes", "received": "received_bytes"}
_UNDATED = 0
"""Stands for the time of a sum of which the edge does not say since when it counts, as one of an earlier release."""
_MOST_SUMS = 4
"""How many sums of one client are known, those that were heard last: the site says when each began."""


class Moved:
    """The bytes of one run's clients."""

    def __init__(self) -> None:
        self._recovered_ms: int | None = None
        self._most: dict[tuple[str, str], dict[int, int]] = {}  # of each sum of a client, by its time
        self._counted: dict[tuple[str, str], int] = {}
        self._others: Counter[str] = Counter()

    def look(
        self, clients: Mapping[str, Mapping[str, Any]], labelled: Collection[str], *, recovered_ms: int | None = None
    ) -> dict[tuple[str, str], float]:
        """Add what the clients have moved since the last look; return the counters by label and direction.

        `recovered_ms` is when `flavor recover` has rebuilt the run last: its clients count from zero since.
        """
        named, has_others = frozenset(labelled), False
        if recovered_ms != self._recovered_ms:
            self._recovered_ms = recovered_ms
            for sums in self._most.values():
                sums.pop(_UNDATED, None)
        for name, client in clients.items():
            for direction, field in DIRECTIONS.items():
                key = (name, direction)
                sums = self._most.setdefault(key, {})
                if client.get("state") == ClientState.REVOKED:  # what it has said is deleted: it begins at zero
                    sums.pop(_UNDATED, None)
                    continue
                if not isinstance(now := client.get(field), int):
                    continue
                since_ms = client.get("moved_since_ms") or _UNDATED
                most = sums.pop(since_ms, 0)
                added = max(0, now - most)
                sums[since_ms] = most + added
                if len(sums) > _MOST_SUMS:
                    del sums[next(iter(sums))]
                self._counted[key] = self._counted.get(key, 0) + added
                if name not in named:
                    has_others = True
                    self._others[direction] += added
        found = {key: float(value) for key, value in self._counted.items() if key[0] in named}
        if has_others:
            found |= {(OTHERS, direction): float(value) for direction, value in self._others.items()}
        return found
