"""A folder store that several users share: folders that all of its group can use, and who lacks which right."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def make_folders(folder: Path) -> None:
    """Make `folder` and what lacks above it. Below a folder with the setgid bit the group gets there what it has here.

    So the umask of who comes first keeps none of the group out.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        return
    above = folder.parent.stat().st_mode
    if above & stat.S_ISGID:
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | (above & (stat.S_ISGID | stat.S_IRWXG)))


def is_read_only(folder: Path) -> bool:
    """Whether the file system is, on which it lies: who may write there cannot, for now."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def lacking_right(root: Path, *folders: str) -> str:
    """What keeps this process from putting objects into these folders below `root`, or make them; '' for nothing.

    A file system that is read-only for now is another matter.
    """
    for name in folders:
        at = root
        for part in Path(name).parts:
            if not os.access(at, os.X_OK) or not (at / part).is_dir():
                break
            at /= part
        if at.is_dir() and not os.access(at, os.W_OK | os.X_OK) and not is_read_only(at):
            found = at.stat()
            return (
                f"user {os.geteuid()} may not write to the folder {at}, which is of user {found.st_uid} and group "
                f"{found.st_gid} with mode {stat.S_IMODE(found.st_mode):04o}"
            )
    return ""
