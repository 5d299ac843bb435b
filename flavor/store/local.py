"""A store in a local folder, or one that every party mounts.

A file that lies on the same file system is linked into and out of the store, never copied: fresh pages are what
costs most here. Objects are read-only, so whoever gets a link cannot write through it by accident.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from flavor.errors import BadObjectPath, InvalidSetting, LocalFault, ObjectExists, ObjectMissing, StoreFull
from flavor.store.links import linked, placed
from flavor.store.objects import check_digest, check_size, sha256_file
from flavor.store.paths import checked_path

_STAGING = ".staging"


class LocalStore:
    """`ObjectStore` in the folder `root`. With `create`, the folder is made; otherwise it must be there."""

    def __init__(self, root: Path, *, create: bool = False) -> None:
        try:
            if create:
                root.mkdir(parents=True, exist_ok=True)
            self._root = root.resolve(strict=True)
            self._staging = self._root / _STAGING
            self._staging.mkdir(exist_ok=True)
        except OSError as error:
            raise InvalidSetting(
                f"store {str(root)!r} cannot be used ({error.strerror}): name a folder that exists and can be written"
            ) from None
        self.url = f"file://{self._root}"

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """See `ObjectStore`."""
        staged = self._staging / secrets.token_hex(12)
        try:
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    def put(self, path: str, source: Path, *, digest: str) -> None:
        """See `ObjectStore`."""
        target = self._at(path)
        with _clear(target):
            try:
                self._place(source, target, path)
            except FileExistsError:
                if sha256_file(target)[0] != digest:
                    raise ObjectExists(
                        f"object {path} is there already, with other bytes: nothing was changed"
                    ) from None
            except FileNotFoundError:  # its folder was pruned in between
                self._place(source, target, path)
            source.unlink(missing_ok=True)

    def _place(self, source: Path, target: Path, path: str) -> None:
        self._check_inside(target, path)  # also before folders are made, which a link would put elsewhere
        target.parent.mkdir(parents=True, exist_ok=True)
        self._check_inside(target, path)
        source.chmod(0o444)
        if linked(source, target):
            return
        with self.stage() as copy:
            shutil.copyfile(source, copy)
            copy.chmod(0o444)
            if not linked(copy, target):
                os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o444))  # no links here: the name is taken so
                os.replace(copy, target)

    def local(self, path: str, *, digest: str = "", seal: str = "", size_bytes: int | None = None) -> Path:
        """See `ObjectStore`."""
        target = self._at(path)
        if target.is_symlink() or not target.is_file():
            raise ObjectMissing(f"object {path} is not in the store {self.url}")
        self._check_inside(target, path)
        if size_bytes is not None:
            check_size(target.stat().st_size, size_bytes, f"object {path}")
        if digest and (not seal or self.seal(path, strict=seal.count(":") == 3) != seal):
            check_digest(target, digest, f"object {path}", size_bytes=size_bytes)
        return target

    def seal(self, path: str, *, strict: bool = False) -> str:
        """See `ObjectStore`: the file's inode, size and time of modification, `strict` that of its last change, too.

        A link into the store is never safe from its other names, before or after a digest is computed. A seal finds a
        file that was replaced, cut off or written to, without reading it; not one written to through a mapping that
        was writable before. The time of the last change is the kernel's own, but each new link to the file changes it.
        """
        found = self.local(path).stat()
        changed = f":{found.st_ctime_ns}" if strict else ""
        return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}{changed}"

    def fetch(
        self, path: str, destination: Path, *, digest: str, seal: str = "", size_bytes: int | None = None
    ) -> None:
        """See `ObjectStore`."""
        source = self.local(path, digest=digest, seal=seal, size_bytes=size_bytes)
        with _clear(destination):
            placed(source, destination)

    def exists(self, path: str) -> bool:
        """See `ObjectStore`."""
        target = self._at(path)
        return target.is_file() and not target.is_symlink() and target.parent.resolve() == target.parent

    def remove(self, prefix: str) -> None:
        """See `ObjectStore`."""
        folder = self._at(prefix.rstrip("/"))
        self._check_inside(folder, prefix)
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)

    def size_bytes(self, path: str) -> int:
        """See `ObjectStore`."""
        return self.local(path).stat().st_size

    def list(self, prefix: str) -> list[str]:
        """See `ObjectStore`. Links are no objects."""
        folder = self._at(prefix.rstrip("/"))
        self._check_inside(folder / "x", prefix)
        start = len(str(self._root)) + 1
        found: list[str] = []
        for parent, _, names in os.walk(folder):
            files = (f"{parent}/{name}" for name in names if not name.startswith("."))
            found += [file[start:] for file in files if not os.path.islink(file)]
        return sorted(found)

    def _at(self, path: str) -> Path:
        return self._root / checked_path(path)

    def _check_inside(self, target: Path, path: str) -> None:
        if target.parent.resolve() != target.parent:
            raise BadObjectPath(f"object path {path!r} is refused: a link on the way leaves the store")


@contextlib.contextmanager
def _clear(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"{error.filename or path}: {error.strerror}: free some space") from error
        raise LocalFault(
            f"{error.filename or path}: {error.strerror}: check the folder, its mount and its permissions"
        ) from error
