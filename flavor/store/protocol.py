"""What a store is: write-once objects under paths, known by their SHA-256."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from flavor.records.objects import ObjectRef


class ObjectStore(Protocol):
    """Write-once objects. All implementations pass one suite of tests.

    Paths are those of `flavor.store.paths`; a path that would leave the store raises `BadObjectPath`. A store that
    cannot be reached, or refuses us, raises `StoreUnavailable`, after bounded retries.
    """

    url: str
    private: bool
    """Whether nobody else can write to the files of `local`, so that they may be mapped."""

    def stage(self) -> contextlib.AbstractContextManager[Path]:
        """A fresh path for a file on its way into the store; whatever is left there afterwards is removed."""

    def put(self, path: str, source: Path, *, digest: str) -> None:
        """Make the file at `source` the object `path`, whole or not at all; `source` is gone afterwards.

        Putting the same bytes again does nothing; other bytes under the same path raise `ObjectExists`.
        """

    def local(self, path: str, *, digest: str | None = None, seal: str = "", size_bytes: int | None = None) -> Path:
        """A file with the object's bytes, to be read at once, or mapped if they are `private`. Raises `ObjectMissing`.

        With a `digest`, it is unchanged since `seal` was taken, or else has this digest; `DigestMismatch` if neither.
        Without one whoever calls checks the bytes, or needs none; an empty one, which a record may lack, is refused.
        With `size_bytes`, one of another size is a `DigestMismatch` before any of it is read: a file of terabytes
        costs nothing to make.
        """

    def open(self, ref: ObjectRef) -> Path:
        """A file with the object that a record names; see `local`. `ByRef` has this and `place`, for any store."""

    def place(self, ref: ObjectRef, destination: Path, *, check: Callable[[Path], None] = lambda _: None) -> None:
        """Place the object that a record names at `destination`; see `fetch`."""

    def seal(self, path: str, *, strict: bool = False) -> str:
        """A mark of the object as it is now: the same mark later means that nobody has written to it since.

        A `strict` one is for objects of other parties: it cannot be kept through a change by setting times back. It may
        be lost without a change, which costs a digest.

        Taken beside a computed digest, it saves computing that digest again. Raises `ObjectMissing`.
        """

    def fetch(
        self,
        path: str,
        destination: Path,
        *,
        digest: str,
        seal: str = "",
        size_bytes: int | None = None,
        check: Callable[[Path], None] = lambda _: None,
    ) -> None:
        """Place the object at `destination`, replacing what is there, after the checks of `local` and `check` of it.

        Raises `ObjectMissing`, `DigestMismatch`; `destination` is untouched then.
        """

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""

    def size_bytes(self, path: str) -> int:
        """How large the object is, without fetching it. Raises `ObjectMissing`."""

    def start(self, path: str, size_bytes: int) -> bytes:
        """The first bytes of the object, without fetching the rest. Raises `ObjectMissing`."""

    def read(self, path: str, *, most: int, digest: str | None = None) -> bytes:
        """The bytes of a small object, in one request: no mapping, no file. Raises `ObjectMissing`.

        `DigestMismatch` when they are more than `most`, or have not this digest; no more than that is ever read.
        """

    def take(self, path: str, target: str, *, most: int | None = None) -> str:
        """Put the object `path` out of the reach of whoever has put it there; returns where it lies from now on.

        In a folder that is `target`: moved there, or copied if it belongs to another user; what lies there already
        stays, and is what counts, so that it can be done again. A bucket leaves it where it is. Raises `ObjectMissing`,
        and `DigestMismatch` instead of a copy of more than `most` bytes.
        """

    def list(self, folder: str, *, most: int | None = None) -> list[str]:
        """The paths of the objects directly in `folder` (which ends in a slash), sorted; empty where there are none.

        With `most`, no more than so many of them, and no more is looked at. Nothing descends.
        """

    def folders(self, folder: str, *, most: int | None = None) -> Sequence[str]:
        """The folders directly in `folder`, as paths that end in a slash, sorted; at most so many."""

    def delete(self, paths: Sequence[str]) -> None:
        """Delete these objects; absent ones are no error."""

    def remove(self, prefix: str) -> None:
        """Delete every object whose path starts with `prefix` (which ends in a slash); absent ones are no error."""
