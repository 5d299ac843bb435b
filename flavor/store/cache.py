"""Keep objects of a remote store as files on this machine: each once, whole, with the bytes of its digest.

::

    FOLDER/objects/AB/DIGEST     the bytes, read-only
    FOLDER/known/KEY             JSON about one object: its mark in the store, its digest, the file as it was verified
    FOLDER/staging               files on their way in or out
    FOLDER/total                 JSON: the bytes in objects, and when to look again (`flavor.store.cache_total`)

The file `known/KEY` is also the lock under which its object is downloaded, so that processes that want the same
model at once fetch it once. Files are put in place by a rename, so a process that has mapped a file keeps its bytes.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from flavor.disk import FULL, causes, disk_of, file_of
from flavor.errors import FlavorError, InvalidSetting, LocalFault, StoreFull
from flavor.locks import take, waited_for
from flavor.ownfolder import make_own_folder
from flavor.sizes import shown_bytes
from flavor.store.cache_total import LOOK_S, CacheTotal, Total, write_anew
from flavor.store.links import placed
from flavor.watch import current_watch

T = TypeVar("T")

_IN_USE_S = 60.0
"""A file that was asked for this recently may not be open yet, and is not removed."""
_ROOM = 0.05
"""The share of the cache that is made free at once, so that a full cache is not read for each object that comes in."""
_FILES_FREE = 2
"""Number of files as large as the largest one for which the disk is kept free, before a file is written."""
_ABANDONED_S = 86_400.0
"""A staged file that is older was left by a process that died."""


def default_folder() -> Path:
    """Return the user's cache folder, or without a home a folder of this user in the temporary folder.

    platformdirs is not used, here and for keys (`flavor.edge.config.default_key`): it has no fallback for a home that
    cannot be written, and names another folder on macOS than earlier releases, where a site's key would not be found.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(base) and os.access(os.path.dirname(base), os.W_OK | os.X_OK):
        return Path(base) / "flavor"
    return Path(tempfile.gettempdir()) / f"flavor-cache-{os.getuid()}"


class Entry:
    """What the cache knows about one object. Its lock is held."""

    def __init__(self, cache: FileCache, file: IO[str]) -> None:
        self._cache, self._file = cache, file
        self.mark = self.digest = self._verified = ""
        # nothing is known from a file that a crash has cut off
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            known = json.load(file)
            self.mark, self.digest, self._verified = (str(known[name]) for name in ("mark", "digest", "verified"))

    def file(self) -> Path | None:
        """Return the file with the object's bytes; None unless it is here, unchanged since it was verified."""
        path = self._cache.path_of(self.digest) if self.digest else None
        if path is None:
            return None
        try:
            found = path.stat()
            if _seal(found) != self._verified:
                return None
            os.utime(
                path, ns=(time.time_ns(), found.st_mtime_ns)
            )  # marks the time of use; the time of modification, which was verified, stays
        except FileNotFoundError:
            return None
        return path

    def keep(self, source: Path, *, digest: str, mark: str) -> Path:
        """Move the file at `source`, whose bytes have this digest, into the cache."""
        path = self._cache.path_of(digest)
        self._cache.retried(lambda: path.parent.mkdir(exist_ok=True))
        self._cache.total.add(source.stat().st_size)
        source.chmod(0o444)
        os.replace(source, path)
        self.mark, self.digest, self._verified = mark, digest, _seal(path.stat())
        known = {"mark": mark, "digest": digest, "verified": self._verified}
        self._cache.retried(lambda: write_anew(self._file, known))
        return path


class FileCache:
    """A folder with files of remote stores, shared by the processes of one user.

    Holds at most `size_bytes` bytes: beyond that, least recently used files are removed, except files that were asked
    for within the last minute. So a larger file comes in, and is removed when it is used no more. Raises
    `InvalidSetting` for a folder that cannot be used, that other users could write to, or on whose path another user
    could put a folder in its place. What is in the folder was verified when it came, and is not verified again.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder, self.size_bytes = folder.absolute(), size_bytes
        self.total = CacheTotal(self.folder / "total")
        make_own_folder(self.folder, mode=0o700, option="--store-cache")
        try:
            self._check()
            for part in ("objects", "known", "staging"):
                self.retried(functools.partial((self.folder / part).mkdir, exist_ok=True, mode=0o700))
            self.keep_room()
            with self.stage() as probe:
                self.retried(probe.touch)
        except OSError as error:
            raise InvalidSetting(
                f"the cache folder {str(folder)!r} cannot be used ({error.strerror}): name another with --store-cache"
            ) from None

    def _check(self) -> None:
        """Raise `PermissionError` unless the folder is this user's alone, now: it may lie in a folder of another."""
        found = self.folder.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError(errno.EPERM, "others than this user can write to it", str(self.folder))

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """Yield a fresh path in this folder. A file that is left there afterwards is removed."""
        staged = self.folder / "staging" / secrets.token_hex(12)
        try:
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    def partial(self, name: str) -> Path:
        """Return the file of an unfinished download, also of one by an earlier process. Its entry's lock is held."""
        return self.folder / "staging" / hashlib.sha256(name.encode()).hexdigest()

    @contextlib.contextmanager
    def entry(self, name: str) -> Iterator[Entry]:
        """Yield the entry of the object of this name, which includes its store. Other processes wait for it."""
        path = self.folder / "known" / hashlib.sha256(name.encode()).hexdigest()
        with self.clear():
            if not path.exists():
                self.retried(path.touch)
        with self.clear(), waited_for(path) as file:
            self._check()
            yield Entry(self, file)

    def path_of(self, digest: str) -> Path:
        """Return the path for the bytes with this digest, whether or not they are here."""
        return self.folder / "objects" / digest[:2] / digest

    @contextlib.contextmanager
    def clear(self) -> Iterator[None]:
        """Turn an error of the disk into a `LocalFault`."""
        try:
            yield
        except OSError as error:
            file = Path(file_of(error, self.folder))
            if file.parent == self.folder / "staging":  # its names are random
                file = file.parent
            advice = "check --store-cache"
            if error.errno in FULL:
                disk = disk_of(file)
                advice = f"free some space on the disk at {disk}, or name another folder with --store-cache"
            raise LocalFault(f"{file}: {error.strerror}: {advice}") from error

    def make_room(self, size_bytes: int, what: str) -> None:
        """Free some space on the disk for a file that is about to come, by removing least recently used ones.

        Waits for those that were used within the last minute, where they are needed. Raises `LocalFault` where there is
        too little, before the file is fetched: a download of hours must not end so.
        """
        while (free := self._free_bytes()) < size_bytes:
            can_come = size_bytes <= free + self._size_bytes()
            if not self._freed(lambda: size_bytes - self._free_bytes(), waits=can_come):
                break
        if free < size_bytes:
            raise LocalFault(
                f"{what} has {shown_bytes(size_bytes)} to fetch, and the disk at {disk_of(self.folder)} has "
                f"{shown_bytes(free)}: free some space there, or name a folder on another disk with --store-cache"
            )

    def keep_room(self) -> None:
        """Free some space for a file whose size is not known yet: twice that of the largest one that is here.

        The disk may be smaller than the cache may become. Reads the folder only where something can be removed.
        """
        now = time.time()
        with contextlib.suppress(OSError), self.total.taken() as taken:
            total = taken.total
            if total is None or self._lacking(total) <= 0:
                return
            if total.is_held and not total.is_due(self.size_bytes, now):
                return
            self._check()
            taken.write(self._evict(now, lacking=self._lacking(total)))

    def _lacking(self, total: Total | None) -> int:
        """How much more space is to be free for a file whose size is not known yet."""
        return 0 if total is None else _FILES_FREE * total.largest_bytes - self._free_bytes()

    def retried(self, work: Callable[[], T], *, waits: bool = True) -> T:
        """Do the work, which writes on the cache's disk; where the disk is full, remove files that are not in use.

        Does the work again then, as often as something could be removed. With `waits`, waits for files that were used
        within the last minute. Raises the error of the work once nothing is left to be removed.
        """
        while True:
            try:
                return work()
            except (OSError, FlavorError) as error:
                # a quota may be full where the disk is not: then one file at a time
                need = lambda: max(1, self._lacking(self.known()))  # noqa: E731
                if not self._is_full(error) or not self._freed(need, waits=waits):
                    raise

    def _is_full(self, error: Exception) -> bool:
        """Whether this is the error of a full disk, and the disk may be the cache's."""
        for cause in causes(error):
            if isinstance(cause, OSError) and cause.errno in FULL:
                file = Path(file_of(cause, self.folder)).absolute()
                found = next(level for level in (file, *file.parents) if level.exists())
                return found.stat().st_dev == self.folder.stat().st_dev
        return isinstance(error, StoreFull)

    def place(self, source: Path, destination: Path) -> None:
        """Give a file of the cache a second name, or copy it. Raises `LocalFault`."""
        with self.clear():
            if destination.parent.stat().st_dev == self.folder.stat().st_dev:  # where files have no links
                self.retried(lambda: placed(source, destination), waits=False)
            else:
                placed(source, destination)

    def known(self) -> Total | None:
        """What is known of the folder."""
        with self.total.taken() as taken:
            return taken.total

    def _freed(self, lacking: Callable[[], int], *, waits: bool = True) -> bool:
        """Remove least recently used files; False if there is none. With `waits`, waits until one is not in use."""
        while True:
            need = lacking()
            with self.total.taken() as taken:
                self._check()
                before = self._size_bytes()
                left = self._evict(now := time.time(), lacking=need)
                taken.write(left)
            if left.size_bytes < before:
                return True
            if not waits or not left.is_held:
                return False
            current_watch().pause(min(_IN_USE_S, max(0.1, left.look_at - now)), unless=lambda: False)

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self.folder).free

    def _size_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / "objects").glob("*/*"))

    def trim(self) -> None:
        """Remove least recently used files if the cache may have more than it takes, or was not looked at for an hour.

        The folder is read only then. Keeps room on the disk, too: a script may write its model there next.
        """
        now = time.time()
        with contextlib.suppress(OSError):
            with self.total.taken() as taken:
                is_due = taken.total is None or taken.total.is_due(self.size_bytes, now)
                if is_due:
                    self._check()
                    taken.write(self._evict(now))
            if is_due:
                self._forget(now)
        self.keep_room()

    def _evict(self, now: float, *, lacking: int = 0) -> Total:
        """Remove least recently used files until the rest fits, with some room, and `lacking` bytes less are there.

        Returns what is left. A file with another name, such as the one that a script reads, frees no space.
        """
        files = [(path, path.stat()) for path in (self.folder / "objects").glob("*/*")]
        size_bytes = sum(found.st_size for _, found in files)
        largest = max((found.st_size for _, found in files), default=0)
        room_bytes = self.size_bytes * _ROOM if size_bytes > self.size_bytes else 0
        needed_bytes = min(self.size_bytes, size_bytes - max(0, lacking))
        most_bytes = min(self.size_bytes - room_bytes, needed_bytes)
        for path, found in sorted(files, key=lambda each: each[1].st_atime):
            if size_bytes <= most_bytes:
                break
            if now - found.st_atime < _IN_USE_S:
                if size_bytes > needed_bytes:
                    return Total(size_bytes, min(now, found.st_atime) + _IN_USE_S, True, largest)
                break
            path.unlink(missing_ok=True)
            size_bytes -= found.st_size
        return Total(size_bytes, now + LOOK_S, False, largest)

    def _forget(self, now: float) -> None:
        """Remove entries whose object is gone, and staged files of processes that died."""
        for path in (self.folder / "staging").iterdir():
            if now - path.stat().st_mtime > _ABANDONED_S:
                path.unlink(missing_ok=True)
        for path in (self.folder / "known").iterdir():
            with contextlib.suppress(OSError), path.open("r+") as file:
                if take(file.fileno()) and not self._has(Entry(self, file).digest):
                    path.unlink(missing_ok=True)

    def _has(self, digest: str) -> bool:
        return bool(digest) and self.path_of(digest).exists()


def _seal(found: os.stat_result) -> str:
    return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"
