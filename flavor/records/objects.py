"""A reference to an object of the store: its path, and the digest and size that it must have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flavor.errors import DamagedRecord
from flavor.records.names import count

_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(value: object) -> bool:
    """Whether this is a SHA-256 in hexadecimal digits, as every object's digest is written."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One object of the store.

    The digest says which bytes it must hold. In Redis a reference is three or four fields of a hash, whose names begin
    with a prefix that the record chooses: `path`, `digest`, `size` and `seal`.
    """

    path: str
    digest: str
    """SHA-256 of its bytes, in hexadecimal digits; '' for an unknown one: then the store refuses to read the object."""
    size_bytes: int | None = None
    """None for an unknown size."""
    seal: str = ""
    """The object's seal when its digest was computed (`flavor.store.seals`); '' for none."""

    def sealed(self, seal: str) -> ObjectRef:
        """Return the same reference with this seal."""
        return replace(self, seal=seal)

    def to_hash(self, prefix: str = "") -> dict[str, str]:
        """Return the fields of a hash; size and seal only where they are known."""
        fields = {f"{prefix}path": self.path, f"{prefix}digest": self.digest}
        if self.size_bytes is not None:
            fields[f"{prefix}size"] = str(self.size_bytes)
        if self.seal:
            fields[f"{prefix}seal"] = self.seal
        return fields

    @classmethod
    def from_hash(cls, fields: Mapping[str, str], prefix: str = "") -> ObjectRef | None:
        """Read these fields; None where there is no path. Raises `DamagedRecord` where the size is no number."""
        path, size = fields.get(f"{prefix}path"), fields.get(f"{prefix}size")
        if not path:
            return None
        size_bytes = count(size)
        if size and size_bytes is None:
            raise DamagedRecord(f"{prefix}size {size[:40]!r} is no number of bytes")
        return cls(path, fields.get(f"{prefix}digest", ""), size_bytes, fields.get(f"{prefix}seal", ""))
