"""Limits of a child process: memory, processor time, file sizes, and another user's identity.

Each limit is the kernel's and belongs to a process: a child of the child has the same limits, and its own account.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import resource
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flavor.errors import InvalidSetting
from flavor.sizes import shown_size
from flavor.spawn import Limit

_MEMORY = resource.RLIMIT_DATA if sys.platform.startswith("linux") else resource.RLIMIT_AS
"""On Linux private writable memory alone, so that models that are mapped for reading do not count."""
_LAST_CPU_S = 5
"""Between SIGXCPU, which a program may catch, and SIGKILL."""
_OUT_OF_MEMORY = re.compile(
    r"MemoryError|[Uu]nable to allocate|[Cc]annot allocate memory|can't allocate|bad_alloc|[Oo]ut of memory"
    r"|cannot allocate vector"
)
_TOO_LARGE = re.compile(r"File too large|Errno 27\b")
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL)


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
        """The user of this name, to whom root alone can change; raises `InvalidSetting` naming `option`."""
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
        """Whether the permissions of this folder, by themselves, let it look up names there."""
        found = folder.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid in self.groups:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)

    def may_change(self, folder: Path) -> bool:
        """Whether it may put other things in place of what lies in this folder, or could let itself do so."""
        found = folder.stat()
        if found.st_uid == self.uid:
            return True
        writes = stat.S_IWGRP if found.st_gid in self.groups else stat.S_IWOTH
        return bool(found.st_mode & writes)

    def let_through(self, *folders: Path) -> None:
        """Let it reach what lies in these folders of ours, whatever the umask was, without listing them.

        Raises `InvalidSetting` for a folder that is another user's, who could lead us astray in it.
        """
        for folder in folders:
            with _opened(folder) as handle:
                if os.fstat(handle).st_uid != os.geteuid():
                    raise InvalidSetting(f"{folder} is another user's: remove it, or name another --workspace")
                os.fchmod(handle, 0o711)

    def give(self, folder: Path) -> None:
        """Make a folder in a folder of ours its own and nobody else's."""
        with _opened(folder) as handle:
            self._give(handle)

    def give_tree(self, folder: Path) -> None:
        """The same for a folder and all in it, but for files with several names: those it may only read.

        By descriptors, and no link is followed: what a process of its own does there meanwhile leads us nowhere else.
        """
        for _, _, names, parent in os.fwalk(folder, topdown=False):
            for name in names:
                self._give_file(name, parent)
            self._give(parent)

    def _give_file(self, name: str, parent: int) -> None:
        if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return  # nor opened: that alone can do something to a device or a pipe
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
    """A descriptor of a folder that is no link."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Confinement:
    """What a child process may use. Core dumps, which would hold models, are never written."""

    memory_bytes: int | None = None
    """Of each process: heap, anonymous mappings and thread stacks; not files that it maps for reading, nor memory that
    it shares with others. Outside Linux all of its address space."""
    cpu_s: int | None = None
    """Processor time of each process, over all its threads."""
    file_bytes: int | None = None
    """Of each file that it writes."""
    account: Account | None = None

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits of the child, for `spawn`."""
        limits: list[Limit] = [(resource.RLIMIT_CORE, (0, 0))]
        if self.memory_bytes is not None:
            limits.append((_MEMORY, (self.memory_bytes, self.memory_bytes)))
        if self.cpu_s is not None:
            limits.append((resource.RLIMIT_CPU, (self.cpu_s, self.cpu_s + _LAST_CPU_S)))
        if self.file_bytes is not None:
            limits.append((resource.RLIMIT_FSIZE, (self.file_bytes, self.file_bytes)))
        return tuple(limits)

    @property
    def identity(self) -> dict[str, Any]:
        """The user of the child, for `spawn`; empty for this process's own."""
        if self.account is None:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": self.account.groups}

    def environment(self) -> dict[str, str]:
        """What a program expects to find about its user."""
        if self.account is None:
            return {}
        return {"HOME": self.account.home, "USER": self.account.name, "LOGNAME": self.account.name}

    def explained(self, code: int, lines: Sequence[str]) -> str:
        """Which limit ended a process, as well as its end and its last lines can tell; empty when none did."""
        said = "\n".join(lines)
        if self.cpu_s is not None and code == -signal.SIGXCPU:
            return f"used up --cpu-limit-s {self.cpu_s}"
        if self.file_bytes is not None and (code == -signal.SIGXFSZ or (code != 0 and _TOO_LARGE.search(said))):
            return f"wrote a file as large as --file-size-limit {shown_size(self.file_bytes)}"
        possible = []
        if self.cpu_s is not None and code == -signal.SIGKILL:  # also what ends a program that catches SIGXCPU
            possible.append(f"used up --cpu-limit-s {self.cpu_s}")
        if self.memory_bytes is not None and code != 0:
            limit = f"reached --memory-limit {shown_size(self.memory_bytes)}"
            if _OUT_OF_MEMORY.search(said):
                return limit
            if code in [-number for number in _CRASHES]:
                possible.append(limit)
        return f"perhaps {' or '.join(possible)}" if possible else ""


UNLIMITED = Confinement()
