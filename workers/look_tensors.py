"""Inspect an update of tensors: its header, its values, its structure, and its distance from the global model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

import numpy as np

from aggregators.dtypes import Array
from aggregators.encoded import EncodedTensor
from aggregators.quantities import is_mask, matching
from aggregators.updates import ClientModel
from flavor.bus.runs import RunStore
from flavor.checkpoints import Encoding, Inspection, TensorFile, check_metadata, digest_and_check, is_finite
from flavor.checkpoints.compare import same_bits, structure_problems
from flavor.checkpoints.limits import MAX_HEADER_BYTES
from flavor.config import RunConfig
from flavor.counted import counted
from flavor.errors import CheckpointError, InvalidUpdate, StoreError
from flavor.records.objects import ObjectRef
from flavor.records.round import Reference
from flavor.records.run import RunView
from flavor.records.update import Update
from flavor.store.paths import checked_global
from flavor.store.protocol import ObjectStore
from workers.broken_model import raise_if_broken, raise_if_far
from workers.look import Found, check_submitted
from workers.norm import check_norm
from workers.reading import Reading
from workers.structure import Structure, structure, structure_digest, structure_of_object
from workers.updates import check_base, open_global

_MOST_CONSTANTS = 1000
_MOST_CONSTANT_CHARS = 64 * 1024
_CHEAP_BYTES = 2**20
"""A file up to this size is fetched as a whole before it is inspected."""
_HEADER_SLACK_BYTES = 2**20
"""The header of an update may be longer than the global model by this much."""
_MOST_ASKED = 5
"""Objects that are tried to name the difference of a structure to that of most sites."""


class TensorLook:
    """A `Look` at the updates of one round whose kind has tensors."""

    def __init__(self, runs: RunStore, store: ObjectStore, view: RunView, round_: int, config: RunConfig) -> None:
        self._runs, self._store, self._view, self._round, self._config = runs, store, view, round_, config

    def __call__(self, opened: Reading, path: str, handed_in: Update, size_bytes: int) -> Found:
        """See `Look`. Judges the header first, so that a large file of another structure costs little."""
        if self._store.private and size_bytes > _CHEAP_BYTES:  # a folder has nothing to fetch
            self._check_heading(path, handed_in, size_bytes)
        file, seal = opened.unknown(path, size_bytes=size_bytes)
        update = self._checked_header(path, handed_in, file)
        found = digest_and_check(file)
        check_submitted(path, found.sha256, handed_in.object.digest)
        constants = self._constants(update, odd_tensors(found, update))
        if (model := self._view.global_model) is not None and (limit := self._config.max_update_norm) is not None:
            held = (*constants, *matching(update.tensors, self._config.keep))
            base, statistics = open_global(Reading(self._store), model), self._config.statistics
            try:
                check_norm(
                    update,
                    base,
                    limit,
                    held,
                    statistics,
                    otherwise=self._whose_model_it_may_be,
                    is_buffered=self._config.buffered is not None,
                )
            except InvalidUpdate:
                raise_if_broken(base, [name for name in base.names if name not in held])
                raise
        shape = "" if self._view.global_model else structure_digest(update.specs)
        object_ = ObjectRef(path, found.sha256, found.size_bytes, seal)
        note = f" of {update.encoding.kind}" if update.encoding else ""
        return Found(object_, note, shape, tuple(constants))

    def _constants(self, update: ClientModel, odd: Collection[str]) -> list[str]:
        """Return those `odd` tensors that are allowed: constant buffers, equal to the global model's to the last bit.

        In a first round without a model they must look like masks, and the aggregation compares the sites. Raises
        `CheckpointError` for the other tensors.
        """
        model = self._view.global_model
        base = open_global(Reading(self._store), model) if odd and model else None
        wrong = [name for name in odd if not _may_be_constant(np.asarray(update.tensors[name]), base, name)]
        if base is not None:
            raise_if_broken(base, wrong)
        for name in wrong:
            nan = not is_finite(np.asarray(update.tensors[name]))
            if base is not None and self._round > 1:
                raise_if_far(base, _wrong(nan=nan), name)
            raise _no_number(name, nan=nan)
        if len(odd) > _MOST_CONSTANTS or sum(map(len, odd)) > _MOST_CONSTANT_CHARS:
            raise CheckpointError(
                f"{counted(len(odd), 'tensor')} with infinite values: leave such buffers out of the checkpoint"
            )
        return list(dict.fromkeys(odd))

    def _check_heading(self, path: str, handed_in: Update, size_bytes: int) -> None:
        """Judge the header before the rest is fetched, in a file of the object's size that holds nothing else."""
        length = int.from_bytes(self._store.start(path, 8), "little")
        model = self._view.global_model
        most = MAX_HEADER_BYTES if model is None else min(MAX_HEADER_BYTES, model.size_bytes + _HEADER_SLACK_BYTES)
        if length > min(most, size_bytes - 8):
            raise CheckpointError(f"object {path} has a header of {length} bytes: at most {most} can be of this model")
        with self._store.stage() as staged:
            with staged.open("xb") as file:
                file.write(self._store.start(path, 8 + length))
                file.truncate(size_bytes)
            self._checked_header(path, handed_in, TensorFile.reading(staged, f"object {path}"))

    def _checked_header(self, path: str, handed_in: Update, file: TensorFile) -> ClientModel:
        """Return the tensors of the file, before any value is read, if this round can take them."""
        check_metadata(file)
        model = self._view.global_model
        if not file.names:
            raise CheckpointError("the checkpoint has no tensors: its state_dict is empty; save that of the model")
        encoding = Encoding.of(file)
        if encoding is not None:
            if encoding.kind != self._config.compress:
                raise InvalidUpdate(
                    f"the update is compressed to {encoding.kind}; this run has --compress {self._config.compress}"
                )
            check_base(encoding, handed_in.base)
            assert model is not None
            return ClientModel.of(file, open_global(Reading(self._store), model))
        update = ClientModel.of(file, None)
        self._check_structure(path, update, None if model else self._runs.reference(self._round))
        return update

    def _check_structure(self, path: str, update: ClientModel, first: Reference | None) -> None:
        """Require the names, shapes and dtypes of the global model; in a round without one, of the update `first`.

        `first` is an update that most sites agree with; None as long as the coordinator has not determined one.
        """
        if foreign := self._config.parts.foreign(spec.name for spec in update.specs):
            raise CheckpointError(
                f"tensor {foreign!r} is not shared in this run ({self._config.parts.options}), and should have stayed "
                "at its site: let an edge of this release hand in the update"
            )
        if (model := self._view.global_model) is not None:
            checked_global(model.model.path)
            whose, required = "the global model", structure_of_object(self._store, model.model)  # type: ignore[arg-type]
        elif first is None or first.object.path == path or first.structure == structure_digest(update.specs):
            return
        else:
            whose, found = "the model of the other sites", self._structure_of_most(first)
            if found is None:
                raise CheckpointError(
                    "the tensors' names, shapes or dtypes are not those of the model of the other sites: train the "
                    "same model at every site"
                )
            required = found
        if problems := structure_problems(structure(update.specs), required, whose):
            raise CheckpointError(problems)

    def _structure_of_most(self, first: Reference) -> Structure | None:
        """Return the structure of most sites, from the object of any of them; None where no such object can be read.

        No site's object keeps another site from being judged, and no error about it is another site's reason.
        """
        round_ = self._runs.read_round(self._round)
        accepted = [each for each in round_.verdicts.values() if each.accepted] if round_ else []
        alike = [each.inspected.object for each in accepted if each.structure == first.structure]
        others = [ref for ref in alike if ref.path != first.object.path]
        for ref in (first.object, *others[:_MOST_ASKED]):
            with suppress(StoreError, CheckpointError, OSError):
                return structure_of_object(self._store, ref)  # type: ignore[arg-type]
        return None

    def _whose_model_it_may_be(self) -> str:
        """Return a hint where the model itself may be far off: that of a first round, whose updates nothing bounds."""
        if self._round != 2 or (first := self._runs.read_round(1)) is None or first.reference is None:
            return ""
        return (
            "; the model may be to blame: it is that of round 1, which began from no model, so that nothing bounded "
            "its updates; where several sites are refused so, begin a new run from a model of your own (--init-model)"
        )


def odd_tensors(found: Inspection, update: ClientModel) -> Sequence[str]:
    """Return the tensors of an update whose values are not finite or have no room for their squares.

    Of an encoded update: of those that travelled as they are, and of the decoded ones. `found` is the result of the
    inspection of its file.
    """
    if update.encoding is None:
        return found.odd
    if found.nonfinite is not None and found.nonfinite not in update.tensors:  # a scale
        raise _no_number(found.nonfinite, nan=True)
    plain = [name for name in found.odd if not isinstance(update.tensors.get(name, np.empty(0)), EncodedTensor)]
    return [*(name for name in plain if name in update.tensors), *update.odd()]


def _may_be_constant(array: Array, base: TensorFile | None, name: str) -> bool:
    return is_mask(array) if base is None else same_bits(array, base.tensor(name))


def _wrong(*, nan: bool) -> str:
    return "NaN or infinite values" if nan else "values whose squares have no room in float32"


def _no_number(name: str, *, nan: bool) -> CheckpointError:
    return CheckpointError(
        f"tensor {name!r} has {_wrong(nan=nan)}; look for NaN in the data, lower the learning rate or clip the "
        "gradients; a buffer that is meant to hold infinite values, such as an attention mask, passes if it is the "
        "same in the global model and at every site"
    )
