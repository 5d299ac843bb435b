"""A run's records in an object store: put there once, read back."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flavor.bus.state import ManifestRef
from flavor.errors import InvalidRecord, ObjectMissing, StoreError
from flavor.ledger.canonical import sha256
from flavor.ledger.manifest import MOST_BYTES, Manifest, RunRecord
from flavor.store.objects import ObjectStore
from flavor.store.paths import global_prefix, manifest_path, named, run_prefix, run_record_path


@dataclass(frozen=True)
class Archive:
    """The records of one run."""

    store: ObjectStore
    run: str

    def _put(self, path: str, data: bytes) -> None:
        with self.store.stage() as staged:
            staged.write_bytes(data)
            self.store.put(path, staged, digest=sha256(data))

    def read(self, path: str) -> bytes | None:
        """The bytes of a record; None where there is none. Raises `InvalidRecord` for what is far too large."""
        try:
            size = self.store.size_bytes(path)
            file = self.store.local(path) if size <= MOST_BYTES else None  # a bucket would send all of it
        except ObjectMissing:
            return None
        if file is None:
            raise InvalidRecord(f"{path}: {size} bytes, and no record is larger than {MOST_BYTES}")
        try:
            with file.open("rb") as opened:
                data = opened.read(MOST_BYTES + 1)
        except OSError as error:
            raise StoreError(f"object {path}: {error.strerror}: check the store and its permissions") from error
        if len(data) > MOST_BYTES:  # it has grown since
            raise InvalidRecord(f"{path}: no record is larger than {MOST_BYTES} bytes")
        return data

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

    def stage(self, manifest: Manifest) -> ManifestRef:
        """Put a manifest beside the model it is about, before that is committed: it is not the round's yet."""
        data = manifest.to_bytes()
        digest = sha256(data)
        path = named(global_prefix(self.run, manifest.round), "manifest", digest, ".json")
        self._put(path, data)
        return ManifestRef(path, digest)

    def publish(self, round_: int, ref: ManifestRef) -> None:
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
        """Whether this round has its manifest."""
        return self.store.exists(manifest_path(self.run, round_))

    def data(self, round_: int) -> bytes | None:
        """The bytes of a round's manifest; None where there is none."""
        return self.read(manifest_path(self.run, round_))

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
        """What lies there. Costs a listing of the whole run."""
        return Listing.of(self.run, self.store.list(run_prefix(self.run)))


@dataclass(frozen=True)
class Listing:
    """The paths of a run's objects, by round."""

    paths: frozenset[str]
    manifests: frozenset[int]
    """Rounds that have their manifest."""
    aggregated: frozenset[int]
    """Rounds that have a global model, committed or not."""

    @classmethod
    def of(cls, run: str, paths: list[str]) -> Listing:
        """Sort the paths of a run's objects."""
        pattern = re.compile(re.escape(run_prefix(run)) + r"rounds/([1-9][0-9]{0,8})/(.+)")
        found = [(int(match[1]), match[2]) for path in paths if (match := pattern.fullmatch(path))]
        return cls(
            frozenset(paths),
            frozenset(number for number, rest in found if rest == "manifest.json"),
            frozenset(number for number, rest in found if rest.startswith("global/")),
        )
