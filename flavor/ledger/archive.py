"""Write and read a run's records in an object store. Each record is written once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from flavor.disk import naming
from flavor.errors import (
    DigestMismatch,
    InvalidRecord,
    InvalidSetting,
    ObjectExists,
    ObjectMissing,
    OtherProtocol,
)
from flavor.ledger.canonical import sha256
from flavor.ledger.manifest import MOST_BYTES, Manifest, RunRecord
from flavor.records.objects import ObjectRef
from flavor.store.paths import (
    accepted_folder,
    clients_folder,
    evaluations_folder,
    global_folder,
    manifest_path,
    manifest_round,
    manifests_folder,
    round_of,
    run_record_path,
    staged_manifest_prefix,
)
from flavor.store.protocol import ObjectStore
from flavor.store.retried import written

_MOST_CLIENTS, _MOST_OF_A_CLIENT = 10_000, 10_000
"""Most clients' folders, and most objects in each, that are listed: the bound limits what sites can cost here."""


@dataclass(frozen=True)
class Archive:
    """The records of one run."""

    store: ObjectStore
    run: str

    def put(self, path: str, data: bytes) -> ObjectRef:
        """Write a record once. Raises `ObjectExists` where another one lies there."""
        ref = ObjectRef(path, sha256(data))
        with self.store.stage() as staged:
            with naming(staged):
                written(self.store, staged, lambda: staged.write_bytes(data))
            self.store.put(ref, staged)
        return ref

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a record; None for a missing one. Raises `InvalidRecord` for a too large object."""
        try:
            return self.store.read_unverified(path, most=MOST_BYTES)
        except ObjectMissing:
            return None
        except DigestMismatch:
            raise InvalidRecord(f"{path}: no record is larger than {MOST_BYTES} bytes") from None

    # -- how the run began

    def begin(self, record: RunRecord) -> None:
        """Write the run's record. Raises `ObjectExists` where another one lies there."""
        self.put(run_record_path(self.run), record.to_bytes())

    def beginning(self) -> RunRecord | None:
        """Return the run's record; None where the store has no such run. Raises `InvalidRecord`."""
        path = run_record_path(self.run)
        data = self.read(path)
        return None if data is None else RunRecord.parse(data, path)

    # -- its rounds

    def stage(self, manifest: Manifest) -> ObjectRef:
        """Put a manifest into the store before its round is committed. It is not the round's manifest yet."""
        data = manifest.to_bytes()
        return self.put(self._staged(manifest.round, sha256(data)), data)

    def _staged(self, round_: int, digest: str) -> str:
        return f"{staged_manifest_prefix(self.run, round_)}-{digest[:16]}.json"

    def committed(self, round_: int, digest: str) -> bytes | None:
        """Return the bytes of the manifest with this digest, from its place or as staged; None where both lack it."""
        for path in (manifest_path(self.run, round_), self._staged(round_, digest)):
            try:
                data = self.read(path)
            except InvalidRecord:  # too large to be the manifest
                continue
            if data is not None and sha256(data) == digest:
                return data
        return None

    def put_back(self, round_: int, digest: str) -> bool:
        """Put the manifest with this digest in its place, instead of the object that lies there; False on failure.

        The removed object was put there by another party, or by the worker of another history, which has also staged
        it.
        """
        data = self.committed(round_, digest)
        if data is None:
            return False
        path = manifest_path(self.run, round_)
        try:
            self.store.delete([path])
            self.put(path, data)
        except ObjectExists:  # this process may not remove it, or it is there again
            return False
        return True

    def publish(self, round_: int, ref: ObjectRef) -> None:
        """Make a staged manifest the round's manifest, after the round was committed. A repeated call does nothing.

        Raises `ObjectMissing`, `ObjectExists` (the round has another one), `InvalidRecord` (it was changed).
        """
        data = self.read(ref.path)
        if data is None:
            raise ObjectMissing(f"object {ref.path} is not in the store {self.store.url}")
        if sha256(data) != ref.digest:
            raise InvalidRecord(f"{ref.path}: not the manifest that was committed: it was changed in the store")
        self.put(manifest_path(self.run, round_), data)

    def has(self, round_: int) -> bool:
        """Whether this round has its manifest; see `manifest`."""
        return self.manifest(round_) is not None

    def manifest(self, round_: int) -> Manifest | None:
        """Return the manifest of a round: of this run and this round, signed with the key that it names; else None.

        Any other object at its path was put there by another party, and does not stop the round. Whether the key is
        one of the run's aggregators is decided in `flavor.ledger.witnesses`.
        """
        path = manifest_path(self.run, round_)
        if not self.store.exists(path):
            return None
        try:
            data, record = self.read(path), self.beginning()
            manifest = Manifest.parse(data, path) if data is not None else None
            if (
                manifest is not None
                and (manifest.run, manifest.round) == (self.run, round_)
                and (record is None or manifest.run_id == record.run_id)
                and manifest.is_signed()
            ):
                return manifest
        except (InvalidRecord, InvalidSetting, OtherProtocol):
            pass
        return None

    def data(self, round_: int) -> bytes | None:
        """Return the bytes of a round's manifest; None for a missing one."""
        return self.read(manifest_path(self.run, round_))

    def read_any(self, round_: int) -> bytes | None:
        """Return the bytes at the path of a round's manifest, as `data` does; `b""` for an object that is too large."""
        try:
            return self.data(round_)
        except InvalidRecord:
            return b""

    def closed(self) -> int:
        """Return the newest round up to which every round has its manifest, by looking at a few rounds, not at all."""
        low, step = 0, 1
        while self.has(low + step):
            low, step = low + step, step * 2
        while step > 1:
            step //= 2
            if self.has(low + step):
                low += step
        return low

    def listing_of_records(self) -> Listing:
        """List the run's record, manifests and global models, and nothing of the clients."""
        record = run_record_path(self.run)
        own = [record] if self.store.exists(record) else []
        for folder in (manifests_folder(self.run), global_folder(self.run)):
            own += self.store.list(folder)
        return Listing.of(own, ())

    def listing(self) -> Listing:
        """List the run's objects: each folder once, and a bounded number of objects in each client's folder."""
        run, store = self.run, self.store
        record, folders = run_record_path(run), store.folders(clients_folder(run), most=_MOST_CLIENTS)
        own = [record] if store.exists(record) else []
        for folder in (manifests_folder(run), global_folder(run), accepted_folder(run), evaluations_folder(run)):
            own += store.list(folder)
        listed = {folder: store.list(folder, most=_MOST_OF_A_CLIENT) for folder in folders}
        cut = [folder for folder, paths in listed.items() if len(paths) >= _MOST_OF_A_CLIENT]
        return Listing.of(own, itertools.chain.from_iterable(listed.values()), cut)


@dataclass(frozen=True)
class Listing:
    """The paths of a run's objects."""

    paths: frozenset[str]
    """All paths outside the clients' folders."""
    of_clients: frozenset[str]
    """The paths in the clients' folders."""
    cut: frozenset[str]
    """The clients' folders that hold too many objects to be listed completely."""
    manifests: frozenset[int]
    """Rounds that have their manifest."""
    aggregated: frozenset[int]
    """Rounds that have a global model, committed or not."""

    def __contains__(self, path: object) -> bool:
        return path in self.paths or path in self.of_clients

    @classmethod
    def of(cls, own: Iterable[str], of_clients: Iterable[str], cut: Iterable[str] = ()) -> Listing:
        """Sort the paths of a run's objects."""
        paths = frozenset(own)
        made = {round_of(path) for path in paths if "/global/" in path}
        closed = (manifest_round(path) for path in paths if "/manifests/" in path)
        return cls(paths, frozenset(of_clients), frozenset(cut), frozenset(filter(None, closed)), frozenset(made - {0}))
