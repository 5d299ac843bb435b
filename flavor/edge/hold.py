"""Locks the folders of a workspace: two edges that used one would take each other's models for their own.

The edge locks a file `.flavor-lock` as long as it lives, in each folder in which the edge and its trainer hand files
over, and in the trainer's output folder. The file's text says which process holds the lock. A second process is
refused. Only a later process of the same client of the same run takes the folders over: it has taken the client's
membership before that, so the first process is paused, and ends when it wakes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting
from flavor.locks import held, is_at

LOCK = ".flavor-lock"
_WORDLESS_TRIES, _TRY_S = 20, 0.05
"""How often a locked file is read again that does not say yet which process holds it, and the pause in between."""


class Hold:
    """The folders of one workspace, locked by one process."""

    def __init__(self, who: str, identity: str, *, tell: Callable[[str], None]) -> None:
        """A process that is refused is told `who` holds the folders; one of the same `identity` takes them over.

        `tell` is told of a folder that cannot be locked, as on a file system without locks. The edge uses it anyway.
        """
        self._tell = tell
        self._me = {"who": who, "identity": identity, "pid": os.getpid(), "host": socket.gethostname()}
        self._held: list[tuple[Path, int]] = []

    def take(self, workspace: Workspace) -> None:
        """Lock all folders of the workspace, or none; `InvalidSetting` names a folder in use, and who uses it."""
        try:
            for folder, variable in _folders(workspace).items():
                self._hold(folder, variable, workspace)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Unlock the folders, and leave nothing in them."""
        for path, handle in self._held:
            with contextlib.suppress(OSError):
                if is_at(handle, path):  # else a later process of this client has taken it over
                    path.unlink()
            os.close(handle)
        self._held = []

    def _hold(self, folder: Path, variable: str, workspace: Workspace) -> None:
        path, tries = folder / LOCK, 0
        try:
            while (handle := held(path)) is None:
                holder = _holder(path)
                if holder.get("identity") == self._me["identity"]:
                    path.unlink(missing_ok=True)
                elif holder or tries == _WORDLESS_TRIES:
                    raise _in_use(folder, variable, workspace, holder)
                else:
                    tries += 1
                    time.sleep(_TRY_S)
            self._held.append((path, handle))
            os.truncate(handle, 0)
            os.pwrite(handle, json.dumps(self._me).encode(), 0)
        except OSError as error:
            self._tell(f"{folder} cannot be locked ({error.strerror}): see that no other edge uses it")


def _folders(workspace: Workspace) -> Mapping[Path, str]:
    """Each folder, and the variable that may have named it. The folders of the models hold the info files, too."""
    found = {workspace.root.resolve(): ""}
    for folder, variable in (
        (workspace.local_model.parent, "LOCAL_MODEL_PATH"),
        (workspace.global_model.parent, "GLOBAL_MODEL_PATH"),
        (workspace.output, "OUTPUT_PATH"),
    ):
        found.setdefault(folder.resolve(), variable)
    return found


def _in_use(folder: Path, variable: str, workspace: Workspace, holder: Mapping[str, object]) -> InvalidSetting:
    who = f"{holder.get('who', 'another edge')} has it"
    if "pid" in holder:
        elsewhere = "" if holder.get("host") == socket.gethostname() else f" on {holder.get('host')}"
        who += f" (pid {holder['pid']}{elsewhere})"
    if given := workspace.given.get(variable):
        return InvalidSetting(
            f"{variable} {given}: the folder {folder} is in use: {who}: unset {variable}, or name another folder for "
            "each edge"
        )
    return InvalidSetting(f"the folder {folder} is in use: {who}: name another --workspace for each edge")


def _holder(path: Path) -> Mapping[str, object]:
    """What the process that holds a folder has written about itself; empty while it has not written yet."""
    with contextlib.suppress(ValueError, RecursionError, OSError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}
