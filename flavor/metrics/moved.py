"""Bytes of models that clients have moved, as counters that never go back.

An edge counts from zero again after `flavor recover`, or if it is of an earlier release and is started again; and a
client gets or loses a label of its own. A sum of what the clients say would fall then, and Prometheus would take each
fall for a new beginning of the counter, and invent bytes.
So what each client has moved since it was last looked at is added to the counter of its label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from flavor.metrics.table import OTHERS

DIRECTIONS = {"sent": "sent_bytes", "received": "received_bytes"}


class Moved:
    """The bytes of one run's clients."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], int] = {}
        self._counted: dict[tuple[str, str], int] = {}
        self._others: Counter[str] = Counter()

    def look(self, clients: Mapping[str, Mapping[str, Any]], labelled: Collection[str]) -> dict[tuple[str, str], float]:
        """Add what the clients have moved since the last look; return the counters by label and direction."""
        named, has_others = frozenset(labelled), False
        for name, client in clients.items():
            for direction, field in DIRECTIONS.items():
                key = (name, direction)
                if not isinstance(now := client.get(field), int):
                    self._said.pop(key, None)  # its edge was started again, and has moved nothing yet
                    continue
                before = self._said.get(key, 0)
                added = now - before if now >= before else now
                self._said[key] = now
                self._counted[key] = self._counted.get(key, 0) + added
                if name not in named:
                    has_others = True
                    self._others[direction] += added
        found = {key: float(value) for key, value in self._counted.items() if key[0] in named}
        if has_others:
            found |= {(OTHERS, direction): float(value) for direction, value in self._others.items()}
        return found
