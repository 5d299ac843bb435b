"""How this process uses stores: how long it waits for one, and where it keeps the files of remote ones."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

CACHE_BYTES = 16 * 2**30


@dataclass(frozen=True)
class Endurance:
    """How long to wait for a store. Every wait is bounded."""

    patience_s: float = 60.0
    """Longest time for which a request is repeated that gets no answer, or a 5xx."""
    request_s: float = 180.0
    """Longest wait for an answer once the whole request was sent."""
    silence_s: float = 20.0
    """Longest time without a moved byte while a request or an answer is transferred. The whole may take any time."""


@dataclass(frozen=True)
class StoreSettings:
    """What an entry point chooses for every store that it opens. A folder as a store uses none of these."""

    endurance: Endurance = Endurance()
    cache: Path | None = None
    """Folder with the files of remote stores; None for this user's (`flavor.store.cache.default_folder`)."""
    cache_bytes: int = CACHE_BYTES
    """Maximum size of the cache."""
    uploads: Path | None = None
    """Folder with the notes on unfinished uploads; None for a folder in the cache."""

    def with_patience(self, patience_s: float) -> StoreSettings:
        """Return these settings with another time for which requests are repeated."""
        return replace(self, endurance=replace(self.endurance, patience_s=patience_s))

    def environment(self) -> dict[str, str]:
        """Return the environment variables that give a child process the same cache."""
        folder = {"FLAVOR_STORE_CACHE": os.fspath(self.cache.absolute())} if self.cache else {}
        return {**folder, "FLAVOR_STORE_CACHE_SIZE": str(self.cache_bytes)}


DEFAULTS = StoreSettings()
