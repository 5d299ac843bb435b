"""Pre-trained weights that a run starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.kinds import TENSORS
from flavor.checkpoints.site import Wire
from flavor.config import RunConfig
from flavor.counted import counted
from flavor.errors import CheckpointError, InvalidSetting, RunExists
from flavor.ledger.archive import Archive
from flavor.parts import WHOLE, Parts
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.run import RunView
from flavor.saved import is_saved
from flavor.sizes import shown_bytes
from flavor.store.paths import global_prefix, named
from flavor.store.protocol import ObjectStore
from flavor.store.retried import written
from flavor.store.trouble import StoreHealth


def store_initial(
    store: ObjectStore,
    run: str,
    path: Path,
    kind: CheckpointKind,
    *,
    parts: Parts = WHOLE,
    what: str = "--init-model",
    tell: Callable[[str], None] = lambda _: None,
) -> GlobalModel:
    """Put pre-trained weights into the store as the model of round 0, and return it.

    In a run that shares a part of the model, that is the shared part: the whole model lies beside it, and `tell` says
    what is shared. Raises `InvalidSetting` for a file that is no checkpoint of this kind, or that `parts` do not
    divide; the message names the option `what`.
    """
    if not parts:
        return _stored(store, run, path, kind, "model", what)
    every, shared = _names(path, parts, what)
    if problem := parts.problem(every):
        raise InvalidSetting(f"{what} {path}: {problem}")
    whole = _stored(store, run, path, kind, "whole", what)
    part = _stored_part(store, run, path, parts, what)
    sizes = f"{shown_bytes(part.size_bytes)} of {shown_bytes(whole.size_bytes)}"
    tell(f"{len(shared)} of {counted(len(every), 'tensor')} of {what} {path} are shared, {sizes} ({parts.options})")
    return replace(part, whole=whole.model.sealed(""))


def store_for_sites(store: ObjectStore, run: RunView, path: Path, kind: CheckpointKind, *, what: str) -> GlobalModel:
    """Put a checkpoint that sites are to judge into the store of a run, as `store_initial`.

    In a run that shares a part of the model, its shared tensors are put there: each site judges them with its own ones.
    Raises `LocalFault` where this is not the store of the run: sites would not find the model there.
    """
    parts = RunConfig.known(run.config).parts
    with StoreHealth(store, run.run, run.run_id).mounted(whose=True):
        if parts:
            return _stored_part(store, run.run, path, parts, what)
        return _stored(store, run.run, path, kind, "model", what)


def _stored_part(store: ObjectStore, run: str, path: Path, parts: Parts, what: str) -> GlobalModel:
    """Put the shared tensors of a checkpoint into the store; of one that has no others, the checkpoint itself."""
    from flavor.checkpoints.part_files import write_shared

    every, shared = _names(path, parts, what)
    if not shared:
        raise InvalidSetting(f"{what} {path}: {parts.problem(every)}")
    write = partial(write_shared, path, parts=parts) if len(shared) < len(every) else None
    return replace(_stored(store, run, path, TENSORS, "model", what, write=write), tensors=len(shared))


def _names(path: Path, parts: Parts, what: str) -> tuple[list[str], list[str]]:
    """Return the names of all tensors of a checkpoint, and of the shared ones."""
    from flavor.checkpoints import describe

    _check_file(path, what, TENSORS)
    try:
        every = list(describe(path))
    except CheckpointError as error:
        raise InvalidSetting(f"{what} {error}") from None
    return every, parts.shared(every)


def _check_file(path: Path, what: str, kind: CheckpointKind) -> None:
    if path.is_dir():
        if kind.name != TENSORS.name:
            raise InvalidSetting(f"{what} {path}: it is a folder, and checkpoints of the kind {kind.name!r} are files")
        if not is_saved(path):
            raise InvalidSetting(f"{what} {path}: the folder has no safetensors file: name the one with the weights")
    elif not path.is_file():
        raise InvalidSetting(f"{what} {path}: it is no file: a pipe or a device cannot be read twice")


def _stored(
    store: ObjectStore,
    run: str,
    path: Path,
    kind: CheckpointKind,
    name: str,
    what: str,
    write: Callable[..., Wire] | None = None,
) -> GlobalModel:
    """Put a checkpoint into the store under this name, as `write` does; the whole of it without one."""
    _check_file(path, what, kind)
    with store.stage() as staged:
        try:
            wire = written(
                store, staged, lambda: write(target=staged) if write is not None else kind.to_wire(path, staged)
            )
        except CheckpointError as error:
            raise InvalidSetting(f"{what} {error}") from None
        try:
            kind.inspect(staged)
        except CheckpointError as error:
            raise InvalidSetting(f"{what} {path}: {error}") from None
        target = named(global_prefix(run, 0), name, wire.digest, kind.object_extension)
        ref = ObjectRef(target, wire.digest, wire.size_bytes)
        store.put(ref, staged)
    return GlobalModel(ref.sealed(store.seal(ref.path)), format=wire.format)


def check_beginning(archive: Archive, initial: GlobalModel, *, what: str = "--init-model") -> None:
    """Check that the run, which is there already, began from these weights.

    Raises `RunExists` where it began from other weights or from none; the message names the option `what`.
    """
    begun = archive.beginning()
    before = begun.initial if begun is not None else None
    if begun is None or (before is not None and before.to_global("").weights == initial.weights):
        return
    began = f"from another model (SHA-256 {before.digest[:12]}…)" if before is not None else "without a model"
    raise RunExists(
        f"run {archive.run!r} is there already and began {began}, so {what} has no effect on it "
        f"(SHA-256 {initial.model.digest[:12]}…): leave {what} out to go on with the run, or choose another name"
    )
