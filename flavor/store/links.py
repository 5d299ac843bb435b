"""Place files by links, or by copies where a file system has no links."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

from flavor.atomic import taking_place
from flavor.watch import current_watch

_BLOCK_BYTES = 2**20
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""The errors that another file system, or one without hard links, gives."""


def linked(source: Path, target: Path) -> bool:
    """Give the file a second name; False where the file system cannot. Raises `OSError` for other failures."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def is_sole(source: Path) -> bool:
    """Whether this is a plain file of this user that has no other name, so that a link shares it with no other user.

    All names of a file share its mode and content: a change by one name is a change by all.
    """
    found = source.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid()


def copied(source: Path, target: Path) -> tuple[os.stat_result, os.stat_result]:
    """Copy the file's bytes to a new file. Raises `OSError`, and `TransferStopped` where the watcher ends it.

    Returns the status of the file that was read, before and after.
    """
    watch = current_watch()
    with (
        source.open("rb", buffering=0) as reading,
        target.open("xb") as writing,
        watch.phase("copying", (before := os.fstat(reading.fileno())).st_size),
    ):
        while block := _read_of(source, reading):
            writing.write(block)
            watch.moved(len(block))
        return before, os.fstat(reading.fileno())


def _read_of(source: Path, reading: io.FileIO) -> bytes:
    """Read the next bytes; an error names this file, and so differs from an error of the copy."""
    try:
        return reading.read(_BLOCK_BYTES)
    except OSError as error:
        error.filename = error.filename or os.fspath(source)
        raise


def placed(
    source: Path, destination: Path, *, check: Callable[[Path, tuple[os.stat_result, ...]], None] = lambda *_: None
) -> None:
    """Put a link to `source`, or a copy, at `destination` in one step, replacing what is there.

    Calls `check` before the replacement: with the link or the copy itself, because another process may give the name
    `source` to another file at any time, and with the status of the linked or copied file, before and after a copy.
    Raises `OSError`, what `check` raises, and `TransferStopped` where the watcher ends it; nothing is replaced then.
    """
    with taking_place(destination) as temporary:
        was = (temporary.lstat(),) if linked(source, temporary) else copied(source, temporary)
        check(temporary, was)
        current_watch().check()
