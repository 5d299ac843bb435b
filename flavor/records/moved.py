"""How much an edge has moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flavor.records.names import count


@dataclass(frozen=True)
class Moved:
    """What a client has taken from the store and put into it: sizes of objects, also of those only linked."""

    sent_bytes: int = 0
    received_bytes: int = 0

    def to_hash(self) -> dict[str, str]:
        """Return the fields of a client's hash."""
        return {"sent": str(self.sent_bytes), "received": str(self.received_bytes)}

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Moved:
        """Read those fields, which may be missing, or anything."""
        return cls(count(fields.get("sent")) or 0, count(fields.get("received")) or 0)

    def __sub__(self, before: Moved) -> Moved:
        """What has moved since then."""
        return Moved(self.sent_bytes - before.sent_bytes, self.received_bytes - before.received_bytes)
