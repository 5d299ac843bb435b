"""How much an edge has moved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moved:
    """What one edge process has taken from the store and put into it: sizes of objects, also of those only linked."""

    sent_bytes: int = 0
    received_bytes: int = 0

    def to_hash(self) -> dict[str, str]:
        """Return the fields of a client's hash."""
        return {"sent": str(self.sent_bytes), "received": str(self.received_bytes)}

    def __sub__(self, before: Moved) -> Moved:
        """What has moved since then."""
        return Moved(self.sent_bytes - before.sent_bytes, self.received_bytes - before.received_bytes)
