"""What a disk says, in words: which file was in hand, and, where there is no room left, which disk it is."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from flavor.errors import StoreFull

StrPath = str | os.PathLike[str]
STAGING = ".staging"
"""The folder, in a folder that is the store, of what is on its way into it, under a new name each time."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where there is no room: on the disk, or for this user."""
GONE = (errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT)
"""What it says where a disk or a share is away that is mounted."""
LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What it says where a process, or its machine, has too little of something: no file is to blame, nor its disk."""
AWAY = (*GONE, errno.EIO, errno.EROFS)
"""What it says where one cannot be used for now, whichever file is asked for."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came of, what that came of, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def is_of_the_machine(error: BaseException) -> bool:
    """Whether it came of what this machine cannot do for now, and can later with the same words."""
    passing = {*FULL, *LIMITS, *GONE, errno.EIO}  # without EROFS: a read-only system is most often meant to be so
    return any(isinstance(cause, OSError) and cause.errno in passing for cause in causes(error))


def file_of(error: OSError, otherwise: str | os.PathLike[str]) -> str:
    """The file that an error names, as it is named to people: of two the one that found no room, where that is it."""
    names = (error.filename2, error.filename) if error.errno in FULL else (error.filename,)
    name = next((name for name in names if isinstance(name, str | bytes | os.PathLike)), otherwise)
    return shown_path(os.fsdecode(name))


def shown_path(file: str) -> str:
    """How a file of a store is named to people: one on its way there by its folder, or each attempt would be news."""
    folder, _, _ = file.rpartition("/")
    return folder if folder.rpartition("/")[2] == STAGING else file


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error in reading or writing the file name it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def no_room(path: str | os.PathLike[str], why: str | None) -> StoreFull:
    """The error for a file that found no room; it names the disk by where that is mounted."""
    file = Path(path)
    return StoreFull(f"{shown_path(str(file))}: {why}: free some space on the disk at {disk_of(file)}", path=file)


def disk_of(file: Path) -> Path:
    """Where the disk is mounted on which a file lies, or would lie."""
    return next(level for level in (file.absolute(), *file.absolute().parents) if os.path.ismount(level))


def found_no_room(error: OSError, otherwise: str | os.PathLike[str] | None = None) -> StoreFull:
    """The same of what the system says, of the file that it names, or else of this one."""
    if file := file_of(error, otherwise or ""):
        return no_room(file, error.strerror)
    return StoreFull(f"this machine: {error.strerror}: free some space")
