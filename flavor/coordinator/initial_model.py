"""Pre-trained weights that a run starts from."""

from __future__ import annotations

from pathlib import Path

from flavor.checkpoints.kind import CheckpointKind
from flavor.errors import CheckpointError, InvalidSetting, RunExists
from flavor.ledger.archive import Archive
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.run import RunView
from flavor.store.paths import global_prefix, named
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import StoreHealth


def store_initial(
    store: ObjectStore, run: str, path: Path, kind: CheckpointKind, *, what: str = "--init-model"
) -> GlobalModel:
    """Put pre-trained weights into the store as the model of round 0, and return it.

    Raises `InvalidSetting` for a file that is no checkpoint of this kind; the message names the option `what`.
    """
    if not path.is_file():
        raise InvalidSetting(f"{what} {path}: it is no file: a pipe or a device cannot be read twice")
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
        ref = ObjectRef(target, wire.digest, wire.size_bytes)
        store.put(ref, staged)
    return GlobalModel(ref.sealed(store.seal(ref.path)), format=wire.format)


def store_for_sites(store: ObjectStore, run: RunView, path: Path, kind: CheckpointKind, *, what: str) -> GlobalModel:
    """Put a checkpoint that sites are to judge into the store of a run, as `store_initial`.

    Raises `LocalFault` where this is not the store of the run: sites would not find the model there.
    """
    with StoreHealth(store, run.run, run.run_id).mounted(whose=True):
        return store_initial(store, run.run, path, kind, what=what)


def check_beginning(archive: Archive, initial: GlobalModel, *, what: str = "--init-model") -> None:
    """Check that the run, which is there already, began from these weights.

    Raises `RunExists` where it began from other weights or from none; the message names the option `what`.
    """
    begun = archive.beginning()
    before = begun.initial if begun is not None else None
    if begun is None or (before is not None and before.digest == initial.model.digest):
        return
    began = f"from another model (SHA-256 {before.digest[:12]}…)" if before is not None else "without a model"
    raise RunExists(
        f"run {archive.run!r} is there already and began {began}, so {what} has no effect on it "
        f"(SHA-256 {initial.model.digest[:12]}…): leave {what} out to go on with the run, or choose another name"
    )
