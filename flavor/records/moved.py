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
    since_ms: int = 0
    """Since when it counts, in milliseconds since 1970 by the clock of the Redis server: another time for a sum that
    began at zero again. 0 in what moved in one round, and where the edge does not say, as one of an earlier release."""

    def to_hash(self) -> dict[str, str]:
        """Return the fields of a client's hash."""
        return {"sent": str(self.sent_bytes), "received": str(self.received_bytes), "moved_ms": str(self.since_ms)}

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Moved:
        """Read those fields, which may be missing, or anything."""
        sent, received, since_ms = (count(fields.get(name)) or 0 for name in ("sent", "received", "moved_ms"))
        return cls(sent, received, since_ms)

    def __sub__(self, before: Moved) -> Moved:
        """What has moved since then."""
        return Moved(self.sent_bytes - before.sent_bytes, self.received_bytes - before.received_bytes)
