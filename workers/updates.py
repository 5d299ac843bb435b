"""The accepted updates of a round, opened for the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from aggregators.updates import Update
from flavor.bus.state import GlobalModel, Verdict
from flavor.errors import CheckpointError, DigestMismatch
from flavor.store.formats import Encoding, TensorFile
from flavor.store.objects import ObjectStore
from flavor.store.paths import checked_global

_BLOCK_BYTES = 2**20


def open_global(store: ObjectStore, model: GlobalModel) -> TensorFile:
    """The global model; raises `StoreError` unless it is what was recorded."""
    path = checked_global(model.path)
    return opened(store, store.local(path, digest=model.digest, seal=model.seal), path)


def opened(store: ObjectStore, file: Path, path: str) -> TensorFile:
    """The object `path`, of which the store has given `file`: mapped if nobody else can write to that, else only read.

    A site can cut its own file off whenever it likes, and would end whoever has it mapped.
    """
    return TensorFile.open(file) if store.private else TensorFile.reading(file, f"object {path}")


def update_file(store: ObjectStore, verdict: Verdict) -> Path:
    """A local file with what this verdict has accepted; raises `StoreError` unless it still is."""
    return store.local(verdict.path, digest=verdict.digest, seal=verdict.seal, size_bytes=verdict.size_bytes)


def open_updates(store: ObjectStore, verdicts: Sequence[Verdict], model: GlobalModel | None) -> list[Update]:
    """What these verdicts have accepted, opened; `model` is the global model of the round.

    Encoded updates share one of it. Raises `StoreError` when a file is not what was inspected.
    """
    files = [opened(store, update_file(store, verdict), verdict.path) for verdict in verdicts]
    base: TensorFile | None = None
    updates = []
    for file in files:
        encoding = Encoding.of(file)
        if encoding is not None:
            check_base(encoding, model)
            base = base or (open_global(store, model) if model else None)
        updates.append(Update.of(file, base))
    return updates


def place_update(store: ObjectStore, verdict: Verdict, destination: Path) -> None:
    """Put what this verdict has accepted at `destination`, for a program that may map it; raises `StoreError`.

    What its site can still write to is copied, and what was copied has the digest that was accepted; else it is linked.
    """
    seen = {"digest": verdict.digest, "seal": verdict.seal, "size_bytes": verdict.size_bytes}
    if store.private:
        store.fetch(verdict.path, destination, **seen)  # type: ignore[arg-type]
        return
    digest, left = hashlib.sha256(), verdict.size_bytes + 1
    with update_file(store, verdict).open("rb", buffering=0) as source, destination.open("xb", buffering=0) as copy:
        while block := source.read(min(left, _BLOCK_BYTES)):
            digest.update(block)
            copy.write(block)
            left -= len(block)
    if digest.hexdigest() != verdict.digest:
        destination.unlink()
        raise DigestMismatch(f"object {verdict.path}: it was changed in the store while it was read")


def check_base(encoding: Encoding, model: GlobalModel | None) -> None:
    """Raise `CheckpointError` unless `model` is what an update of this encoding is a difference to."""
    if model is None:
        raise CheckpointError("the update is a difference to a global model, and there is none in this round")
    if encoding.base != model.digest:
        raise CheckpointError(
            f"the update is a difference to another global model (SHA-256 {encoding.base[:12]}…) than this round's "
            f"({model.digest[:12]}…): train from the model that the round gives"
        )
