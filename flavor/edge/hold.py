"""One site's files are its own while its edge lives: what two sites handed over by the same paths would be mixed up."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting

_LOCK = ".flavor-lock"


@contextlib.contextmanager
def held(workspace: Workspace, run: str, client: str) -> Iterator[None]:
    """Hold the folders through which edge and trainer hand files to each other, and the workspace's own.

    A whole folder, because `info.json` has no name of its own there. Raises `InvalidSetting`, naming the folder and who
    has it, when another client has one, or this one in another run. Another process of the same client is no reason:
    which of the two may go on is decided by the client's lease, and one may have been paused for long.
    """
    with contextlib.ExitStack() as holds:
        for folder in {
            _real(path.parent): path.parent for path in (*workspace.handed_files, workspace.marker)
        }.values():
            holds.enter_context(_held(folder, {"run": run, "client": client}))
        yield


def _real(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _held(folder: Path, who: dict[str, str]) -> Iterator[None]:
    """Hold one folder, by a file in it that goes with the last who held it."""
    path = folder / _LOCK
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:  # a disk that is full: what is to be written there says so
            yield
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = _owner(handle)
            os.close(handle)
            if other == who:
                yield
                return
            name = f"{other.get('client')!r} in run {other.get('run')!r}" if other else "another site"
            raise InvalidSetting(
                f"the folder {folder} is in use: flavor-fl of {name} hands files over there, and the two sites would "
                "take each other's models: give each site a --workspace of its own, and no LOCAL_MODEL_PATH or "
                "GLOBAL_MODEL_PATH in the environment that another one has, too"
            ) from None
        except OSError:  # a file system without locks
            os.close(handle)
            yield
            return
        if _is_at(handle, path):
            break
        os.close(handle)  # who held it has just removed it
    try:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(who).encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    except OSError:
        return False


def _owner(handle: int) -> dict[str, str]:
    try:
        value = json.loads(os.pread(handle, 4096, 0))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
