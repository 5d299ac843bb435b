"""Describe a disk's errors: which file was in use, and for a full disk which disk it is."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from flavor.errors import StoreFull

StrPath = str | os.PathLike[str]
STAGING = ".staging"
"""The folder in a folder store for files on their way into it, each under a random name."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors for no room: on the disk, or within this user's quota."""
GONE = (errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT)
"""Errors of a mounted disk or share that is away."""
LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of a process or machine that lacks a resource: neither the file nor its disk is the cause."""
AWAY = (*GONE, errno.EIO, errno.EROFS)
"""Errors of a disk or share that cannot be used for now, for any file."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def is_of_the_machine(error: BaseException) -> bool:
    """Whether the cause is a fault of this machine that can pass, so that the same command can work later."""
    passing = {*FULL, *LIMITS, *GONE, errno.EIO}  # without EROFS: a read-only file system is usually intended
    return any(isinstance(cause, OSError) and cause.errno in passing for cause in causes(error))


def file_of(error: OSError, otherwise: str | os.PathLike[str]) -> str:
    """Return the file that an error names, for messages; of two files, the one whose disk is full."""
    names = (error.filename2, error.filename) if error.errno in FULL else (error.filename,)
    name = next((name for name in names if isinstance(name, str | bytes | os.PathLike)), otherwise)
    return shown_path(os.fsdecode(name))


def shown_path(file: str) -> str:
    """Return the name of a store's file for messages. A staged file, whose name is random, is named by its folder."""
    folder, _, _ = file.rpartition("/")
    return folder if folder.rpartition("/")[2] == STAGING else file


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make errors in reading or writing the file name the file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def no_room(path: str | os.PathLike[str], why: str | None) -> StoreFull:
    """Return the error for a file on a full disk; it names the disk by its mount point."""
    file = Path(path)
    return StoreFull(f"{shown_path(str(file))}: {why}: free some space on the disk at {disk_of(file)}", path=file)


def disk_of(file: Path) -> Path:
    """Return the mount point of the disk on which a file lies, or would lie."""
    return next(level for level in (file.absolute(), *file.absolute().parents) if os.path.ismount(level))


def found_no_room(error: OSError, otherwise: str | os.PathLike[str] | None = None) -> StoreFull:
    """Return the error of a full disk for an error of the system: about the file that it names, or about `path`."""
    if file := file_of(error, otherwise or ""):
        return no_room(file, error.strerror)
    return StoreFull(f"this machine: {error.strerror}: free some space")
