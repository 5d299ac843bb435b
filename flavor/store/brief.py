"""A store for a short look: requests have short timeouts, and stop after the first that gets no answer."""

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
    """The `ObjectStore` at a URL. After the first `StoreUnavailable`, each call raises the same error at once."""

    def __init__(self, url: str, *, settings: StoreSettings = DEFAULTS, endurance: Endurance = _BRIEF) -> None:
        self._store = open_store(url, settings=replace(settings, endurance=endurance))
        self.silent: StoreUnavailable | None = None
        """The error that the store failed with; None while it answers."""

    def __getattr__(self, name: str) -> Any:
        """Return the store's attribute of this name; a method stops after the first failure."""
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
        """This object, typed as an `ObjectStore`."""
        return cast(ObjectStore, self)
