"""A folder store that several users share: make folders for their group, and find missing rights."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def make_folders(folder: Path) -> None:
    """Make `folder` and missing folders above it. Below a folder with the setgid bit, the group gets the same rights.

    So the umask of the first user does not lock out other users of the group.
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
    """Whether the folder's file system is mounted read-only, so that no user can write there for now."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def lacking_right(root: Path, *folders: str) -> str:
    """Return the right that this process lacks to make these folders below `root` and put objects there; '' for none.

    A file system that is read-only for now does not count.
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
