"""A store for one look: it is asked briefly, and not again once it has not answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, cast

from flavor.errors import StoreUnavailable
from flavor.store.open import open_store
from flavor.store.protocol import ObjectStore
from flavor.store.settings import DEFAULTS, Endurance, StoreSettings

_BRIEF = Endurance(patience_s=1.0, request_s=3.0, silence_s=3.0)


class BriefStore:
    """The `ObjectStore` at a URL. After the first `StoreUnavailable` each call raises the same at once."""

    def __init__(self, url: str, *, settings: StoreSettings = DEFAULTS, endurance: Endurance = _BRIEF) -> None:
        self._store = open_store(url, settings=replace(settings, endurance=endurance))
        self.silent: StoreUnavailable | None = None
        """What it failed with."""

    def __getattr__(self, name: str) -> Any:
        """What the store has of this name."""
        found = getattr(self._store, name)
        return self._guarded(found) if callable(found) else found

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.silent is not None:
                raise self.silent
            try:
                return call(*args, **kwargs)
            except StoreUnavailable as error:
                self.silent = error
                raise

        return guarded

    @property
    def store(self) -> ObjectStore:
        """Itself, as what it is used as."""
        return cast(ObjectStore, self)
