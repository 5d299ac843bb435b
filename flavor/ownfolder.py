"""Make folders for a program's own files that no other user can replace with a folder of their own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flavor.errors import InvalidSetting


def make_own_folder(folder: Path, *, mode: int = 0o755, needed: bool = True, option: str = "--workspace") -> None:
    """Make `folder` and missing folders above it. Raises `InvalidSetting` where another user may write on its path.

    Below the current folder, each level must be this user's or root's, and no other user may write there. Elsewhere,
    and for the current folder and the folders above it, only a folder that all may write to is refused, unless it is
    this user's or root's and has the sticky bit, because containers mount folders of many owners. The same holds for
    another user's link in a folder that all may write to. A volume of a pod is accepted: Kubernetes mounts an
    `emptyDir` with mode 0777, and no other user is in the pod. A folder that cannot be made is an error only where it
    is `needed`. `option` is the option that names another folder.
    """
    folder, here = folder.absolute(), Path.cwd()
    levels = [folder, *folder.parents]
    strict = levels[: levels.index(here)] if here in levels else []
    for level in reversed(levels):
        try:
            level.mkdir(mode=mode if level == folder else 0o755)
        except FileExistsError:
            pass
        except OSError as error:  # an automount may give this error for an existing folder, too
            if not os.path.isdir(level):
                if not needed:
                    return
                raise InvalidSetting(
                    f"the folder {level} cannot be made: {error.strerror}: name another {option}"
                ) from None
        _check(level, strict=level in strict, otherwise=f"name another {option}")


def _check(folder: Path, *, strict: bool, otherwise: str) -> None:
    try:
        found, name, above = folder.stat(), folder.lstat(), folder.parent.stat()
    except OSError as error:
        raise InvalidSetting(f"the folder {folder} cannot be used: {error.strerror}") from None
    is_foreign_link = stat.S_ISLNK(name.st_mode) and name.st_uid not in (0, os.geteuid())
    if is_foreign_link and (above.st_mode & stat.S_IWOTH or (strict and os.geteuid() != 0)):
        raise InvalidSetting(f"the folder {folder} is a link of another user, who may lead it elsewhere: {otherwise}")
    by_all, by_group = found.st_mode & stat.S_IWOTH, found.st_mode & stat.S_IWGRP
    if found.st_uid not in (0, os.geteuid()):
        trusted = os.geteuid() == 0 and not (by_all or by_group)  # in a container, root works for this user
        refused = not trusted if strict else bool(by_all)
        how = f"belongs to another user, who may put files in the place of yours: {otherwise}"
    else:
        shared = by_all or (strict and by_group and not _is_private_group(found.st_gid))
        refused = bool(shared and not found.st_mode & stat.S_ISVTX) and (strict or not _is_volume_of_pod(folder))
        how = (
            f"can be written by others, who may put files in the place of yours: `chmod go-w {folder}`, or {otherwise}"
        )
    if refused:
        raise InvalidSetting(f"the folder {folder} {how}")


def _is_volume_of_pod(folder: Path) -> bool:
    """Whether this is a mount point, and this process runs in a pod of Kubernetes, which sets this variable."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and os.path.ismount(folder)


def _is_private_group(gid: int) -> bool:
    """Whether this is the private group that the system has made for this user, with no other member."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return gid == os.geteuid()
    return group.gr_name == user and set(group.gr_mem) <= {user}
