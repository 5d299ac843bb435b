"""What is told of a global model that cannot be read, and of a store or machine that is at fault itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flavor.errors import LocalFault, ObjectWithheld, StoreError, StoreUnavailable
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.store.digests import sha256_file
from flavor.store.local import LocalStore
from flavor.store.open import open_store
from workers.unreadable import unreadable


def stored(folder: Path) -> tuple[LocalStore, GlobalModel]:
    """A folder store with a global model, whose seal is known."""
    store = open_store(str(folder / "store"), create=True)
    assert isinstance(store, LocalStore)
    with store.stage() as staged:
        staged.write_bytes(b"1234")
        digest, size = sha256_file(staged)
        path = f"runs/r/global/0001-model-{digest[:16]}.safetensors"
        ref = ObjectRef(path, digest, size)
        store.put(ref, staged)
    ref = ref.sealed(store.seal(ref.path))
    return store, GlobalModel(ref, ref)


def changed(file: Path) -> None:
    file.unlink()
    file.write_bytes(b"1235")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: None, ""),
        (Path.unlink, "is no longer in the store"),
        (changed, "was changed in the store"),
    ],
)
def test_a_model_is_gone_changed_or_fine(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    store, model = stored(tmp_path)
    spoil(store.local(model.model.path))
    assert unreadable(store, model) == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ObjectWithheld("object PATH: it is archived"), "cannot be read in the store (it is archived)"),
        (StoreUnavailable("403 Forbidden"), "cannot be read in the store (403 Forbidden)"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "cannot be read in the store (Permission denied)"),
        (StoreUnavailable("no answer", passing=True), ""),
        (LocalFault("the cache is full"), ""),
        (OSError(errno.ESTALE, "Stale file handle"), ""),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), ""),
    ],
)
def test_a_withheld_model_is_told_apart_from_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: StoreError | OSError, said: str
) -> None:
    store, model = stored(tmp_path)
    if isinstance(error, ObjectWithheld):
        error = ObjectWithheld(str(error).replace("PATH", model.model.path))

    def failing(*args: object, **settings: object) -> Path:
        raise error

    monkeypatch.setattr(store, "open", failing)
    assert unreadable(store, model) == said


def test_a_file_of_a_known_seal_that_may_not_be_opened_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stat` finds the right seal all the same."""
    store, model = stored(tmp_path)

    def denied(*args: object, **settings: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert unreadable(store, model) == "cannot be read in the store (Permission denied)"
