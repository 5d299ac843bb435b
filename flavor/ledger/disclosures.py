"""Whose updates of a round other sites were given, by `flavor evaluate --cross` or `contributions --by-sites`.

A record is written before the update leaves, and stays. It lies with the updates themselves, not in Redis: where it is
lost, so are they. It is not signed, because the command that writes it has no key, and it says no more than its name.
Sites cannot write where it lies, in a store that keeps them from each other's updates.
"""

from __future__ import annotations

from dataclasses import dataclass

from flavor.ledger.archive import Archive
from flavor.ledger.canonical import canonical
from flavor.records.names import checked_name
from flavor.store.paths import disclosed_folder, disclosed_prefix
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import StoreHealth

_EXTENSION = ".json"


@dataclass(frozen=True)
class Disclosures:
    """The records of one run. Each method raises `StoreError` where the store cannot be used: then nothing is known."""

    store: ObjectStore
    run: str
    run_id: str

    def of_round(self, round_: int) -> frozenset[str]:
        """Return the sites whose updates of this round other sites were given."""
        prefix = disclosed_prefix(self.run, round_)
        with self._health().mounted(whose=True):
            paths = self.store.list(disclosed_folder(self.run))
        names = (path.removeprefix(prefix) for path in paths if path.startswith(prefix))
        return frozenset(name.removesuffix(_EXTENSION) for name in names)

    def add(self, round_: int, client: str) -> None:
        """Record that other sites are about to be given this site's update, or a model without it.

        A repeated call does nothing. After an error the update must not be given to others.
        """
        path = f"{disclosed_prefix(self.run, round_)}{checked_name(client, 'client')}{_EXTENSION}"
        with self._health().mounted(whose=True):
            if not self.store.exists(path):
                record = canonical({"kind": "flavor.disclosed", "round": round_, "client": client})
                Archive(self.store, self.run).put(path, record)

    def _health(self) -> StoreHealth:
        return StoreHealth(self.store, self.run, self.run_id)
