"""Reads files of a folder that may come from somebody else: plain files alone, and no more bytes than they may have."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flavor.errors import InvalidRecord

MOST_BYTES = 2**28


def read_plain(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """Return the bytes of a file. A link, pipe, device or socket is not opened: it may lead elsewhere, or wait forever.

    Raises `FileNotFoundError`, and `InvalidRecord` in one line that names the file for anything else than a file of
    `most` bytes that can be read.
    """
    try:
        _check_plain(path, path.lstat())
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            _check_plain(path, os.fstat(handle))  # another one by now, perhaps
            data = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise InvalidRecord(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > most:
        raise InvalidRecord(f"{path} has more than {most} bytes, which no such file of flavor has")
    return data


def _check_plain(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "no file"
        raise InvalidRecord(f"{path} is {what}, and a plain file is needed")
