"""Whether a client may take part in a run, as its coordinator tells the client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flavor.records.names import count


@dataclass(frozen=True)
class Admission:
    """The coordinator's answer to one client that has joined."""

    is_admitted: bool
    reason: str = ""
    """Why the client may not take part; '' for one that may."""
    public_key: str = ""
    """The key that the client announced when this was decided; '' where it announced none."""
    quarantined: int = 0
    """After how many refused updates in a row the client is quarantined; 0 for a client that is not."""

    def is_about(self, public_key: str) -> bool:
        """Whether this answers a client with this key: an edge that was started with another key is not meant."""
        return self.public_key in ("", public_key)

    def to_hash(self) -> dict[str, str]:
        """The fields that the coordinator writes."""
        return {
            "admitted": "1" if self.is_admitted else "0",
            "reason": self.reason,
            "public_key": self.public_key,
            "quarantined": str(self.quarantined),
        }

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Admission | None:
        """Read what stands in Redis; None while the coordinator has not answered."""
        if fields.get("admitted") not in ("0", "1"):
            return None
        refused = count(fields.get("quarantined", "")) or 0
        return cls(fields["admitted"] == "1", fields.get("reason", ""), fields.get("public_key", ""), refused)
