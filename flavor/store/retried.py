"""Write a file on its way into a store again where the disk was full and the store could make room on it.

A store with a cache on this machine has a method `retried`: it does the work, and where the disk is full it removes
objects of the cache that are not in use, and does the work again. Other stores have none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from flavor.store.protocol import ObjectStore

T = TypeVar("T")


@runtime_checkable
class HasCache(Protocol):
    """A store that can make room on the disk of staged files."""

    def retried(self, work: Callable[[], T]) -> T:
        """Do the work, again after each time that the disk was full and room could be made."""


def written(store: ObjectStore, staged: Path, write: Callable[[], T]) -> T:
    """Do `write`, which writes the file at `staged`, a path of `store.stage()`; see `HasCache.retried`."""
    if not isinstance(store, HasCache):
        return write()

    def anew() -> T:
        staged.unlink(missing_ok=True)  # what an attempt on the full disk has left
        return write()

    return store.retried(anew)
