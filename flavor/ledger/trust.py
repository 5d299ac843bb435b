"""The keys that are believed: those that `--trust` names, or without it those in the records."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flavor.errors import InvalidSetting
from flavor.ledger.keys import PublicKey, read_public_key
from flavor.records.names import is_name


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


def trust_hint(*keys: tuple[str | None, str], when: str = "if that is right") -> str:
    """Return a hint that names keys of records by `--trust`, to be copied into a shell.

    A key comes with its client's name, or with None for an aggregator's key. Any party that can write to the store can
    put any text there: the hint is '' unless each key is a public key and each name is a client's name.
    """
    words = []
    for client, key in keys:
        if not (client is None or is_name(client)) or not _is_key(key):
            return ""
        words.append(f"--trust {shlex.quote(key if client is None else f'{client} {key}')}")
    return f"{when}: {' '.join(words)}"


def _is_key(text: str) -> bool:
    try:
        PublicKey.parse(text)
    except InvalidSetting:
        return False
    return True
