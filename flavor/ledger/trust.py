"""Whose keys are believed: what `--trust` names, or else what the records say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flavor.ledger.keys import read_public_key


@dataclass(frozen=True)
class Trust:
    """Public keys that were learnt elsewhere than from the store. Nothing is required of whoever is not named."""

    workers: frozenset[str] = frozenset()
    """Keys that may sign manifests; any may when empty."""
    clients: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Client to the keys that may sign its updates."""
    records: bool = False
    """Whether what the records say of an operator's acts is believed whoever signed them."""

    @classmethod
    def read(cls, words: Sequence[str], *, records: bool = False) -> Trust:
        """From words as `read_public_key` takes them: a key without a client's name is a worker's."""
        workers: set[str] = set()
        clients: dict[str, set[str]] = {}
        for word in words:
            for client, key in read_public_key(word):
                (clients.setdefault(client, set()) if client else workers).add(str(key))
        return cls(frozenset(workers), {client: frozenset(keys) for client, keys in clients.items()}, records)
