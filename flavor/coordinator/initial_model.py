"""Pre-trained weights that a run starts from."""

from __future__ import annotations

from pathlib import Path

from flavor.checkpoints.kind import CheckpointKind
from flavor.errors import CheckpointError, InvalidSetting
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.store.paths import global_prefix, named
from flavor.store.protocol import ObjectStore


def store_initial(
    store: ObjectStore, run: str, path: Path, kind: CheckpointKind, *, what: str = "--init-model"
) -> GlobalModel:
    """Put pre-trained weights into the store; `InvalidSetting`, naming `what` gave them, when they are none."""
    with store.stage() as staged:
        try:
            wire = kind.to_wire(path, staged)
        except CheckpointError as error:
            raise InvalidSetting(f"{what} {error}") from None
        try:
            kind.inspect(staged)
        except CheckpointError as error:
            raise InvalidSetting(f"{what} {path}: {error}") from None
        target = named(global_prefix(run, 0), "model", wire.digest, kind.object_extension)
        store.put(target, staged, digest=wire.digest)
    return GlobalModel(ObjectRef(target, wire.digest, wire.size_bytes, store.seal(target)), format=wire.format)
