"""The accepted updates of a round, opened for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aggregators.updates import Update
from flavor.bus.state import GlobalModel, Verdict
from flavor.errors import CheckpointError
from flavor.store.formats import Encoding, TensorFile
from flavor.store.objects import ObjectStore


def open_global(store: ObjectStore, model: GlobalModel) -> TensorFile:
    """The global model, mapped; raises `StoreError` unless it is what was recorded."""
    return TensorFile.open(store.local(model.path, digest=model.digest, seal=model.seal))


def update_file(store: ObjectStore, verdict: Verdict) -> Path:
    """A local file with what this verdict has accepted; raises `StoreError` unless it still is."""
    return store.local(verdict.path, digest=verdict.digest, seal=verdict.seal, size_bytes=verdict.size_bytes)


def open_updates(store: ObjectStore, verdicts: Sequence[Verdict], model: GlobalModel | None) -> list[Update]:
    """What these verdicts have accepted, mapped; `model` is the global model of the round.

    Encoded updates share one map of it. Raises `StoreError` when a file is not what was inspected.
    """
    files = [TensorFile.open(update_file(store, verdict)) for verdict in verdicts]
    base: TensorFile | None = None
    updates = []
    for file in files:
        encoding = Encoding.of(file)
        if encoding is not None:
            check_base(encoding, model)
            base = base or (open_global(store, model) if model else None)
        updates.append(Update.of(file, base))
    return updates


def check_base(encoding: Encoding, model: GlobalModel | None) -> None:
    """Raise `CheckpointError` unless `model` is what an update of this encoding is a difference to."""
    if model is None:
        raise CheckpointError("the update is a difference to a global model, and there is none in this round")
    if encoding.base != model.digest:
        raise CheckpointError(
            f"the update is a difference to another global model (SHA-256 {encoding.base[:12]}…) than this round's "
            f"({model.digest[:12]}…): train from the model that the round gives"
        )
