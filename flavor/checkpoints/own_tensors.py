"""The tensors of one site that no other site may see (`--share`, `--local`), in files of its edge.

The newest file has the tensors of the last checkpoint that the site handed in, and the file before it those of an
earlier round. A round that is trained again, because its update was refused or lost, begins with the latter. A tensor
that is the same as in the run's initial model lies in neither file: the initial model's own file has it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flavor.atomic import replacing
from flavor.checkpoints.blocks import Array
from flavor.checkpoints.checkpoint import STRUCTURE_KEY
from flavor.checkpoints.compare import same_bits, structure_problems
from flavor.checkpoints.finite import is_finite
from flavor.checkpoints.safetensors.header import TensorSpec
from flavor.checkpoints.safetensors.reader import TensorFile
from flavor.checkpoints.safetensors.writer import TensorFileWriter
from flavor.checkpoints.site import OwnFiles
from flavor.checkpoints.state_dict.structure import Structure
from flavor.checkpoints.tied import Twins
from flavor.errors import CheckpointError, NotDivided
from flavor.parts import Parts

_ROUND, _NAMES = "flavor.round", "flavor.names"
_NONE: Twins = {}


@dataclass(frozen=True)
class Known:
    """What is known of a site's model beside its shared tensors."""

    names: tuple[str, ...]
    """All tensors of the model, shared or not, in the trainer's order."""
    tensors: Mapping[str, Array]
    """Those that are not shared, by their names on the wire."""
    structure: Structure | None
    """The nesting of the run's initial model; None for a run without one, or for a flat model."""


@dataclass(frozen=True)
class Kept:
    """What may not be meant in own tensors that were kept."""

    trained: list[str]
    """Those that differ from the initial model's; none in a run without one."""
    alike: Twins
    """Those that have changed since the round before, and are equal to a shared one."""


class OwnTensors:
    """One site's own tensors in one run: those that `parts` do not share."""

    def __init__(self, files: OwnFiles, parts: Parts) -> None:
        self._files, self._parts = files, parts
        self._newest, self._before = (files.folder / f"{files.run_id}{which}.safetensors" for which in ("", "-before"))

    def known(self) -> Known | None:
        """Return the site's own tensors, or else those of the initial model; None where there are neither.

        Raises `CheckpointError` for a file that cannot be read.
        """
        return self._known(self._initial_file(), *self._opened())

    def _known(self, initial: TensorFile | None, newest: TensorFile | None, before: TensorFile | None) -> Known | None:
        kept = self._of_round_before(newest, before)
        if initial is None and kept is None:
            return None
        names = initial.names if initial is not None else ()
        if kept is not None:
            names = tuple(json.loads(kept.metadata[_NAMES]))
        shared = frozenset(self._parts.shared(names))
        tensors = {
            name: (kept if kept is not None and name in kept else _there(initial, name)).tensor(name)
            for name in names
            if name not in shared
        }
        text = initial.metadata.get(STRUCTURE_KEY) if initial is not None else None
        return Known(names, tensors, Structure.from_json(text, "the initial model") if text else None)

    def keep(self, names: Sequence[str], tensors: Mapping[str, Array], twins: Twins = _NONE) -> Kept:
        """Keep the site's own tensors of a checkpoint, whose tensors are `names`.

        `twins` are those that have the same numbers as a shared one. Raises `CheckpointError`, and keeps what was
        there, where they are not those that this site had before, or are not numbers; `StoreError` where the disk
        fails.
        """
        initial, (newest, older) = self._initial_file(), self._opened()
        before = self._known(initial, newest, older)
        if before is not None and (problem := _difference(before.tensors, tensors)):
            raise NotDivided(problem, told="the tensors that it does not share are not those that it had before")
        alike = {
            name: twin
            for name, twin in twins.items()
            if before is not None and not same_bits(before.tensors[name], tensors[name])
        }
        other = {n: a for n, a in tensors.items() if initial is None or not same_bits(initial.tensor(n), a)}
        for name, array in other.items():
            if not is_finite(array) and not _may_be_infinite(array, before.tensors[name] if before else None):
                raise NotDivided(
                    f"tensor {name!r}, which stays at this site, has NaN or infinite values; look for NaN in the data, "
                    "lower the learning rate or clip the gradients",
                    told="a tensor that it does not share has NaN or infinite values",
                )
        self._write(names, other, newest, has_initial=initial is not None)
        return Kept(list(other) if initial is not None else [], alike)

    def _write(
        self, names: Sequence[str], other: Mapping[str, Array], kept: TensorFile | None, *, has_initial: bool
    ) -> None:
        if kept is None and not other and has_initial:
            return
        if kept is not None and _is_same(kept, other):
            return
        self._files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if kept is not None and _round_of(kept) < (self._files.round or 0):
            os.replace(self._newest, self._before)
        specs = [TensorSpec(name, array.dtype, array.shape) for name, array in other.items()]
        metadata = {_ROUND: str(self._files.round or 0), _NAMES: json.dumps(list(names))}
        with replacing(self._newest) as file:  # the only copy there is: synced
            with TensorFileWriter(file, specs, metadata) as writer:
                for name, array in ((spec.name, other[spec.name]) for spec in writer.specs):
                    writer.write(name, array)
            file.flush()
            os.fsync(file.fileno())

    def _initial_file(self) -> TensorFile | None:
        path = self._files.initial() if self._files.initial is not None else None
        return TensorFile.open(path) if path is not None else None

    def _opened(self) -> tuple[TensorFile | None, TensorFile | None]:
        """Open the newest file and the one before it."""
        return _opened(self._newest), _opened(self._before)

    def _of_round_before(self, newest: TensorFile | None, before: TensorFile | None) -> TensorFile | None:
        """Return the newest file that is of a round before this one, or else the oldest one.

        A first round that is trained again begins with the initial model: no file is of a round before it.
        """
        found = [file for file in (newest, before) if file is not None]
        for file in found:
            if self._files.round is None or _round_of(file) < self._files.round:
                return file
        return None if len(found) < 2 and self._files.initial is not None else next(reversed(found), None)


def _opened(path: Path) -> TensorFile | None:
    """Open a file of this site's own tensors; None where there is none. Raises `CheckpointError`."""
    if not path.exists():
        return None
    try:
        file = TensorFile.open(path)
        names = json.loads(file.metadata[_NAMES])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or _round_of(file) < 0:
            raise ValueError("its metadata is damaged")
    except (CheckpointError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the tensors that only this site has cannot be read ({error}): restore the file, or remove it, "
            "and this site begins anew with them"
        ) from None
    return file


def _is_same(kept: TensorFile, tensors: Mapping[str, Array]) -> bool:
    if not kept.names or set(kept.names) != set(tensors):
        return False
    return all(same_bits(kept.tensor(name), array) for name, array in tensors.items())


def _round_of(file: TensorFile) -> int:
    return int(file.metadata[_ROUND])


def _there(initial: TensorFile | None, name: str) -> TensorFile:
    if initial is None or name not in initial:
        raise CheckpointError(
            f"tensor {name!r}, which only this site has, is not in this site's own files: restore them"
        )
    return initial


def _difference(before: Mapping[str, Array], now: Mapping[str, Array]) -> str:
    problems = structure_problems(now, before, "what this site had before")
    return f"of the tensors that stay at this site, {problems}" if problems else ""


def _may_be_infinite(array: Array, before: Array | None) -> bool:
    """Return whether a tensor may hold infinite values: a mask, which does not change."""
    return not np.isnan(array).any() if before is None else same_bits(before, array)
