"""Find out why an object cannot be put or read: a fault of the store, which can pass, or of this machine's own files.

A folder that every party mounts can be read-only, unmounted, or give errors for a while, as a bucket can be away.
Where the error alone does not tell, two tests do: reading the run's record, which lies in every store of the run, and
writing a file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flavor.disk import FULL, LIMITS, STAGING, causes, file_of, found_no_room
from flavor.errors import (
    InvalidUpdate,
    LocalFault,
    ObjectMissing,
    StoreError,
    StoreFull,
    StoreUnavailable,
    TransferStopped,
)
from flavor.store.paths import run_record_path
from flavor.store.protocol import ObjectStore
from flavor.store.url import folder_of

FAULTS = (StoreError, InvalidUpdate, OSError)
"""The errors that a store may raise that cannot be used."""
MOST_UNSURE = 5
"""Number of failed attempts in a row, while the store passes its tests, before the fault counts as this process's."""
_MOST_BYTES = 1 << 26
_OF_A_DISK = "lost+found"


def is_of_one_object(store: ObjectStore, run: str, error: StoreError) -> bool:
    """Whether the fault is this one object's: the run's record can be read, in the same store from this machine."""
    if isinstance(error, StoreFull | TransferStopped) or (isinstance(error, LocalFault) and store.private):
        return False  # `private`: the fault is in this machine's cache
    if not isinstance(error, StoreUnavailable | LocalFault):
        return True
    try:
        store.read_unverified(run_record_path(run), most=_MOST_BYTES)
    except (StoreError, OSError):
        return False
    return True


@dataclass(frozen=True)
class Trouble:
    """A fault of the store, which can pass."""

    error: StoreUnavailable
    is_sure: bool = True
    """False where the store passes its tests now: the next attempts show whether it was at fault."""
    is_own: bool = False
    """Whether the store's disk is full, and the file that failed is this machine's own, on the same disk."""


@dataclass(frozen=True)
class StoreHealth:
    """Judges the errors of one run's store, where it is a folder. A bucket's requests wait by themselves."""

    store: ObjectStore
    run: str
    run_id: str
    own: Path | None = None
    """This machine's own folder into which objects are fetched; None where none are."""

    def trouble(self, error: BaseException, *, writes: bool) -> Trouble | None:
        """Return `error` as a fault of the store; None for another error. `writes`: the work was to put a file."""
        if isinstance(error, TransferStopped):
            return None
        root = folder_of(self.store.url)
        if isinstance(error, StoreFull) or (isinstance(error, OSError) and error.errno in FULL):
            return self._full(error, root, writes=writes)
        if root is None or isinstance(error, StoreUnavailable):
            return None
        if any(cause.errno in LIMITS for cause in causes(error) if isinstance(cause, OSError)):
            return Trouble(self._unusable(_told(error, root)), is_sure=False)
        if why := self.why_not(writes=writes):
            return Trouble(self._unusable(why))
        if not isinstance(error, LocalFault | OSError):
            return None
        inside = {Path(name).is_relative_to(root) for name in named(error)}
        if inside == {False}:
            return None
        return Trouble(self._unusable(_told(error, root)), is_sure=inside == {True})

    def _full(self, error: StoreFull | OSError, root: str | None, *, writes: bool) -> Trouble | None:
        """Return a full disk as a fault of the store; None where it is the disk of this machine's own files alone."""
        full = error if isinstance(error, StoreFull) else found_no_room(error, root)
        names = [*named(error)]
        inside = {root is not None and Path(name).is_relative_to(root) for name in names}
        is_own = root is None or inside == {False} or not (inside or writes)
        own = Path(names[0]).parent if names else self.own
        return None if is_own and not _is_same_disk(root, own) else Trouble(full, is_own=is_own)

    def why_not(self, *, writes: bool) -> str:
        """Return why a folder cannot be the store of this run; '' where it can, and for a bucket."""
        if folder_of(self.store.url) is None:
            return ""
        path = run_record_path(self.run)
        try:
            if str(json.loads(self.store.read_unverified(path, most=_MOST_BYTES))["run_id"]) != self.run_id:
                return f"it has the {path} of another run: is another share mounted there?"
            if writes:
                with self.store.stage() as probe:
                    probe.write_bytes(b"1")
        except ObjectMissing:
            return f"{path} is not there: is the share mounted?"
        except OSError as error:
            return f"{file_of(error, path)}: {error.strerror}"
        except StoreError as error:
            return str(error)
        except (ValueError, KeyError, TypeError, RecursionError):
            return f"{path} cannot be read as a run's record"
        return ""

    def require(self, *, whose: bool = False) -> None:
        """Raise `LocalFault` if the folder lacks the run's record: no other party would find an object put there.

        With `whose`, raise it also for the record of another run.
        """
        if not whose:
            require_mounted(self.store, self.run)
        elif why := self.why_not(writes=False):
            raise LocalFault(f"store {self.store.url}: {why}")

    @contextlib.contextmanager
    def mounted(self, *, whose: bool = False) -> Iterator[None]:
        """Raise `LocalFault`, as `require` does, before or after work that puts objects into the store.

        After such an error, the work is to be done again: its objects may lie in a folder that no other party sees.
        """
        self.require(whose=whose)
        yield
        self.require(whose=whose)

    def _unusable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"store {self.store.url}: {why}", passing=True)


def _is_same_disk(root: str | None, own: Path | None) -> bool:
    """Whether the store's folder `root` and this machine's own folder lie on one disk, which is full for both."""
    try:
        return root is not None and own is not None and os.stat(root).st_dev == os.stat(own).st_dev
    except OSError:
        return False


def require_mounted(store: ObjectStore, run: str) -> None:
    """Raise `LocalFault` if a folder lacks the run's record: other missing objects may be back with the share."""
    if folder_of(store.url) is not None and not store.exists(path := run_record_path(run)):
        raise LocalFault(f"{path} is not in the store {store.url}: is the share mounted?")


def without_share(url: str) -> str:
    """Return why no share seems to be mounted at the store's folder; '' where one may be, and for a bucket.

    The mount point of a share that is not mounted is an empty folder: the store's folder, or the folder above it.
    """
    if (root := folder_of(url)) is None:
        return ""
    folder = Path(root).absolute()
    try:
        place = next(level for level in (folder, *folder.parents) if level.is_dir())
        is_empty = not {entry.name for entry in os.scandir(place)} - {STAGING, _OF_A_DISK}
    except OSError:
        return ""
    return f"the folder {place} is empty: is the run's share mounted there?" if is_empty else ""


def _told(error: BaseException, root: str) -> str:
    return f"{file_of(error, root)}: {error.strerror}" if isinstance(error, OSError) else str(error)


def named(error: BaseException) -> Iterator[str]:
    """Yield the files that an error or its causes name, or else the file that was in use."""
    found = False
    for cause in causes(error):
        if isinstance(cause, OSError):
            names = [os.fsdecode(name) for name in (cause.filename, cause.filename2) if isinstance(name, str | bytes)]
            found = found or bool(names)
            yield from names
    if isinstance(error, LocalFault | StoreFull) and error.path is not None and not found:
        yield os.fspath(error.path)
