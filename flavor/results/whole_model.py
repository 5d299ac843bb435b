"""Whole models of a run that shares a part of the model: its shared tensors, with the others of the initial model.

No site's own tensors are in it. They are at the sites alone.
"""

from __future__ import annotations

from pathlib import Path

from flavor.atomic import temporary_beside
from flavor.config import RunConfig
from flavor.records.run import RunView
from flavor.results.evaluated import Evaluated
from flavor.store.digests import copy_of
from flavor.store.protocol import ObjectStore


def why_not_whole(view: RunView) -> str:
    """Return why a run's models cannot be made whole outside of its sites; '' where they can, or are whole."""
    parts = RunConfig.known(view.config).parts
    if not parts or view.whole is not None:
        return ""
    return (
        f"run {view.run!r} shares a part of the model ({parts.options}) and began without --init-model, so that only "
        "its sites have the other tensors"
    )


def own_of_then(config: RunConfig, found: Evaluated) -> list[str]:
    """Return a note on an evaluation that a command has asked for, in a run that shares a part of the model."""
    if not config.parts or not found.is_asked:
        return []
    return [
        f"the run shares a part of the model ({config.parts.options}): each site has judged these shared tensors with "
        "its own ones of that time, which may be those of a later round"
    ]


def others_in(view: RunView) -> str:
    """Return what the tensors of a whole model are that the run does not share; '' where it shares all."""
    if not (parts := RunConfig.known(view.config).parts):
        return ""
    return (
        f"the tensors that the run does not share ({parts.options}) are those of --init-model: what sites have trained "
        "of them is at the sites alone"
    )


def shares_part(view: RunView) -> bool:
    """Return whether the run's global models are parts of a model."""
    return bool(RunConfig.known(view.config).parts)


def make_whole(view: RunView, store: ObjectStore, model: Path) -> None:
    """Replace the file `model`, a global model of this run, by the whole model; both are files of the wire.

    Does nothing in a run that shares all tensors. Raises `StoreError`, `CheckpointError`.
    """
    from flavor.checkpoints.part_files import complete

    if view.whole is None or not shares_part(view):
        return
    whole = temporary_beside(model)
    try:
        copy_of(store, view.whole, whole)
        complete(model, whole, model)
    finally:
        whole.unlink(missing_ok=True)
