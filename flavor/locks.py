"""Locks between the processes of one machine, which the system lets go of when their holder ends, however it ends.

A lock is one of flock(2) on an open file: it lasts as long as any process has that open file, a child that inherited
the descriptor included.

The library `filelock` would fit only those of our locks that are an empty file. We also lock folders, into which
nothing is to be put; give a lock's descriptor to the commands that a worker starts, so that what is left of them keeps
it; read in a locked file who has it; and take a name away from a holder that is paused. On a file system without locks
`filelock` takes the existence of a file for a lock, which outlives a process that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def take(handle: int) -> bool:
    """Lock the open file or folder without waiting; False when another one that has it open has locked it.

    Raises `OSError` where the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock the file at `path`, made where there is none, while this lasts; False when another process has it."""
    with path.open("a") as file:
        yield take(file.fileno())


@contextlib.contextmanager
def waited_for(path: Path) -> Iterator[IO[str]]:
    """The file at `path`, made where there is none, open and locked while this lasts; waits for who has it."""
    while True:
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if is_at(file.fileno(), path):  # else it was removed between the two calls: another file has the name now
                file.seek(0)
                yield file
                return


def held(path: Path) -> int | None:
    """A descriptor of the file at `path`, made for this user alone where there is none, which is locked until closed.

    None when another process has it. Raises `OSError` where it cannot be made or locked, or is a symbolic link.
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
    """Whether this open file, and no other, has the name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
