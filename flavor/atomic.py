"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from flavor.disk import FULL, StrPath, naming, no_room, shown_path
from flavor.errors import LocalFault, StoreError
from flavor.watch import current_watch


def temporary_beside(path: StrPath) -> Path:
    """A fresh hidden name in the folder of `path`, and so on its file system."""
    target = Path(path)
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def cannot_write(path: StrPath, error: OSError) -> StoreError:
    """The error for a file that could not be written; usually a full disk or a missing folder."""
    why = f"cannot be written: {error.strerror or error}"
    if error.errno in FULL:
        return no_room(path, why)
    return LocalFault(f"{shown_path(os.fspath(path))}: {why}; fix the folder, then try again", path=Path(path))


@contextmanager
def replacing(path: StrPath) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of `path` when the block ends well.

    After a failure, or a transfer that was ended, `path` is what it was and the temporary file is gone. Not synced to
    disk: whoever records a checkpoint records its SHA-256 too, and notices what a power cut left behind.
    """
    temporary = temporary_beside(path)
    try:
        with open(temporary, "x+b") as file:
            yield file
        current_watch().check()  # what was written for nothing replaces nothing
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):  # on a disk that takes no writes any more
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON so that a reader sees the old file or the whole new one."""
    write_whole(path, json.dumps(value, allow_nan=False))


def write_whole(path: Path, text: str) -> None:
    """Write a text file, in UTF-8, so that a reader sees the old file or the whole new one."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with naming(path), os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            os.fchmod(handle, 0o644)  # by its handle: the folder may be one that another user can write to
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
