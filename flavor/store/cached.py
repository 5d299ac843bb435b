"""What the stores that keep objects in a cache on this machine do alike."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from flavor.store.cache import FileCache

T = TypeVar("T")


class Cached:
    """A part of a store at `url`. A subclass sets `url` and `_cache`."""

    url: str
    _cache: FileCache

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """See `ObjectStore`. Staged files lie in the cache's folder."""
        self._cache.keep_room()
        with self._cache.stage() as staged:
            yield staged

    def retried(self, work: Callable[[], T]) -> T:
        """See `flavor.store.retried.HasCache`."""
        return self._cache.retried(work)
