"""The SHA-256 and the size of a file, alone or while it is copied."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

from flavor.disk import naming
from flavor.watch import current_watch

_BLOCK_BYTES = 2**20


def digest_of(path: Path) -> tuple[str, int]:
    """Return the SHA-256 (hex) of a file and its size in bytes."""
    with naming(path), path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def copy_and_digest(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file to `target`, which may be there, and return the SHA-256 (hex) and the size of what was written.

    The watcher of the transfer can end it. Raises `OSError`, `TransferStopped`.
    """
    digest, block, watch = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES)), current_watch()
    with (
        source.open("rb", buffering=0) as file,
        naming(target),
        target.open("wb") as copy,
        watch.phase("copying", os.fstat(file.fileno()).st_size),
    ):
        while read := _read(source, file, block):
            digest.update(block[:read])
            copy.write(block[:read])
            watch.moved(read)
        return digest.hexdigest(), copy.tell()


def _read(source: Path, file: io.FileIO, block: memoryview) -> int:
    """Read the next bytes; an error names the file that is read, not the copy."""
    with naming(source):
        return file.readinto(block) or 0
