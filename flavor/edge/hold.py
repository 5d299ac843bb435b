"""Who uses the folders of a workspace: no two edges at once, which would take each other's models for their own.

In each folder that an edge and its trainer hand files over in, and in the one that the trainer writes its output to, a
file `.flavor-lock` is locked as long as the edge lives: the system lets go of it when the process ends, however it
does. Its text says who has it. A second process is refused, but for the same client of the same run, which has taken
the client's seat before: then the first is paused, and ends when it wakes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting

LOCK = ".flavor-lock"
_WORDLESS_TRIES, _TRY_S = 20, 0.05
"""So often a locked file is read again that does not yet say who has it."""


class Hold:
    """The folders of one workspace, held by one process."""

    def __init__(self, who: str, identity: str, *, tell: Callable[[str], None]) -> None:
        """`who` is named to a process that is refused; of one `identity` a later process takes the folders over."""
        self._tell = tell
        self._me = {"who": who, "identity": identity, "pid": os.getpid(), "host": socket.gethostname()}
        self._held: list[tuple[Path, IO[str]]] = []

    def take(self, workspace: Workspace) -> None:
        """Hold every folder of the workspace, or none: `InvalidSetting` names the one that is in use, and by whom."""
        seen = set()
        try:
            for folder, names in _folders(workspace):
                if (real := folder.resolve()) not in seen:
                    seen.add(real)
                    self._hold(real, names, workspace)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Let go of the folders; nothing is left in them."""
        for path, file in self._held:
            with contextlib.suppress(OSError):
                if _is_at(file, path):
                    path.unlink()
            file.close()
        self._held = []

    def _hold(self, folder: Path, names: tuple[str, ...], workspace: Workspace) -> None:
        path, tries = folder / LOCK, 0
        while True:
            try:
                file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+", encoding="utf-8")
            except OSError as error:
                self._cannot(folder, error)
                return
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _read(file)
                file.close()
                if holder.get("identity") == self._me["identity"]:
                    with contextlib.suppress(FileNotFoundError):
                        path.unlink()
                elif holder or tries == _WORDLESS_TRIES:
                    raise _in_use(folder, names, workspace, holder) from None
                else:
                    tries += 1
                    time.sleep(_TRY_S)
                continue
            except OSError as error:
                file.close()
                self._cannot(folder, error)
                return
            if _is_at(file, path):
                break
            file.close()  # its holder has let go of it between the two calls, and removed it
        self._held.append((path, file))
        file.truncate(0)
        json.dump(self._me, file)
        file.flush()

    def _cannot(self, folder: Path, error: OSError) -> None:
        self._tell(f"{folder} cannot be locked ({error.strerror}): see that no other edge uses it")


def _folders(workspace: Workspace) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Each folder, and the variables that may have named it; beside the models lie `info.json` and the merged one."""
    yield workspace.root, ()
    yield workspace.local_model.parent, ("LOCAL_MODEL_PATH",)
    yield workspace.global_model.parent, ("GLOBAL_MODEL_PATH",)
    yield workspace.output, ("OUTPUT_PATH",)


def _in_use(folder: Path, names: tuple[str, ...], workspace: Workspace, holder: Mapping[str, object]) -> InvalidSetting:
    who = f"{holder.get('who', 'another edge')} has it"
    if "pid" in holder:
        elsewhere = "" if holder.get("host") == socket.gethostname() else f" on {holder.get('host')}"
        who += f" (pid {holder['pid']}{elsewhere})"
    named = [name for name in names if name in workspace.given]
    if named:
        return InvalidSetting(
            f"{named[0]} {workspace.given[named[0]]}: the folder {folder} is in use: {who}: unset {named[0]}, or name "
            "another folder for each edge"
        )
    return InvalidSetting(f"the folder {folder} is in use: {who}: name another --workspace for each edge")


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether this file, and no other, has the name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _read(file: IO[str]) -> Mapping[str, object]:
    with contextlib.suppress(ValueError, OSError):
        file.seek(0)
        found = json.load(file)
        if isinstance(found, dict):
            return found
    return {}
