"""The SHA-256 of a file or of bytes, and the check of an object against the digest and the size that were recorded."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flavor.disk import naming
from flavor.errors import DigestMismatch
from flavor.records.objects import ObjectRef
from flavor.store.protocol import ObjectStore

_BLOCK_BYTES = 256 * 1024
_COPIED_BYTES = 2**20


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


def copy_of(store: ObjectStore, ref: ObjectRef, destination: Path) -> None:
    """Make `destination`, which is not there, this caller's own copy of the object, whose digest is the copy's.

    Who links it, or reads it after its digest was computed, may get what somebody else has written to it since. Raises
    `ObjectMissing`, and `DigestMismatch` with no copy left; where its size is known no more than that is read.
    """
    path, digest, size_bytes = ref.path, ref.digest, ref.size_bytes
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
