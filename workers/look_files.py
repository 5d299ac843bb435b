"""Inspect an update without tensors, as far as its kind can."""

from __future__ import annotations

from flavor.checkpoints.kind import CheckpointKind
from flavor.errors import CheckpointError
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.store.digests import copy_of
from flavor.store.paths import checked_global
from flavor.store.protocol import ObjectStore
from workers.look import Found, check_submitted
from workers.reading import Reading


class FileLook:
    """A `Look` at the updates of one round whose kind has no tensors. A first round has nothing to compare with."""

    def __init__(self, store: ObjectStore, kind: CheckpointKind, model: GlobalModel | None) -> None:
        self._store, self._kind, self._model = store, kind, model

    def __call__(self, opened: Reading, path: str, handed_in: Update, size_bytes: int) -> Found:
        """See `Look`."""
        (digest, size), seal = opened.file(path, size_bytes=size_bytes)
        check_submitted(path, digest, handed_in.object.digest)
        found = ObjectRef(path, digest, size, seal)
        if self._kind.is_inspected:
            self._inspect(found)
        return Found(found)

    def _inspect(self, found: ObjectRef) -> None:
        """Have the kind inspect a copy: a site could cut its own file off while another program has it mapped."""
        with self._store.stage() as copy:
            copy_of(self._store, found, copy)
            self._kind.inspect(copy)
            if self._model is None:
                return
            model = self._model.model
            with self._store.stage() as reference:
                checked_global(model.path)
                copy_of(self._store, model, reference)
                if problems := self._kind.compare(copy, reference, "the global model"):
                    raise CheckpointError(problems)
