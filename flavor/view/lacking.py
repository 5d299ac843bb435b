"""Looks whether the store has more of a run than Redis, which came back empty or older."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from flavor.errors import FlavorError

if TYPE_CHECKING:
    from flavor.bus.runs import RunStore
    from flavor.store.protocol import ObjectStore


def what_is_lacking(runs: RunStore, store: ObjectStore | None) -> str:
    """Say what Redis lacks of the run, and name `flavor recover`.

    Returns '' where Redis lacks nothing, `store` is None, or the store does not answer.
    """
    from flavor.ledger.archive import Archive
    from flavor.ledger.history import what_redis_lacks

    if store is not None:
        with contextlib.suppress(FlavorError, OSError, ValueError):
            return what_redis_lacks(runs, Archive(store, runs.run))
    return ""
