"""The whole initial model of a run that shares a part of it: fetched once, by digest, and kept in the workspace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from flavor.atomic import temporary_beside
from flavor.checkpoints.site import OwnFiles
from flavor.edge.joining import Site
from flavor.edge.trust import ModelTrust
from flavor.errors import DigestMismatch
from flavor.records.objects import ObjectRef
from flavor.store.digests import check_object, copy_of
from flavor.store.paths import checked_global
from flavor.store.protocol import ObjectStore

_FOLDER = "parts"


def own_files(site: Site, store: ObjectStore, trust: ModelTrust) -> OwnFiles:
    """Return the files of the tensors that this site does not share, below its workspace.

    Raises `UntrustedModel` for a whole initial model that the site does not trust.
    """
    folder, whole, run = site.workspace.beside.parent / _FOLDER, site.run.whole, site.config.run
    if whole is None:
        return OwnFiles(folder, site.run.run_id)
    trust.check_whole(whole)
    return OwnFiles(folder, site.run.run_id, WholeModel(store, whole, run, folder, site.meter.received))


class WholeModel:
    """The file of one run's whole initial model. `received` is told how many bytes were fetched."""

    def __init__(
        self, store: ObjectStore, ref: ObjectRef, run: str, folder: Path, received: Callable[[int], None]
    ) -> None:
        self._store, self._ref, self._received = store, ref.sealed(""), received
        checked_global(ref.path, run)
        self._path = folder / f"initial-{ref.digest[:16]}.safetensors"
        self._is_checked = False

    def __call__(self) -> Path:
        """Return the file, which is fetched if it is not there or was damaged. Raises `StoreError`."""
        if not self._is_checked:
            self._check_or_fetch()
            self._is_checked = True
        return self._path

    def _check_or_fetch(self) -> None:
        try:
            check_object(self._ref, self._path)
        except (FileNotFoundError, DigestMismatch):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            own = temporary_beside(self._path)
            try:
                copy_of(self._store, self._ref, own)
                os.replace(own, self._path)
            finally:
                own.unlink(missing_ok=True)
            self._received(self._ref.size_bytes or 0)
