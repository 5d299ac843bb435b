"""Another user of this machine, as whom a program runs: what that user may reach, and what is given to it.

This process is root where there is such a user, and works in folders that the other user writes to. So it opens them by
descriptors, and follows no link that the other user may have made.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flavor.errors import InvalidSetting


@dataclass(frozen=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @classmethod
    def of(cls, name: str, option: str) -> Account:
        """Look up the user of this name. Raises `InvalidSetting`, which names `option`, also if we are not root."""
        if os.geteuid() != 0:
            raise InvalidSetting(f"{option} {name}: only root can start a program as another user; leave it out")
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise InvalidSetting(f"{option} {name}: there is no such user on this machine") from None
        if found.pw_uid == 0:
            raise InvalidSetting(f"{option} {name}: that is root itself; name a user that may do little")
        return cls(name, found.pw_uid, found.pw_gid, tuple(os.getgrouplist(name, found.pw_gid)), found.pw_dir)

    def may_enter(self, folder: Path) -> bool:
        """Whether the permissions of this folder itself let this user look up names in it."""
        found = folder.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid in self.groups:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)

    def may_change(self, folder: Path) -> bool:
        """Whether this user may replace what lies in this folder, or may give itself the permission to."""
        found = folder.stat()
        if found.st_uid == self.uid:
            return True
        writes = stat.S_IWGRP if found.st_gid in self.groups else stat.S_IWOTH
        return bool(found.st_mode & writes)

    def let_through(self, *folders: Path) -> None:
        """Let this user open files in these folders of ours by their names, without listing the folders.

        Raises `InvalidSetting` for a folder of another user, who could replace what this process puts there.
        """
        for folder in folders:
            with _opened(folder) as handle:
                if os.fstat(handle).st_uid != os.geteuid():
                    raise InvalidSetting(f"{folder} is another user's: remove it, or name another --workspace")
                os.fchmod(handle, 0o711)

    def give(self, folder: Path) -> None:
        """Make this user the only owner of a folder that lies in a folder of ours."""
        with _opened(folder) as handle:
            self._give(handle)

    def give_tree(self, folder: Path) -> None:
        """Give this user a folder and all that lies in it, except files with several names, which it may only read.

        Works on descriptors and follows no link, so that no process of this user can redirect it to another file.
        """
        for _, _, names, parent in os.fwalk(folder, topdown=False):
            for name in names:
                self._give_file(name, parent)
            self._give(parent)

    def _give_file(self, name: str, parent: int) -> None:
        if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return  # opening a device or a pipe can have an effect
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            found = os.fstat(handle)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                self._give(handle)
        finally:
            os.close(handle)

    def _give(self, handle: int) -> None:
        os.fchown(handle, self.uid, self.gid)
        os.fchmod(handle, 0o700 if stat.S_ISDIR(os.fstat(handle).st_mode) else 0o600)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder that is no link; returns the descriptor."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def check_way(account: Account, name: str, folder: Path, *, within: bool) -> None:
    """Raise `InvalidSetting` if the account cannot reach `folder`, which `name` names, or can replace it.

    With `within` the account must also be able to enter `folder` itself, and not to replace what lies in it.
    """
    for each in (folder, *folder.parents):
        if not account.may_enter(each) and (within or each != folder):
            raise InvalidSetting(
                f"--user {account.name} may not enter {each}, on the way to {name} {folder}: "
                "name another folder, or let others enter (chmod o+x)"
            )
    for each in dict.fromkeys((*_with_parents(folder.absolute()), *_with_parents(folder.resolve()))):
        if not within and each in (folder.absolute(), folder.resolve()):
            continue  # it is given to the account
        sticky = each != folder.resolve() and each.stat().st_mode & stat.S_ISVTX  # as /tmp is
        if account.may_change(each) and (not sticky or each.stat().st_uid == account.uid):
            raise InvalidSetting(
                f"--user {account.name} may change {each}, on the way to {name} {folder}: "
                "name a folder that only root can replace"
            )


def _with_parents(folder: Path) -> tuple[Path, ...]:
    return (folder, *folder.parents)
