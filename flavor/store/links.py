"""Placing files by links, and by copies where a file system has none."""

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
"""Another file system, or one without hard links."""


def linked(source: Path, target: Path) -> bool:
    """Give the file a second name; False where there can be none. Raises `OSError` for anything else."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def is_sole(source: Path) -> bool:
    """Whether this is a plain file of this user's that has no other name: to link it shares it with nobody.

    A link shares its file's mode and content, so what becomes of the one becomes of all other names of the file.
    """
    found = source.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid()


def copied(source: Path, target: Path) -> tuple[os.stat_result, os.stat_result]:
    """Copy the file's bytes to a new one, until the watcher ends it; raises `OSError`, `TransferStopped`.

    Returns what the file that was read was before, and after.
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
    """The next bytes; an error names the file, so that it is told from one of the copy."""
    try:
        return reading.read(_BLOCK_BYTES)
    except OSError as error:
        error.filename = error.filename or os.fspath(source)
        raise


def placed(
    source: Path, destination: Path, *, check: Callable[[Path, tuple[os.stat_result, ...]], None] = lambda *_: None
) -> None:
    """Put a link to `source`, or a copy, at `destination` in one step, replacing what is there.

    It is the link or the copy that `check` is called with, before: another may give `source` another name at any time;
    and with what the file that was linked, or copied, was then, and after the copying.
    Raises `OSError`, and what `check` raises; `TransferStopped`, with nothing replaced, where that is no longer wanted.
    """
    with taking_place(destination) as temporary:
        was = (temporary.lstat(),) if linked(source, temporary) else copied(source, temporary)
        check(temporary, was)
        current_watch().check()
