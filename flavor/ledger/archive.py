"""A run's records in an object store: put there once, read back."""

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
    global_folder,
    manifest_path,
    manifest_round,
    manifests_folder,
    round_of,
    run_record_path,
    staged_manifest_prefix,
)
from flavor.store.protocol import ObjectStore

_MOST_CLIENTS, _MOST_OF_A_CLIENT = 10_000, 10_000
"""Folders of clients, and objects in each, that are listed: what sites leave there must not hold anybody up."""


@dataclass(frozen=True)
class Archive:
    """The records of one run."""

    store: ObjectStore
    run: str

    def _put(self, path: str, data: bytes) -> ObjectRef:
        ref = ObjectRef(path, sha256(data))
        with self.store.stage() as staged:
            with naming(staged):
                staged.write_bytes(data)
            self.store.put(ref, staged)
        return ref

    def read(self, path: str) -> bytes | None:
        """The bytes of a record; None where there is none. Raises `InvalidRecord` for what is far too large."""
        try:
            return self.store.read_unverified(path, most=MOST_BYTES)
        except ObjectMissing:
            return None
        except DigestMismatch:
            raise InvalidRecord(f"{path}: no record is larger than {MOST_BYTES} bytes") from None

    # -- how the run began

    def begin(self, record: RunRecord) -> None:
        """Leave the run's record; `ObjectExists` when there is another one."""
        self._put(run_record_path(self.run), record.to_bytes())

    def beginning(self) -> RunRecord | None:
        """The run's record; None where the store knows no such run. Raises `InvalidRecord`."""
        path = run_record_path(self.run)
        data = self.read(path)
        return None if data is None else RunRecord.parse(data, path)

    # -- its rounds

    def stage(self, manifest: Manifest) -> ObjectRef:
        """Put a manifest into the store before its round is committed: it is not the round's yet."""
        data = manifest.to_bytes()
        return self._put(self._staged(manifest.round, sha256(data)), data)

    def _staged(self, round_: int, digest: str) -> str:
        return f"{staged_manifest_prefix(self.run, round_)}-{digest[:16]}.json"

    def committed(self, round_: int, digest: str) -> bytes | None:
        """The bytes of the manifest with this digest, in its place or as it was staged; None where it is in neither."""
        for path in (manifest_path(self.run, round_), self._staged(round_, digest)):
            try:
                data = self.read(path)
            except InvalidRecord:  # far too large to be it
                continue
            if data is not None and sha256(data) == digest:
                return data
        return None

    def put_back(self, round_: int, digest: str) -> bool:
        """Put the manifest with this digest in the place of what lies there; whether that could be done.

        What is removed was put there by another party, or by the worker of another history, which has staged it, too.
        """
        data = self.committed(round_, digest)
        if data is None:
            return False
        path = manifest_path(self.run, round_)
        try:
            self.store.delete([path])
            self._put(path, data)
        except ObjectExists:  # not ours to remove, or there again
            return False
        return True

    def publish(self, round_: int, ref: ObjectRef) -> None:
        """Make a staged manifest the round's, once the round is committed. Doing it again does nothing.

        Raises `ObjectMissing`, `ObjectExists` (the round has another one), `InvalidRecord` (it was changed).
        """
        data = self.read(ref.path)
        if data is None:
            raise ObjectMissing(f"object {ref.path} is not in the store {self.store.url}")
        if sha256(data) != ref.digest:
            raise InvalidRecord(f"{ref.path}: not the manifest that was committed: it was changed in the store")
        self._put(manifest_path(self.run, round_), data)

    def has(self, round_: int) -> bool:
        """Whether this round has its manifest; see `manifest`."""
        return self.manifest(round_) is not None

    def manifest(self, round_: int) -> Manifest | None:
        """The manifest of a round: one of this run and this round, signed with the key that it names; else None.

        Anything else that lies there was put there by another party: it is no round, and stops none. Whose key that is
        `flavor.ledger.witnesses` asks.
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
        """The bytes of a round's manifest; None where there is none."""
        return self.read(manifest_path(self.run, round_))

    def read_any(self, round_: int) -> bytes | None:
        """The same of what is no manifest at all: `b""` where it is far too large to be one."""
        try:
            return self.data(round_)
        except InvalidRecord:
            return b""

    def closed(self) -> int:
        """The newest round up to which every one has its manifest; found by asking for a few, not for all."""
        low, step = 0, 1
        while self.has(low + step):
            low, step = low + step, step * 2
        while step > 1:
            step //= 2
            if self.has(low + step):
                low += step
        return low

    def listing(self) -> Listing:
        """What lies there: flat folders, each listed once; of what is in a client's folder, so much and no more."""
        run, store = self.run, self.store
        record, folders = run_record_path(run), store.folders(clients_folder(run), most=_MOST_CLIENTS)
        own = [record] if store.exists(record) else []
        for folder in (manifests_folder(run), global_folder(run), accepted_folder(run)):
            own += store.list(folder)
        listed = {folder: store.list(folder, most=_MOST_OF_A_CLIENT) for folder in folders}
        cut = [folder for folder, paths in listed.items() if len(paths) >= _MOST_OF_A_CLIENT]
        return Listing.of(own, itertools.chain.from_iterable(listed.values()), cut)


@dataclass(frozen=True)
class Listing:
    """The paths of a run's objects."""

    paths: frozenset[str]
    """All but what lies in the clients' folders."""
    of_clients: frozenset[str]
    """What lies there."""
    cut: frozenset[str]
    """The folders of clients that have too much in them to be listed whole."""
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
