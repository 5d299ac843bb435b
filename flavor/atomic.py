"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
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
    return target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


def cannot_write(path: StrPath, error: OSError) -> StoreError:
    """The error for a file that could not be written; usually a full disk or a missing folder."""
    why = f"cannot be written: {error.strerror or error}"
    if error.errno in FULL:
        return no_room(path, why)
    return LocalFault(f"{shown_path(os.fspath(path))}: {why}; fix the folder, then try again", path=Path(path))


@contextmanager
def taking_place(path: StrPath) -> Iterator[Path]:
    """A fresh path beside `path`, for a file that takes the place of that one when the block ends well.

    After a failure `path` is what it was and the temporary file is gone. Not synced to disk: who records a checkpoint
    records its SHA-256 too, and notices what a power cut left behind.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # a disk that takes no writes any more; a link to the same file leaves both names
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: StrPath) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of `path` when the block ends well, as by `taking_place`.

    Raises `StoreError` for a file that cannot be written, and `TransferStopped` where it is no longer wanted.
    """
    try:
        with taking_place(path) as temporary, open(temporary, "x+b") as file:
            yield file
            file.close()  # before it takes the place
            current_watch().check()  # what was written for nothing replaces nothing
    except OSError as error:
        raise cannot_write(path, error) from None


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON so that a reader sees the old file or the whole new one."""
    write_whole(path, json.dumps(value, allow_nan=False))


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a file, a text in UTF-8, so that a reader sees the old one or the whole new one.

    It has this mode, whatever the umask, and before that it is its owner's alone.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with taking_place(path) as temporary, naming(path), _opened(temporary) as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)  # by its handle: the folder may be one that another user can write to
        file.close()


def write_once(path: Path, data: bytes) -> None:
    """Make the file whole, synced and its owner's alone; leave one that another process has made before."""
    temporary = temporary_beside(path)
    try:
        with _opened(temporary) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))  # the name is taken so
                os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _opened(path: Path) -> IO[bytes]:
    """A new file for its owner alone."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
