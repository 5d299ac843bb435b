"""Locks between the processes of one machine. The system releases them when their holder ends in any way.

A lock is one of flock(2) on an open file: it lasts as long as any process has that open file, including a child that
inherited the descriptor.

The library `filelock` would fit only locks that are an empty file. This project also locks folders that must stay
empty, gives a lock's descriptor to the commands that a worker starts, so that a command that is left keeps the lock,
reads the holder in a locked file, and takes a name away from a paused holder. On a file system without locks
`filelock` takes the existence of a file for a lock, which outlives a killed process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def take(handle: int) -> bool:
    """Lock the open file or folder without waiting; False when another process has locked it.

    Raises `OSError` where the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock the file at `path` during the block, made if missing; yield False when another process has it."""
    with path.open("a") as file:
        yield take(file.fileno())


@contextlib.contextmanager
def waited_for(path: Path) -> Iterator[IO[str]]:
    """Open and lock the file at `path` during the block, and make it if it is missing. Waits for another holder."""
    while True:
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if is_at(file.fileno(), path):  # otherwise another file has taken the name between the two calls
                file.seek(0)
                yield file
                return


def held(path: Path) -> int | None:
    """Return a descriptor of the file at `path`, locked until it is closed; None when another process has the lock.

    Makes a missing file, for this user alone. Raises `OSError` where the file cannot be made or locked, or is a
    symbolic link.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            is_mine = take(handle)
            if is_mine and is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not is_mine:
            return None


def is_at(handle: int, path: Path) -> bool:
    """Whether this open file still has the name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
