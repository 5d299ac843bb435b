"""Rebuilds a local run from its store, where its server has kept nothing of it."""

from __future__ import annotations

from collections.abc import Callable

from flavor.bus.runs import RunStore
from flavor.store.paths import run_record_path
from flavor.store.protocol import ObjectStore


def rebuilt(runs: RunStore, store: ObjectStore, url: str, tell: Callable[[str], None]) -> bool:
    """Rebuild the run from the store; returns False when the run never began."""
    from flavor.ledger.archive import Archive
    from flavor.ledger.recover import recover
    from flavor.ledger.trust import Trust

    if not store.exists(run_record_path(runs.run)):
        return False
    recover(Archive(store, runs.run), runs, url=url, replace=False, trust=Trust(records=True), tell=tell)
    return True
