"""A store in a local folder, or in a folder that every party mounts.

Files on the same file system are linked into and out of the store and never copied, because writing fresh pages costs
most here. Objects are read-only, so that no process writes through a link by accident.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from flavor.disk import AWAY, FULL, STAGING, file_of, found_no_room
from flavor.errors import (
    BadObjectPath,
    DigestMismatch,
    InvalidSetting,
    LocalFault,
    ObjectExists,
    ObjectMissing,
    ObjectWithheld,
    ShareAway,
    StoreUnavailable,
)
from flavor.records.objects import ObjectRef
from flavor.store.digests import check_bytes, check_most, check_named, check_object, check_size, sha256_file
from flavor.store.links import copied, linked, placed
from flavor.store.paths import checked_path
from flavor.store.seals import is_strict, seal_of
from flavor.store.shared import is_read_only, make_folders
from flavor.store.trees import remove_tree

_BLOCK_BYTES = 1 << 20
_LEFT_OVER_S = 60.0
"""An empty object of this age was left by a process that died: an object is renamed over its empty name at once."""
_STAGED_S = 86_400.0
"""A staged file of this age was left by a process that died."""


class LocalStore:
    """`ObjectStore` in the folder `root`. With `create`, makes the folder; without, the folder must exist.

    Without `create`, nothing is written before there is an object to put, because it may be the wrong folder. Raises
    `ShareAway` or `StoreFull` for a fault that can pass, and `InvalidSetting` for a folder that cannot be used.
    """

    private = False

    def __init__(self, root: Path, *, create: bool = False) -> None:
        try:
            if create:
                root.mkdir(parents=True, exist_ok=True)
            self._root = root.resolve(strict=True)
            self._staging = self._root / STAGING
            if create:
                make_folders(self._staging)
                with self.stage() as probe:
                    probe.touch()
                    self._sweep(before_s=probe.stat().st_mtime - _STAGED_S)
            elif not (self._staging.is_dir() or os.access(self._root, os.W_OK) or is_read_only(self._root)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except (OSError, LocalFault) as error:
            raise _unusable(root, error) from None
        self.url = f"file://{self._root}"

    def _sweep(self, *, before_s: float) -> None:
        for entry in os.scandir(self._staging):
            with contextlib.suppress(OSError):  # another process was faster, or the file is another user's
                if entry.stat(follow_symlinks=False).st_mtime < before_s and not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """See `ObjectStore`."""
        with _clear(self._staging):
            self._make(self._staging)
            if self._staging.is_symlink():
                raise BadObjectPath(f"{self._staging} is a link: it would take what is staged out of the store")
        staged = self._staging / secrets.token_hex(12)
        try:
            yield staged
        finally:
            with contextlib.suppress(OSError):  # the store takes no writes now: a later start sweeps the file
                staged.unlink(missing_ok=True)

    def put(self, ref: ObjectRef, source: Path) -> None:
        """See `ObjectStore`."""
        path = ref.path
        target = self._at(path)
        with _clear(target):
            try:
                self._place(source, target, path)
            except FileExistsError:
                if self._is_left_over(target, source):
                    os.replace(source, target)
                elif sha256_file(target)[0] != ref.digest:
                    raise ObjectExists(
                        f"object {path} is there already, with other bytes: nothing was changed"
                    ) from None
            except FileNotFoundError:  # its folder was pruned just now
                self._place(source, target, path)
            source.unlink(missing_ok=True)

    def _is_left_over(self, target: Path, source: Path) -> bool:
        """Whether a process that died has taken the name, on a file system without links, and put nothing there."""
        with self.stage() as now:
            now.touch()
            old_s = now.stat().st_mtime - target.stat().st_mtime
        return target.stat().st_size == 0 < source.stat().st_size and old_s > _LEFT_OVER_S

    def _place(self, source: Path, target: Path, path: str) -> None:
        self._make_folder(target, path)
        source.chmod(0o444)
        if linked(source, target):
            return
        with self.stage() as copy:
            copied(source, copy)
            copy.chmod(0o444)
            if not linked(copy, target):
                os.close(
                    os.open(target, os.O_CREAT | os.O_EXCL, 0o444)
                )  # no links on this file system: this takes the name
                os.replace(copy, target)

    def open(self, ref: ObjectRef) -> Path:
        """See `ObjectStore`."""
        check_named(ref)
        target = self.local(ref.path, size_bytes=ref.size_bytes)
        if not ref.seal or self.seal(ref.path, strict=is_strict(ref.seal)) != ref.seal:
            check_object(ref, target)
        return target

    def local(self, path: str, *, size_bytes: int | None = None) -> Path:
        """See `ObjectStore`."""
        target = self._at(path)
        if target.is_symlink() or not target.is_file():
            raise ObjectMissing(f"object {path} is not in the store {self.url}")
        self._check_inside(target, path)
        if size_bytes is not None:
            check_size(target.stat().st_size, size_bytes, f"object {path}")
        return target

    def seal(self, path: str, *, strict: bool = False) -> str:
        """See `ObjectStore`: the file's inode, size and time of modification, `strict` that of its last change, too.

        A linked file can be changed by its other names, before and after its digest is computed. A seal detects a file
        that was replaced, cut off or written to, without reading it. It does not detect writes through a mapping that
        was writable before. The kernel alone sets the time of the last change, but each new link to the file sets it.
        """
        return seal_of(self.local(path).stat(), strict=strict)

    def place(self, ref: ObjectRef, destination: Path, *, check: Callable[[Path], None] = lambda _: None) -> None:
        """See `ObjectStore`."""

        def check_placed(file: Path, was: tuple[os.stat_result, ...]) -> None:
            # `file` is the placed file itself: its name in the store may lead to another file by now
            if any(seal_of(each, strict=is_strict(ref.seal)) != ref.seal for each in was):
                check_object(ref, file)
            check(file)

        check_named(ref)
        source = self.local(ref.path, size_bytes=ref.size_bytes)
        with _clear(destination):
            placed(source, destination, check=check_placed)

    def exists(self, path: str) -> bool:
        """See `ObjectStore`."""
        target = self._at(path)
        return target.is_file() and not target.is_symlink() and not self._leads_out(target)

    def read(self, ref: ObjectRef, *, most: int) -> bytes:
        """See `ObjectStore`."""
        check_named(ref)
        data = self.read_unverified(ref.path, most=most)
        check_bytes(ref, data)
        return data

    def read_unverified(self, path: str, *, most: int) -> bytes:
        """See `ObjectStore`."""
        file = self.local(path)
        with _clear(file):
            handle = os.open(
                file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )  # another user may have put a pipe there
            with open(handle, "rb", buffering=0) as opened:
                data = _read_up_to(opened, most + 1)
        check_most(data, path, most)
        return data

    def take(self, path: str, target: str, *, most: int | None = None) -> str:
        """See `ObjectStore`."""
        source, taken = self._at(path), self._at(target)
        with _clear(taken):
            if not os.path.lexists(source) and not os.path.lexists(taken):  # no folder is made in an unmounted share
                raise ObjectMissing(f"object {path} is not in the store {self.url}")
            self._make_folder(taken, target)
            if os.path.lexists(taken):
                return target
            try:
                if self.local(path).stat().st_uid == os.geteuid():
                    os.rename(source, taken)
                else:  # its owner could write to it in any place
                    raise PermissionError
            except ObjectMissing:
                if not os.path.lexists(taken):  # otherwise another worker was faster
                    raise
            except FileNotFoundError:
                if not os.path.lexists(taken):
                    raise ObjectMissing(f"object {path} is not in the store {self.url}") from None
            except PermissionError:
                with self.stage() as copy:
                    _copied_of_another(source, copy, path, most)
                    copy.chmod(0o444)
                    os.replace(copy, taken)
        return target

    def delete(self, paths: Sequence[str]) -> None:
        """See `ObjectStore`."""
        for path in paths:
            target = self._at(path)
            self._check_inside(target, path)
            with _clear(target), contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                target.unlink()

    def remove(self, prefix: str) -> None:
        """See `ObjectStore`. Removes folders of any depth, with paths of any length."""
        folder = self._at(prefix.rstrip("/"))
        self._check_inside(folder, prefix)
        with _clear(folder):
            self._make(self._staging)
            remove_tree(folder, self._staging)

    def size_bytes(self, path: str) -> int:
        """See `ObjectStore`."""
        return self.local(path).stat().st_size

    def start(self, path: str, size_bytes: int) -> bytes:
        """See `ObjectStore`."""
        target = self.local(path)
        with _clear(target), target.open("rb", buffering=0) as file:
            return file.read(size_bytes)

    def list(self, folder: str, *, most: int | None = None, after: str = "") -> list[str]:
        """See `ObjectStore`. Links are no objects. With `most`, the entries are in no order."""
        return [*self._names(folder, most, lambda entry: entry.is_file(follow_symlinks=False), after)]

    def folders(self, folder: str, *, most: int | None = None) -> Sequence[str]:
        """See `ObjectStore`. Links are no folders."""
        found = self._names(folder, most, lambda entry: entry.is_dir(follow_symlinks=False))
        return [f"{path}/" for path in found]

    def _names(
        self, folder: str, most: int | None, is_one: Callable[[os.DirEntry[str]], bool], after: str = ""
    ) -> Sequence[str]:
        start = checked_path(folder.rstrip("/"))
        at = self._root / start
        self._check_inside(at / "x", folder)
        with _clear(at), contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(at) as entries:
            found = (f"{start}/{entry.name}" for entry in entries if not entry.name.startswith(".") and is_one(entry))
            return sorted(itertools.islice((path for path in found if path > after), most))
        return []

    def _at(self, path: str) -> Path:
        return self._root / checked_path(path)

    def _make_folder(self, target: Path, path: str) -> None:
        """Make the object's folder."""
        self._check_inside(target, path)  # also before folders are made: a link would put them elsewhere
        if not target.parent.is_dir():
            self._make(target.parent)
            self._check_inside(target, path)

    def _make(self, folder: Path) -> None:
        """Make a folder of the store, but none in the empty folder, or above it, that an unmounted share leaves."""
        if folder.is_dir():
            return
        with os.scandir(self._root) as entries:
            if next(entries, None) is None:
                raise FileNotFoundError(errno.ENOENT, "an empty folder, as where no share is mounted", str(self._root))
        make_folders(folder)

    def _check_inside(self, target: Path, path: str) -> None:
        """Raise `BadObjectPath` if a folder on the object's path is a link. Folders that are missing are no error."""
        if self._leads_out(target):
            raise BadObjectPath(f"object path {path!r} is refused: a link on the way leaves the store")

    def _leads_out(self, target: Path) -> bool:
        at = str(self._root)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for part in target.relative_to(self._root).parts[:-1]:
                at = f"{at}/{part}"
                if stat.S_ISLNK(os.lstat(at).st_mode):
                    return True
        return False


def _copied_of_another(source: Path, target: Path, path: str, most: int | None) -> None:
    """Copy a file that its owner may change during the copy, also into a link or a pipe.

    Copies at most the bytes that the file has at the start, and keeps its holes. Raises `ObjectMissing` for a path
    that is no file now, `ObjectWithheld` for a file that this process may not read, and `DigestMismatch` for a file of
    more than `most` bytes.
    """
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise ObjectWithheld(f"object {path}: its owner does not let this process read it (its mode, chmod)") from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise ObjectMissing(f"object {path} is no file any more") from None
    with open(handle, "rb", buffering=0) as reading, target.open("xb", buffering=0) as writing:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ObjectMissing(f"object {path} is no file any more")
        if most is not None and found.st_size > most:
            raise DigestMismatch(f"object {path} has {found.st_size} bytes, more than the {most} that it may have")
        os.fchmod(writing.fileno(), 0o444)
        writing.truncate(found.st_size)
        at = 0
        while (at := _next_data(handle, at, found.st_size)) < found.st_size:
            reading.seek(at)
            data = reading.read(min(_BLOCK_BYTES, found.st_size - at))
            if not data:  # the file was cut off during the copy, which its digest shows
                break
            writing.seek(at)
            at += writing.write(data)


def _next_data(handle: int, at: int, size: int) -> int:
    """Return the offset of the next bytes that are no hole; `size` where only a hole follows."""
    try:
        return os.lseek(handle, at, os.SEEK_DATA) if at < size else size
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        if error.errno == errno.EINVAL:  # this file system does not report holes
            return at
        raise


def _read_up_to(file: IO[bytes], most: int) -> bytes:
    """Read the whole file, or its first `most` bytes; one raw read may return fewer bytes than it was asked for."""
    parts = []
    while most > 0 and (part := file.read(min(most, _BLOCK_BYTES))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _unusable(root: Path, error: OSError | LocalFault) -> InvalidSetting | StoreUnavailable:
    """Return the error of a folder that cannot be the store: a fault that can pass, or a folder that must change."""
    said = error if isinstance(error, OSError) else error.__cause__
    if isinstance(said, OSError):
        if said.errno in FULL:
            return found_no_room(said, root)
        if said.errno in AWAY and (said.errno != errno.EROFS or root.exists()):
            return ShareAway(f"store {str(root)!r} cannot be used ({said.strerror}): check its disk and its mount")
    why = said.strerror if isinstance(said, OSError) else str(error)
    where = "" if root.is_absolute() else f", a relative path, which is {str(root.absolute())!r} here,"
    return InvalidSetting(
        f"store {str(root)!r}{where} cannot be used ({why}): name a folder that exists and can be written"
    )


@contextlib.contextmanager
def _clear(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise found_no_room(error, path) from error
        raise LocalFault(
            f"{file_of(error, path)}: {error.strerror}: check the folder, its mount and its permissions", path=path
        ) from error
