"""The accepted updates of a round, opened for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aggregators.updates import Update
from flavor.checkpoints import Encoding, TensorFile
from flavor.errors import CheckpointError
from flavor.records.states import GlobalModel, Verdict
from flavor.store.digests import copy_of
from flavor.store.paths import checked_global
from flavor.store.protocol import ObjectStore
from workers.reading import Reading, as_accepted


def open_global(opened: Reading, model: GlobalModel) -> TensorFile:
    """The global model; raises `StoreError` unless it is what was recorded."""
    return opened.open(checked_global(model.path), digest=model.digest, seal=model.seal)


def open_update(opened: Reading, verdict: Verdict) -> TensorFile:
    """The file that this verdict has accepted; raises `StoreError` unless it still is."""
    with as_accepted(verdict.path):
        return opened.open(verdict.path, digest=verdict.digest, seal=verdict.seal, size_bytes=verdict.size_bytes)


def update_file(store: ObjectStore, verdict: Verdict) -> Path:
    """A local file with what this verdict has accepted; raises `StoreError` unless it still is."""
    return store.local(verdict.path, digest=verdict.digest, seal=verdict.seal, size_bytes=verdict.size_bytes)


def open_updates(opened: Reading, verdicts: Sequence[Verdict], model: GlobalModel | None) -> list[Update]:
    """What these verdicts have accepted, `opened`; `model` is the global model of the round.

    Encoded updates share one of it. Raises `StoreError` when a file is not what was inspected.
    """
    files = [open_update(opened, verdict) for verdict in verdicts]
    base: TensorFile | None = None
    updates = []
    for file in files:
        encoding = Encoding.of(file)
        if encoding is not None:
            check_base(encoding, model)
            base = base or (open_global(opened, model) if model else None)
        updates.append(Update.of(file, base))
    return updates


def place_update(store: ObjectStore, verdict: Verdict, destination: Path) -> None:
    """Put what this verdict has accepted at `destination`, for a program that may map it; raises `StoreError`.

    What its site can still write to is copied, and what was copied has the digest that was accepted; else it is linked.
    """
    with as_accepted(verdict.path):
        _place(store, verdict, destination)


def _place(store: ObjectStore, verdict: Verdict, destination: Path) -> None:
    seen = {"digest": verdict.digest, "seal": verdict.seal, "size_bytes": verdict.size_bytes}
    if store.private:
        store.fetch(verdict.path, destination, **seen)  # type: ignore[arg-type]
        return
    copy_of(store, verdict.path, destination, digest=verdict.digest, size_bytes=verdict.size_bytes)


def check_base(encoding: Encoding, model: GlobalModel | None) -> None:
    """Raise `CheckpointError` unless `model` is what an update of this encoding is a difference to."""
    if model is None:
        raise CheckpointError("the update is a difference to a global model, and there is none in this round")
    if encoding.base != model.digest:
        raise CheckpointError(
            f"the update is a difference to another global model (SHA-256 {encoding.base[:12]}…) than this round's "
            f"({model.digest[:12]}…): train from the model that the round gives"
        )
