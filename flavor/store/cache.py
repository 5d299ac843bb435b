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
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from flavor.disk import FULL, disk_of, file_of
from flavor.errors import InvalidSetting, LocalFault
from flavor.locks import take, waited_for
from flavor.ownfolder import make_own_folder
from flavor.sizes import shown_bytes
from flavor.store.cache_total import LOOK_S, CacheTotal, Total

_IN_USE_S = 60.0
"""A file that was asked for this recently may not be open yet, and is not removed."""
_ROOM = 0.05
"""The share of the cache that is made free at once, so that a full cache is not read for each object that comes in."""
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
        path.parent.mkdir(exist_ok=True)
        self._cache.total.add(source.stat().st_size)
        source.chmod(0o444)
        os.replace(source, path)
        self.mark, self.digest, self._verified = mark, digest, _seal(path.stat())
        self._file.seek(0)
        self._file.truncate()
        json.dump({"mark": mark, "digest": digest, "verified": self._verified}, self._file)
        self._file.flush()
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
                (self.folder / part).mkdir(exist_ok=True, mode=0o700)
            with self.stage() as probe:
                probe.touch()
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

        Raises `LocalFault` where there is too little, before the file is fetched: a download of hours must not end so.
        """
        if (lacking := size_bytes - self._free_bytes()) <= 0:
            return
        with self.total.taken() as taken:
            self._check()
            taken.write(self._evict(time.time(), lacking=lacking))
        if (free := self._free_bytes()) < size_bytes:
            raise LocalFault(
                f"{what} has {shown_bytes(size_bytes)} to fetch, and the disk at {disk_of(self.folder)} has "
                f"{shown_bytes(free)}: free some space there, or name a folder on another disk with --store-cache"
            )

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self.folder).free

    def trim(self) -> None:
        """Remove least recently used files if the cache may have more than it takes, or was not looked at for an hour.

        The folder is read only then.
        """
        now = time.time()
        with contextlib.suppress(OSError):
            with self.total.taken() as taken:
                if taken.total is not None and not taken.total.is_due(self.size_bytes, now):
                    return
                self._check()
                taken.write(self._evict(now))
            self._forget(now)

    def _evict(self, now: float, *, lacking: int = 0) -> Total:
        """Remove least recently used files until the rest fits, with some room, and `lacking` bytes less are there.

        Returns what is left. A file with another name, such as the one that a script reads, frees no space.
        """
        files = [(path, path.stat()) for path in (self.folder / "objects").glob("*/*")]
        size_bytes = sum(found.st_size for _, found in files)
        room_bytes = self.size_bytes * _ROOM if size_bytes > self.size_bytes else 0
        most_bytes = min(self.size_bytes - room_bytes, size_bytes - lacking)
        for path, found in sorted(files, key=lambda each: each[1].st_atime):
            if size_bytes <= most_bytes:
                break
            if now - found.st_atime < _IN_USE_S:
                if size_bytes > self.size_bytes:
                    return Total(size_bytes, min(now, found.st_atime) + _IN_USE_S, is_held=True)
                break
            path.unlink(missing_ok=True)
            size_bytes -= found.st_size
        return Total(size_bytes, now + LOOK_S)

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
