"""Write files that appear complete or not at all."""

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
    """Return a fresh hidden name in the folder of `path`, and so on its file system."""
    target = Path(path)
    return target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


def cannot_write(path: StrPath, error: OSError) -> StoreError:
    """Return the error for a file that could not be written, usually for a full disk or a missing folder."""
    why = f"cannot be written: {error.strerror or error}"
    if error.errno in FULL:
        return no_room(path, why)
    return LocalFault(f"{shown_path(os.fspath(path))}: {why}; fix the folder, then try again", path=Path(path))


@contextmanager
def taking_place(path: StrPath) -> Iterator[Path]:
    """Yield a fresh path beside `path`. Its file replaces `path` when the block ends without an error.

    After an error `path` is as before, and the temporary file is gone. The file is not synced to disk: a checkpoint is
    recorded with its SHA-256, which shows a file that a power cut has damaged.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # a disk that takes no writes now; a link to the same file leaves both names
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: StrPath) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` when the block ends without an error; see `taking_place`.

    Raises `StoreError` for a file that cannot be written, and `TransferStopped` where the watcher ends the transfer.
    """
    try:
        with taking_place(path) as temporary, open(temporary, "x+b") as file:
            yield file
            file.close()  # before the replacement
            current_watch().check()  # a stopped transfer replaces nothing
    except OSError as error:
        raise cannot_write(path, error) from None


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON so that a reader sees the old file or the whole new one."""
    write_whole(path, json.dumps(value, allow_nan=False))


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a file, text as UTF-8, so that a reader sees the old file or the whole new one.

    The file has this mode, regardless of the umask. Until it is complete, only its owner can read it.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with taking_place(path) as temporary, naming(path), _opened(temporary) as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)  # by its descriptor: another user may be able to write to the folder
        file.close()


def write_once(path: Path, data: bytes) -> None:
    """Make a complete, synced file for its owner alone; keep a file that another process has made before."""
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
                os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))  # this takes the name
                os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _opened(path: Path) -> IO[bytes]:
    """Open a new file for its owner alone."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
