"""How this process uses stores: how long it waits for one, and where it keeps the files of remote ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CACHE_BYTES = 16 * 2**30


@dataclass(frozen=True)
class Endurance:
    """How long a store is waited for. Every wait is bounded."""

    patience_s: float = 60.0
    """How long one request is repeated that fails for want of an answer, or with a 5xx."""
    request_s: float = 180.0
    """Longest wait for an answer to what was sent as a whole."""
    silence_s: float = 20.0
    """Longest that nothing may move while something is sent or received, however long all of it takes."""


@dataclass(frozen=True)
class StoreSettings:
    """What an entry point chooses for every store that it opens. A store that is a folder needs none of it."""

    endurance: Endurance = Endurance()
    cache: Path | None = None
    """Folder with the files of remote stores; None for this user's (`flavor.store.cache.default_folder`)."""
    cache_bytes: int = CACHE_BYTES
    """How large the cache may get."""
    uploads: Path | None = None
    """Folder in which it is noted what of an upload is done; None for one in the cache."""

    def environment(self) -> dict[str, str]:
        """The same cache for a child process, as its environment."""
        folder = {"FLAVOR_STORE_CACHE": os.fspath(self.cache.absolute())} if self.cache else {}
        return {**folder, "FLAVOR_STORE_CACHE_SIZE": str(self.cache_bytes)}


DEFAULTS = StoreSettings()
