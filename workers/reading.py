"""Read objects that their sites can still write to, and detect every change between the acceptance and the reading.

In a folder a digest says what a file held while it was computed, and nothing about any other moment; nor does a second
digest. So a file is opened once. Its seal is taken by that very handle before its digest is computed, or is known from
before; if the seal is the same after the last byte was read, then all bytes are those with the digest. A small file is
read whole, and the digest is computed of the bytes in memory. A file from a bucket belongs to this process alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import threading
from collections.abc import Iterator, Sequence

from flavor.checkpoints import TensorFile
from flavor.checkpoints.mapped import Mapped, release
from flavor.checkpoints.unmapped import Unmapped
from flavor.errors import BadObjectPath, CheckpointError, DigestMismatch, ObjectMissing
from flavor.records.objects import ObjectRef
from flavor.store.digests import check_bytes, check_named, check_size, other_bytes, sha256_file
from flavor.store.protocol import ObjectStore
from flavor.store.seals import has_settled, is_strict, seal_of

_BLOCK_BYTES = 2**20
_RELEASE_BYTES = 32 * 2**20

CHANGED = (DigestMismatch, ObjectMissing, BadObjectPath)
"""Errors about an object that has surely changed or is gone."""


class NotAsAccepted(DigestMismatch):
    """The objects at `paths` were not what was accepted when they were read, even if they are now."""

    def __init__(self, message: str, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        super().__init__(message)


class ChangedWhileRead(NotAsAccepted):
    """Another party wrote to the objects at `paths` while they were read: no result from them can be used."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__(f"object {' and '.join(paths)}: changed in the store while it was read", paths)


@contextlib.contextmanager
def as_accepted(path: str) -> Iterator[None]:
    """Raise `NotAsAccepted` where the body finds another object at `path`.

    A site may show another object for a short time: a later look finds the accepted one.
    """
    try:
        yield
    except CHANGED as error:
        raise NotAsAccepted(str(error), [path]) from error


class Reading:
    """The objects of one store that are read for one purpose."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._open: list[tuple[str, Unmapped, str]] = []  # path, file, and its seal when its digest was known
        self._mapped: list[mmap.mmap] = []
        self._used_bytes, self._lock = 0, threading.Lock()

    def open(self, ref: ObjectRef) -> TensorFile:
        """Open the object as it was recorded: mapped if it is private to this process, else only read.

        A site can cut its own file off at any time, which would kill each process that has the file mapped. Raises what
        `ObjectStore.local` raises.
        """
        store, seal = self.store, ref.seal
        check_named(ref)
        if store.private:
            mapped = Mapped(store.open(ref))
            self._mapped.append(mapped.map)
            return TensorFile(mapped)
        try:
            file = self._unmapped(ref.path, ref.size_bytes)
        except CheckpointError as error:  # it was readable when it was accepted
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise ObjectMissing(f"object {ref.path} is no file any more") from None
        if file.whole is not None:
            check_bytes(ref, file.whole)  # these very bytes
            return TensorFile(file)
        strict = not seal or is_strict(seal)
        found = seal_of(file.status(), strict=strict)
        if found != seal:
            found = settled(store, file, strict=strict)
            if (other := _sha256(file)) != ref.digest:
                raise other_bytes(ref, other, file.size_bytes)
        self._open.append((ref.path, file, found))
        return TensorFile(file)

    def used(self, size_bytes: int) -> None:
        """Record that so many bytes of each file were read for the last time; call it from any thread.

        Releases the pages of mapped files from this process from time to time. Pages that are still needed come back.
        """
        with self._lock:
            self._used_bytes += size_bytes
            if self._used_bytes < _RELEASE_BYTES:
                return
            self._used_bytes = 0
        for mapped in self._mapped:
            release(mapped)

    def unknown(self, path: str, *, size_bytes: int) -> tuple[TensorFile, str]:
        """Open an object whose digest is still to be computed; return it with the seal that stands for that digest."""
        if self.store.private:
            seal = self.store.seal(path, strict=True)
            return TensorFile.open(self.store.local(path, size_bytes=size_bytes)), seal
        file = self._unmapped(path, size_bytes)
        if file.whole is not None:
            return TensorFile(file), seal_of(file.status(), strict=True)
        seal = settled(self.store, file, strict=True)
        self._open.append((path, file, seal))
        return TensorFile(file), seal

    def file(self, path: str, *, size_bytes: int) -> tuple[tuple[str, int], str]:
        """Return the SHA-256 and size of an object of any kind, and the seal that stands for them."""
        if self.store.private:
            seal = self.store.seal(path, strict=True)
            return sha256_file(self.store.local(path, size_bytes=size_bytes), most=size_bytes), seal
        file = self._unmapped(path, size_bytes)
        seal = settled(self.store, file, strict=True)
        self._open.append((path, file, seal))
        return (_sha256(file), file.size_bytes), seal

    def _unmapped(self, path: str, size_bytes: int | None) -> Unmapped:
        what = f"object {path}"
        file = Unmapped(self.store.local(path, size_bytes=size_bytes), what)
        check_size(file.size_bytes, size_bytes, what)
        return file

    def changed(self) -> list[str]:
        """Return the paths of objects that changed since their digest was known."""
        return [path for path, file, seal in self._open if now(file, strict=is_strict(seal)) != seal]

    def finish(self) -> None:
        """End the reading; raises `ChangedWhileRead` if an object is not what was accepted."""
        changed, self._open = self.changed(), []
        if changed:
            raise ChangedWhileRead(changed)


@contextlib.contextmanager
def reading(store: ObjectStore) -> Iterator[Reading]:
    """Guarantee that all objects opened in the body stay what was recorded until its end, even if the body raises.

    Raises `ChangedWhileRead`.
    """
    opened = Reading(store)
    try:
        yield opened
    except Exception as error:
        if changed := opened.changed():
            raise ChangedWhileRead(changed) from error
        raise
    opened.finish()


def settled(store: ObjectStore, file: Unmapped, *, strict: bool) -> str:
    """Return the seal of a file, once every later change gives the file another seal.

    Where that takes too long, as on a share whose clock is ahead of its server's, returns the seal as it is.
    """
    found = file.status()
    has_settled(store, found.st_ctime_ns)
    return seal_of(found, strict=strict)  # as it was before the wait: a change in a later tick is seen, too


def now(file: Unmapped, *, strict: bool) -> str:
    """Return the current seal; opens the file first, because a network file system then asks the server for it."""
    with contextlib.suppress(OSError):
        os.close(os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    return seal_of(file.status(), strict=strict)


def _sha256(file: Unmapped) -> str:
    if file.whole is not None:
        return hashlib.sha256(file.whole).hexdigest()
    found, block = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES))
    for start in range(0, file.size_bytes, _BLOCK_BYTES):
        part = block[: min(_BLOCK_BYTES, file.size_bytes - start)]
        file.read(start, part)
        found.update(part)
    return found.hexdigest()
