"""The result of a user's aggregator: a global model and its information, inspected before anything uses them."""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np

from aggregators.updates import ClientModel
from flavor.checkpoints import TensorFile, digest_and_check, is_finite
from flavor.checkpoints.compare import same_bits, structure_problems
from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.site import SiteOptions, Wire
from flavor.errors import AggregatorFailed, CheckpointError
from flavor.programs.account import Account
from flavor.programs.aggregator_files import RoundFiles
from flavor.records.info import Info
from flavor.store.links import is_sole, linked
from workers.combiner import Combined, Work
from workers.structure import structure
from workers.updates import open_updates, place_update

_MOST_INFO_BYTES = 1 << 28


def copied_result(files: RoundFiles, account: Account, said: str) -> RoundFiles:
    """Copy the result of another user's process into a folder of the worker, where that process cannot change it.

    Copies only plain files that belong to that user, no links and no pipes: a link could lead to a file of the worker.
    """
    home = files.global_model.parent.parent / "taken"
    home.mkdir(mode=0o700)
    for source in (files.global_model, files.global_info):
        try:
            handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError:
            raise AggregatorFailed(f"the aggregator left no plain file at {source}{said}") from None
        with open(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != account.uid:
                raise AggregatorFailed(f"the aggregator left no plain file of its own at {source}{said}")
            with (home / source.name).open("xb") as copy:
                shutil.copyfileobj(file, copy)
    return replace(files, global_model=home / files.global_model.name)


def taken(work: Work, files: RoundFiles, target: Path, said: str, *, is_final: bool = False) -> Combined:
    """Inspect the result of the command, and put it at `target`; `said` are the command's last lines, quoted.

    With `is_final` no other process can write to the result any more, so that the file itself can be put at `target`.
    Raises `AggregatorFailed` with the reason why the result cannot be used.
    """
    made = files.global_model
    if not made.is_file() or not made.stat().st_size:
        how = "is empty" if made.is_file() else "was not written"
        raise AggregatorFailed(f"the aggregator finished, but the file at GetPaths('globalModel')[0] {how}{said}")
    info = _info(work, files)
    try:
        digest, size_bytes = _taken_over(work, made, target, is_final=is_final)
    except CheckpointError as error:
        message = str(error).removeprefix(f"{made}: ")
        raise AggregatorFailed(f"the aggregator's global model cannot be used: {message}{said}") from None
    return Combined(digest, size_bytes, info, notes=_notes(work, digest))


def _taken_over(work: Work, made: Path, target: Path, *, is_final: bool) -> tuple[str, int]:
    """Write the command's global model in the form of the wire, and return its digest and size.

    Raises `CheckpointError` where it cannot be the next round's model: it is damaged, or unlike the contributors'
    models.
    """
    kind = work.config.kind
    wire = (_linked_wire(kind, made, target) if is_final else None) or kind.to_wire(made, target)
    if kind.has_tensors:
        _check_tensors(work, target)
    elif kind.is_inspected:
        kind.inspect(target)
        with work.store.stage() as first:
            place_update(work.store, next(iter(work.updates.values())), first)
            if problems := kind.compare(target, first, "the local models"):
                raise CheckpointError(problems)
    return wire.digest, wire.size_bytes


def _linked_wire(kind: CheckpointKind, made: Path, target: Path) -> Wire | None:
    """Hard-link `made` at `target` if the wire format is the file itself; return None if that is not possible.

    The file is linked and not moved, so that it stays in the round's folder for inspection if the attempt fails.
    """
    if kind.has_tensors:
        return None
    site = kind.site(SiteOptions(beside=made.with_name(".beside")))
    if not (site.may_share(made) and is_sole(made) and linked(made, target)):
        return None
    if (wire := site.taken(target)) is None:
        target.unlink()
    return wire


def _check_tensors(work: Work, target: Path) -> None:
    """Refuse values that no update may have, unless in a constant buffer that equals the first contributor's bits."""
    client = next(iter(work.updates))
    constants = work.constants.get(client, ())
    found, update, model = digest_and_check(target), _opened(work, client), TensorFile.open(target)
    if problems := structure_problems(structure(model.specs), structure(update.specs), "the local models"):
        raise CheckpointError(problems)
    for name in found.odd:
        if name not in constants or not same_bits(np.asarray(update.tensors[name]), model.tensor(name)):
            if is_finite(model.tensor(name)):
                raise CheckpointError(f"tensor {name!r} has values whose squares have no room in their type")
            raise CheckpointError(f"tensor {name!r} has NaN or infinite values")


def _opened(work: Work, client: str) -> ClientModel:
    (model,) = open_updates(work.opened, [work.updates[client]], work.base_of(client))
    return model


def _notes(work: Work, digest: str) -> tuple[str, ...]:
    """Return a warning where the model did not change, judged by its bytes alone."""
    same = work.old is not None and digest == work.old.model.digest
    return (f"warning: the model did not change in round {work.round}",) if same else ()


def _info(work: Work, files: RoundFiles) -> Info:
    """Return the merged information, with the metrics that the command changed."""
    try:
        with files.global_info.open(encoding="utf-8") as file:
            metrics = json.loads(file.read(_MOST_INFO_BYTES), parse_constant=_refuse_constant)["metrics"]
        if not isinstance(metrics, dict) or not all(_is_metric(value) for value in metrics.values()):
            raise ValueError("a metric is neither a number nor a list of numbers, or is not finite")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise AggregatorFailed(
            f"the aggregator changed the file at GetPaths('globalInfo')[0] to something that cannot be used ({error}): "
            "it may change numbers under 'metrics', or leave the file alone"
        ) from None
    return {**work.info, "metrics": metrics}


def _is_metric(value: object) -> bool:
    """Return whether it is a finite number or null, or a list of these. 1e999 is read as inf, so it is no metric."""
    values = value if isinstance(value, list) else [value]
    return all(
        each is None or (isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each))
        for each in values
    )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} in it")
