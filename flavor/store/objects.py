"""What a store is: write-once objects under paths, known by their SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flavor.errors import DigestMismatch, InvalidSetting

if TYPE_CHECKING:
    from flavor.store.bucket import Endurance

_BLOCK_BYTES = 256 * 1024
_COPIED_BYTES = 2**20


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


def open_store(url: str, *, create: bool = False, endurance: Endurance | None = None) -> ObjectStore:
    """The store at `url`: a folder, `file:///FOLDER`, `s3://BUCKET/PREFIX`, or the same with `gs` or `az`.

    With `create` a folder is made, and a bucket is tried: whether it takes objects, and takes each only once. A bucket
    is waited for as the entry point has chosen, if no `endurance` is given.
    """
    from flavor.store.local import LocalStore

    if (folder := folder_of(url)) is not None:
        return LocalStore(Path(folder), create=create)
    scheme, separator, _ = url.partition("://")
    if scheme in ("s3", "gs", "az"):
        from flavor.store.remote import RemoteStore

        return RemoteStore(url, create=create, endurance=endurance)
    raise InvalidSetting(
        f"store {scheme + separator!r} cannot be used: give a folder that every party can reach, or s3://BUCKET/PREFIX"
    )


def folder_of(url: str) -> str | None:
    """The folder that is the store at `url`; None for a bucket."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    return rest if scheme == "file" else None


def sha256_file(path: Path, *, most: int | None = None) -> tuple[str, int]:
    """The SHA-256 (hex) and the size in bytes of a file; of one with more than `most` bytes, of the first `most` + 1.

    So a file that grows while it is read ends somewhere, and has not the size that it should.
    """
    with naming(path), path.open("rb", buffering=0) as file:
        if most is None:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        digest, block, left = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES)), most + 1
        while read := file.readinto(block[:left]):
            digest.update(block[:read])
            left -= read
        return digest.hexdigest(), most + 1 - left


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error in reading or writing the file name it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def copy_of(store: ObjectStore, path: str, destination: Path, *, digest: str, size_bytes: int | None = None) -> None:
    """Make `destination`, which is not there, this caller's own copy of the object, whose digest is the copy's.

    Who links it, or reads it after its digest was computed, may get what somebody else has written to it since. Raises
    `ObjectMissing`, and `DigestMismatch` with no copy left; with `size_bytes` no more than that is read.
    """
    check_named(digest, f"object {path}")
    what, found, left = f"object {path}", hashlib.sha256(), -1 if size_bytes is None else size_bytes + 1
    source = store.local(path, digest=digest if store.private else None, size_bytes=size_bytes)
    try:
        with source.open("rb", buffering=0) as file, destination.open("xb", buffering=0) as copy:
            while left and (block := file.read(_COPIED_BYTES if left < 0 else min(left, _COPIED_BYTES))):
                found.update(block)
                copy.write(block)
                left -= len(block) if left > 0 else 0
            size = copy.tell()
        check_size(size, size_bytes, what)
        if found.hexdigest() != digest:
            raise other_bytes(what, found.hexdigest(), size, digest)
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def check_named(digest: str | None, what: str) -> None:
    """Raise `DigestMismatch` for an empty digest: what is named without one is not known, and not to be taken."""
    if digest is not None and not digest:
        raise DigestMismatch(f"{what} is named without a digest, and is not read")


def check_size(size_bytes: int, expected: int | None, what: str) -> None:
    """Raise `DigestMismatch` unless something of this size can be what was recorded."""
    if expected is not None and size_bytes != expected:
        raise DigestMismatch(
            f"{what}: the bytes are not those that were recorded ({size_bytes} of them, expected {expected}): it was "
            "changed or cut off in the store"
        )


def check_bytes(data: bytes | memoryview, what: str, *, most: int, digest: str | None) -> None:
    """Raise `DigestMismatch` unless these are no more than `most` bytes, and those with this SHA-256."""
    if len(data) > most:
        raise DigestMismatch(f"{what}: larger than {most} bytes")
    if digest is not None and (found := hashlib.sha256(data).hexdigest()) != digest:
        raise DigestMismatch(
            f"{what}: the bytes are not those that were recorded (SHA-256 {found[:12]}…, expected {digest[:12]}…): it "
            "was changed or cut off in the store"
        )


def check_digest(path: Path, digest: str, what: str, *, size_bytes: int | None = None) -> None:
    """Raise `DigestMismatch` unless the file at `path` has this SHA-256, of whose bytes it reads no more than due."""
    found, size = sha256_file(path, most=size_bytes)
    check_size(size, size_bytes, what)
    if found != digest:
        raise other_bytes(what, found, size, digest)


def other_bytes(what: str, found: str, size_bytes: int, digest: str) -> DigestMismatch:
    """The error of something whose SHA-256 is `found`, and should be `digest`."""
    return DigestMismatch(
        f"{what}: the bytes are not those that were recorded (SHA-256 {found[:12]}… of {size_bytes} bytes, expected "
        f"{digest[:12]}…): it was changed or cut off in the store"
    )
