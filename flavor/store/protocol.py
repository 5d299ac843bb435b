"""The protocol of an object store: write-once objects under paths, each known by its SHA-256."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from flavor.records.objects import ObjectRef


class ObjectStore(Protocol):
    """Write-once objects. All implementations pass one suite of tests.

    Paths are those of `flavor.store.paths`; a path that would leave the store raises `BadObjectPath`. A store that
    cannot be reached, or that refuses this process, raises `StoreUnavailable` after bounded retries.
    """

    url: str
    private: bool
    """Whether only this user can write to the files of `open` and `local`, so that they may be mapped."""

    def stage(self) -> contextlib.AbstractContextManager[Path]:
        """Yield a fresh path for a file on its way into the store. What is left there afterwards is removed."""

    def put(self, ref: ObjectRef, source: Path) -> None:
        """Make the file at `source` the object `ref.path`, whole or not at all; `source` is gone afterwards.

        `ref.digest` is the SHA-256 of the file, as its writer has computed it. Putting the same bytes again does
        nothing; other bytes under the same path raise `ObjectExists`.
        """

    def open(self, ref: ObjectRef) -> Path:
        """Return a file with the object's bytes, verified: to be read at once, or mapped if the store is `private`.

        The object has the recorded size, where the reference has one: another size is found before any byte is read,
        because a file of terabytes costs nothing to make. It is unchanged since `ref.seal` was taken, or else it has
        the recorded digest. Raises `DigestMismatch` otherwise and for a reference without a digest, `ObjectMissing`.
        """

    def place(self, ref: ObjectRef, destination: Path, *, check: Callable[[Path], None] = lambda _: None) -> None:
        """Place the object at `destination`, replacing what is there, after the checks of `open` and after `check`.

        Raises what `open` raises; `destination` is untouched then.
        """

    def read(self, ref: ObjectRef, *, most: int) -> bytes:
        """Return the bytes of a small object, verified, in one request: no mapping, no file.

        Never reads more than `most` bytes, and raises `DigestMismatch` for an object that has more or that is not the
        recorded one. Raises `ObjectMissing`.
        """

    def local(self, path: str, *, size_bytes: int | None = None) -> Path:
        """Return a file with the object's bytes as they are. The caller verifies them, or needs no verification.

        With `size_bytes`, an object of another size is a `DigestMismatch` before any byte is read. Raises
        `ObjectMissing`.
        """

    def read_unverified(self, path: str, *, most: int) -> bytes:
        """Return the bytes of a small object as they are. The caller verifies them.

        Never reads more than `most` bytes, and raises `DigestMismatch` for an object that has more. Raises
        `ObjectMissing`.
        """

    def seal(self, path: str, *, strict: bool = False) -> str:
        """Return a mark of the object as it is now: the same mark later means that nothing was written to it since.

        A `strict` seal is for objects of other parties: setting times back does not keep it through a change. It can
        be lost without a change, which costs one digest. A seal that was taken before a digest is computed saves
        computing that digest again. Raises `ObjectMissing`.
        """

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""

    def size_bytes(self, path: str) -> int:
        """How large the object is, without fetching it. Raises `ObjectMissing`."""

    def start(self, path: str, size_bytes: int) -> bytes:
        """The first bytes of the object, without fetching the rest. Raises `ObjectMissing`."""

    def take(self, path: str, target: str, *, most: int | None = None) -> str:
        """Put the object `path` out of the reach of the party that has put it there; return its path from now on.

        A folder moves the object to `target`, or copies it if it belongs to another user. An object that lies at
        `target` already stays and counts, so that a repeated call changes nothing. A bucket leaves the object where it
        is, and returns `path`. Raises `ObjectMissing`, and `DigestMismatch` instead of copying more than `most` bytes.
        """

    def list(self, folder: str, *, most: int | None = None, after: str = "") -> list[str]:
        """Return the paths of the objects directly in `folder` (which ends in a slash), sorted; empty for no objects.

        With `most`, looks at no more than so many entries. With `after`, looks only at paths that sort after this one.
        Never descends into folders below. Also gives out names that are no object paths, which another program has
        made there, so that `flavor verify` can report them: all other methods refuse these with `BadObjectPath`.
        """

    def folders(self, folder: str, *, most: int | None = None) -> Sequence[str]:
        """Return the folders directly in `folder`, as paths that end in a slash, sorted; at most `most`."""

    def delete(self, paths: Sequence[str]) -> None:
        """Delete these objects; absent ones are no error. Where one cannot be deleted, others may stay, too."""

    def remove(self, prefix: str) -> None:
        """Delete every object whose path starts with `prefix` (which ends in a slash); absent ones are no error."""
