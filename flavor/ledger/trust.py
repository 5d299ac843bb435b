"""The keys that are believed: those that `--trust` names, or without it those in the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flavor.ledger.keys import read_public_key


@dataclass(frozen=True)
class Trust:
    """Public keys from a source other than the store. A client without a key here may sign with any key."""

    workers: frozenset[str] = frozenset()
    """Keys that may sign manifests; empty for all keys."""
    clients: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """For each client the keys that may sign its updates."""
    records: bool = False
    """Whether an operator's acts in the records are believed regardless of the signer."""

    @classmethod
    def read(cls, words: Sequence[str], *, records: bool = False) -> Trust:
        """Read words as `read_public_key` does. A key without a client's name belongs to a worker."""
        workers: set[str] = set()
        clients: dict[str, set[str]] = {}
        for word in words:
            for client, key in read_public_key(word):
                (clients.setdefault(client, set()) if client else workers).add(str(key))
        return cls(frozenset(workers), {client: frozenset(keys) for client, keys in clients.items()}, records)
