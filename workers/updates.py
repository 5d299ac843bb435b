"""Open the accepted updates of a round for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aggregators.updates import ClientModel
from flavor.checkpoints import Encoding, TensorFile
from flavor.errors import CheckpointError
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.store.digests import copy_of
from flavor.store.paths import checked_global
from flavor.store.protocol import ObjectStore
from workers.reading import Reading, as_accepted


def open_global(opened: Reading, model: GlobalModel) -> TensorFile:
    """Open the global model; raises `StoreError` unless it is what was recorded."""
    checked_global(model.model.path)
    return opened.open(model.model)


def open_update(opened: Reading, update: Update) -> TensorFile:
    """Open the file of an accepted update; raises `StoreError` unless it is still what was accepted."""
    with as_accepted(update.object.path):
        return opened.open(update.object)


def update_file(store: ObjectStore, update: Update) -> Path:
    """Return a local file with an accepted update; raises `StoreError` unless it is still what was accepted."""
    return store.open(update.object)


def open_updates(
    opened: Reading,
    updates: Sequence[Update],
    model: GlobalModel | None,
    *,
    bases: Sequence[GlobalModel | None] | None = None,
) -> list[ClientModel]:
    """Return the models of these accepted updates, read through `opened`.

    `model` is the global model that they were trained from; `bases` names that of each, where they differ. Encoded
    updates of one base share it, open. Raises `StoreError` when a file is not what was inspected.
    """
    files = [open_update(opened, update) for update in updates]
    bases = [model] * len(files) if bases is None else bases
    shared: dict[str, TensorFile] = {}
    models = []
    for file, base in zip(files, bases, strict=True):
        encoding = Encoding.of(file)
        if encoding is not None:
            check_base(encoding, base.model if base else None)
            if base is not None and base.model.digest not in shared:
                shared[base.model.digest] = open_global(opened, base)
        models.append(ClientModel.of(file, shared[base.model.digest] if encoding is not None and base else None))
    return models


def place_update(store: ObjectStore, update: Update, destination: Path) -> None:
    """Put an accepted update at `destination`, for a program that may map it; raises `StoreError`.

    Copies an object that its site can still write to, and checks the digest of the copy; links any other object.
    """
    ref = update.object
    with as_accepted(ref.path):
        if store.private:
            store.place(ref, destination)
        else:
            copy_of(store, ref, destination)


def check_base(encoding: Encoding, base: ObjectRef | None) -> None:
    """Raise `CheckpointError` unless an update of this encoding is a difference to `base`."""
    if base is None:
        raise CheckpointError("the update is a difference to a global model, and there is none in this round")
    if encoding.base != base.digest:
        raise CheckpointError(
            f"the update is a difference to another global model (SHA-256 {encoding.base[:12]}…) than this round's "
            f"({base.digest[:12]}…): train from the model that the round gives"
        )
