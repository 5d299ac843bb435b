"""Bytes of models that clients have moved, as counters that never go back.

What clients say may fall: Redis comes back a moment older, edges count from zero again after `flavor recover`, a client
that was revoked does so once it is enrolled anew, and a client gets or loses a label of its own. Prometheus would take
each fall for a new beginning of the counter, and invent bytes. So what each client has moved beyond the most that it
has said before is added to the counter of its label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from flavor.metrics.table import OTHERS
from flavor.records.states import ClientState

DIRECTIONS = {"sent": "sent_bytes", "received": "received_bytes"}


class Moved:
    """The bytes of one run's clients."""

    def __init__(self) -> None:
        self._recovered_ms: int | None = None
        self._most: dict[tuple[str, str], int] = {}
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
            self._recovered_ms, self._most = recovered_ms, {}
        for name, client in clients.items():
            for direction, field in DIRECTIONS.items():
                key = (name, direction)
                if client.get("state") == ClientState.REVOKED:  # what it has said is deleted: it begins at zero
                    self._most.pop(key, None)
                    continue
                if not isinstance(now := client.get(field), int):
                    continue
                most = self._most.get(key, 0)
                added = max(0, now - most)
                self._most[key] = most + added
                self._counted[key] = self._counted.get(key, 0) + added
                if name not in named:
                    has_others = True
                    self._others[direction] += added
        found = {key: float(value) for key, value in self._counted.items() if key[0] in named}
        if has_others:
            found |= {(OTHERS, direction): float(value) for direction, value in self._others.items()}
        return found
