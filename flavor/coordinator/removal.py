"""Removes objects of a run that are no longer needed. One object that cannot be removed is in no other one's way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from flavor.errors import StoreError, StoreUnavailable
from flavor.store.paths import client_of, is_object_path
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import is_of_one_object

_MOST_FAILURES = 20
"""After so many objects that cannot be removed, the other ones of the same call are left for the next time."""


class Removal:
    """Removes objects of one run from its store, and tells once of each site and each folder from which it cannot."""

    def __init__(self, store: ObjectStore, run: str, tell: Callable[[str], None]) -> None:
        self._store, self._run, self._tell = store, run, tell
        self._told: set[str] = set()

    def remove(self, paths: Sequence[str]) -> None:
        """Remove these objects. Those that the store refuses to remove stay, and so do names that are no object paths.

        Raises `StoreError` where the store itself fails, and where it refuses too many of them.
        """
        legal = [path for path in paths if is_object_path(path)]
        for path in paths:
            if not is_object_path(path):
                folder, _, name = path.rpartition("/")
                why = f"{name[:200]!r} is no name of an object: remove it by hand from {folder}/"
                self._tell_once(_whose(path), why, kind="name")
        try:
            self._store.delete(legal)
        except StoreError as error:
            if not self._is_of_some(error):
                raise
            self._remove_each(legal)

    @contextlib.contextmanager
    def apart(self, client: str = "") -> Iterator[None]:
        """Tell of an error of the body that is about some objects, here of this client, so that other work goes on.

        Passes on `StoreError` where the store itself fails.
        """
        try:
            yield
        except StoreError as error:
            if not self._is_of_some(error):
                raise
            self._tell_once(_of(client) if client else "", str(error))

    def _remove_each(self, paths: Sequence[str]) -> None:
        failed = 0
        for path in paths:
            try:
                self._store.delete([path])
            except StoreError as error:
                failed += 1
                if failed > _MOST_FAILURES or not self._is_of_some(error):
                    raise
                self._tell_once(_whose(path), str(error))

    def _is_of_some(self, error: StoreError) -> bool:
        """Whether the error is about some objects, and other ones can be read and removed."""
        is_passing = isinstance(error, StoreUnavailable) and error.passing
        return not is_passing and is_of_one_object(self._store, self._run, error)

    def _tell_once(self, whose: str, why: str, *, kind: str = "") -> None:
        """Tell why something stays, once for each `whose` and `kind`; for each reason where that is empty."""
        key = f"{kind} {whose or why}"
        if key not in self._told:
            self._told.add(key)
            self._tell(f"what old rounds left{whose} stays for now: {why}"[:500])


def _whose(path: str) -> str:
    client = client_of(path)
    return _of(client) if client else f" in {path.rpartition('/')[0]}/"


def _of(client: str) -> str:
    return f" of site {client!r}"
