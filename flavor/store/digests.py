"""Compute SHA-256 digests, and check objects against the digest and the size that were recorded."""

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
    """Return the SHA-256 (hex) and the size in bytes of a file; of a file larger than `most`, of its first `most` + 1.

    With `most`, reading ends even where the file grows, and the size then differs from the recorded one.
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
    """Copy the object to `destination`, which must not exist, and verify the digest of the copy itself.

    A link to an object, or an object that is read after its digest was computed, can hold what another process has
    written since; this caller's own copy cannot. Reads no more than the recorded size. Raises `ObjectMissing`, and
    `DigestMismatch`, with no copy left.
    """
    check_named(ref)
    found, left = hashlib.sha256(), -1 if ref.size_bytes is None else ref.size_bytes + 1
    source = store.open(ref) if store.private else store.local(ref.path, size_bytes=ref.size_bytes)
    try:
        with source.open("rb", buffering=0) as file, destination.open("xb", buffering=0) as copy:
            while left and (block := file.read(_COPIED_BYTES if left < 0 else min(left, _COPIED_BYTES))):
                found.update(block)
                copy.write(block)
                left -= len(block) if left > 0 else 0
            size = copy.tell()
        check_size(size, ref.size_bytes, f"object {ref.path}")
        if found.hexdigest() != ref.digest:
            raise other_bytes(ref, found.hexdigest(), size)
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def check_named(ref: ObjectRef) -> None:
    """Raise `DigestMismatch` for a reference without a digest: nothing says which bytes the object must hold."""
    if not ref.digest:
        raise DigestMismatch(f"object {ref.path} is named without a digest, and is not read")


def check_size(size_bytes: int, expected: int | None, what: str) -> None:
    """Raise `DigestMismatch` where a size was recorded and `size_bytes` is another."""
    if expected is not None and size_bytes != expected:
        raise DigestMismatch(
            f"{what}: the bytes are not those that were recorded ({size_bytes} of them, expected {expected}): it was "
            "changed or cut off in the store"
        )


def check_most(data: bytes, path: str, most: int) -> None:
    """Raise `DigestMismatch` where an object has more bytes than its reader takes."""
    if len(data) > most:
        raise DigestMismatch(f"object {path}: larger than {most} bytes")


def check_bytes(ref: ObjectRef, data: bytes | memoryview) -> None:
    """Raise `DigestMismatch` unless these bytes have the object's recorded SHA-256."""
    if (found := hashlib.sha256(data).hexdigest()) != ref.digest:
        raise other_bytes(ref, found, len(data))


def check_object(ref: ObjectRef, file: Path) -> None:
    """Raise `DigestMismatch` unless the file holds the object's bytes. Reads no more than the recorded size."""
    found, size = sha256_file(file, most=ref.size_bytes)
    check_size(size, ref.size_bytes, f"object {ref.path}")
    if found != ref.digest:
        raise other_bytes(ref, found, size)


def other_bytes(ref: ObjectRef, found: str, size_bytes: int) -> DigestMismatch:
    """Return the error for an object of `size_bytes` bytes whose SHA-256 is `found`, and not the recorded one."""
    return DigestMismatch(
        f"object {ref.path}: the bytes are not those that were recorded (SHA-256 {found[:12]}… of {size_bytes} bytes, "
        f"expected {ref.digest[:12]}…): it was changed or cut off in the store"
    )
