"""Whose fault it is that an object cannot be put or had: the store's, which passes, or this machine's own files.

A folder that every party mounts can be read-only, unmounted, or give errors for a while, as a bucket can be away. What
the store's own words leave open is told by the run's record, which lies in every store of the run, and by whether a
file can be written there.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flavor.errors import (
    LocalFault,
    ObjectMissing,
    StoreError,
    StoreFull,
    StoreUnavailable,
    TransferStopped,
    UpdateRefused,
)
from flavor.store.objects import ObjectStore, folder_of
from flavor.store.paths import run_record_path

FAULTS = (StoreError, UpdateRefused, OSError)
"""What a store that cannot be used may look like to who uses it."""
_MOST_BYTES = 1 << 26
_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_of_one_object(store: ObjectStore, run: str, error: StoreError) -> bool:
    """Whether one object cannot be had, and neither the store nor this machine is to blame: the record can be had."""
    if isinstance(error, StoreFull | TransferStopped) or (isinstance(error, LocalFault) and store.private):
        return False  # `private`: the fault is one of this machine's cache
    if not isinstance(error, StoreUnavailable | LocalFault):
        return True
    try:
        store.read(run_record_path(run), most=_MOST_BYTES)
    except (StoreError, OSError):
        return False
    return True


@dataclass(frozen=True)
class Trouble:
    """That the store cannot be used for now."""

    error: StoreUnavailable
    is_sure: bool = True
    """Otherwise it looks well now, and the next attempts show whether it was the store."""


@dataclass(frozen=True)
class StoreHealth:
    """Judges what goes wrong with one run's store, for one that is a folder; a bucket is waited for by itself."""

    store: ObjectStore
    run: str
    run_id: str
    own: Path | None = None
    """A folder of this machine's own, into which objects are fetched, if any are."""

    def trouble(self, error: BaseException, *, writes: bool) -> Trouble | None:
        """`error` as a fault of the store; None where it is not. `writes` if something was to be put there."""
        if isinstance(error, TransferStopped):
            return None
        if isinstance(error, StoreFull) or (isinstance(error, OSError) and error.errno in _FULL):
            full = error if isinstance(error, StoreFull) else StoreFull(f"{error}: free some space")
            return Trouble(full) if writes or self._is_on_own_disk() else None
        root = folder_of(self.store.url)
        if root is None or isinstance(error, StoreUnavailable):
            return None
        if why := self.why_not(writes=writes):
            return Trouble(self._unusable(why))
        if not isinstance(error, LocalFault | OSError):
            return None
        inside = {Path(name).is_relative_to(root) for name in _named(error)}
        if inside == {False}:
            return None
        return Trouble(self._unusable(str(error)), is_sure=inside == {True})

    def why_not(self, *, writes: bool) -> str:
        """What is wrong with a folder as the store of this run; '' for nothing, and for a bucket."""
        if folder_of(self.store.url) is None:
            return ""
        path = run_record_path(self.run)
        try:
            if str(json.loads(self.store.read(path, most=_MOST_BYTES))["run_id"]) != self.run_id:
                return f"it has the {path} of another run: is another share mounted there?"
            if writes:
                with self.store.stage() as probe:
                    probe.write_bytes(b"1")
        except ObjectMissing:
            return f"{path} is not there: is the share mounted?"
        except OSError as error:
            return f"{error.filename or path}: {error.strerror}"
        except StoreError as error:
            return str(error)
        except (ValueError, KeyError, TypeError):
            return f"{path} cannot be read as a run's record"
        return ""

    def require(self) -> None:
        """Raise `LocalFault` if the folder lacks the run's record: what is put into it then, no other party finds."""
        if folder_of(self.store.url) is not None and not self.store.exists(path := run_record_path(self.run)):
            raise LocalFault(f"{path} is not in the store {self.store.url}: is the share mounted?")

    def _unusable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"store {self.store.url}: {why}", passing=True)

    def _is_on_own_disk(self) -> bool:
        """Whether the store lies on the disk that this machine's own files lie on, and is as full."""
        root, own = folder_of(self.store.url), self.own
        try:
            return root is not None and own is not None and os.stat(root).st_dev == os.stat(own).st_dev
        except OSError:
            return False


def _named(error: BaseException) -> Iterator[str]:
    """The files that what an error came of names, or else the one that was in hand."""
    cause: BaseException | None = error
    found = False
    while cause is not None:
        if isinstance(cause, OSError):
            names = [os.fsdecode(name) for name in (cause.filename, cause.filename2) if isinstance(name, str | bytes)]
            found = found or bool(names)
            yield from names
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, LocalFault) and error.path is not None and not found:
        yield os.fspath(error.path)
