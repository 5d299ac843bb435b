"""A folder as a store, where others write as well, and processes die in the midst."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from flavor.errors import BadObjectPath, DigestMismatch, FlavorError, LocalFault, ObjectExists, ObjectMissing
from flavor.records.objects import ObjectRef
from flavor.store import local
from flavor.store.local import LocalStore

NOBODY, TAKEN = 65534, "runs/r/accepted/0001-c-update.bin"
OBJECT = "runs/r/clients/c/0001-update.bin"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives a file to another user")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", create=True)


@pytest.mark.parametrize("is_below", [False, True])
def test_nothing_is_made_in_the_empty_folder_of_a_share_that_is_away(tmp_path: Path, *, is_below: bool) -> None:
    """The next look would take it for the store. The share may be mounted at the store's folder, or above it."""
    point = tmp_path / "mnt"
    root = point / "store" if is_below else point
    store = LocalStore(root, create=True)
    source = tmp_path / "model"
    source.write_bytes(b"model")
    point.rename(tmp_path / "share")  # what an unmounted share leaves is an empty folder
    point.mkdir()
    with pytest.raises(LocalFault, match="check the folder, its mount"), store.stage():
        pass
    with pytest.raises(LocalFault, match="check the folder, its mount"):
        store.put(ObjectRef("runs/r/model.bin", hashlib.sha256(b"model").hexdigest()), source)
    with pytest.raises(LocalFault, match="check the folder, its mount"):
        store.remove("runs/r")
    assert list(point.iterdir()) == []
    point.rmdir()
    (tmp_path / "share").rename(point)
    with store.stage():
        pass


def anothers(store: LocalStore, tmp_path: Path, data: bytes = b"update", *, holes: int = 0) -> Path:
    """An object that belongs to another user, with a hole of this size behind its data."""
    target = tmp_path / "store" / OBJECT
    target.parent.mkdir(parents=True)
    with target.open("wb") as file:
        file.write(data)
        file.truncate(len(data) + holes)
    os.chown(target, NOBODY, NOBODY)
    return target


@needs_root
def test_another_users_object_is_copied_with_its_holes(store: LocalStore, tmp_path: Path) -> None:
    source = anothers(store, tmp_path, holes=2**40)
    assert store.take(OBJECT, TAKEN) == TAKEN
    taken = (tmp_path / "store" / TAKEN).stat()
    assert (taken.st_size, taken.st_uid, stat.S_IMODE(taken.st_mode)) == (6 + 2**40, 0, 0o444)
    assert taken.st_blocks * 512 <= 2**21
    assert store.start(TAKEN, 8) == b"update\0\0"
    assert source.exists()


@needs_root
def test_another_users_object_that_is_too_large_is_not_copied(store: LocalStore, tmp_path: Path) -> None:
    anothers(store, tmp_path, b"x" * 100)
    with pytest.raises(DigestMismatch, match="has 100 bytes, more than the 99 that it may have"):
        store.take(OBJECT, TAKEN, most=99)
    assert store.take(OBJECT, TAKEN, most=100) == TAKEN


@needs_root
def test_a_link_that_takes_an_objects_place_changes_nothing_elsewhere(store: LocalStore, tmp_path: Path) -> None:
    """Its site swaps file and link while a worker takes it, over and over."""
    target = anothers(store, tmp_path)
    key = tmp_path / "key"
    key.write_bytes(b"secret")
    key.chmod(0o600)
    over = threading.Event()

    def swap() -> None:
        file, link = target.with_name("file"), target.with_name("link")
        file.write_bytes(b"update")
        os.chown(file, NOBODY, NOBODY)
        while not over.is_set():
            link.unlink(missing_ok=True)
            link.symlink_to(key)
            os.replace(link, target)
            os.link(file, link)
            os.replace(link, target)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for number in range(300):
            taken = f"{TAKEN}-{number}"
            try:
                store.take(OBJECT, taken)
            except (ObjectMissing, FlavorError):
                continue
            at = tmp_path / "store" / taken
            assert at.is_symlink() or at.read_bytes() == b"update"
    finally:
        over.set()
        swapping.join()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_staging_folder_that_is_a_link_is_refused(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "store" / ".staging").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store" / ".staging").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadObjectPath, match="is a link"), store.stage():
        pass


def test_what_a_process_that_died_had_staged_is_removed_in_a_day(store: LocalStore, tmp_path: Path) -> None:
    staging = tmp_path / "store" / ".staging"
    for name, age_s in (("young", 80_000), ("old", 90_000)):
        (staging / name).write_bytes(b"x")
        then = (staging / name).stat().st_mtime - age_s
        os.utime(staging / name, (then, then))
    LocalStore(tmp_path / "store")
    assert {each.name for each in staging.iterdir()} == {"young", "old"}, "only who makes a store clears it up"
    LocalStore(tmp_path / "store", create=True)
    assert {each.name for each in staging.iterdir()} == {"young"}


def test_a_name_that_a_dead_process_has_taken_is_given_again(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no links, a name is taken by an empty file first."""
    monkeypatch.setattr(local, "linked", lambda *_: False)
    target = tmp_path / "store" / OBJECT
    target.parent.mkdir(parents=True)
    target.touch()
    digest = hashlib.sha256(b"update").hexdigest()

    def put() -> None:
        with store.stage() as staged:
            staged.write_bytes(b"update")
            store.put(ObjectRef(OBJECT, digest), staged)

    with pytest.raises(ObjectExists):  # whoever took it may be about to fill it
        put()
    os.utime(target, (target.stat().st_mtime - 61,) * 2)
    put()
    assert store.read(ObjectRef(OBJECT, digest), most=10) == b"update"


def test_taking_an_object_from_an_unmounted_share_makes_no_folder_there(store: LocalStore, tmp_path: Path) -> None:
    """The mount point is an empty folder: what is made there would hide that the share is away."""
    (tmp_path / "store" / local.STAGING).rmdir()
    with pytest.raises(ObjectMissing):
        store.take(OBJECT, TAKEN)
    assert not [*(tmp_path / "store").iterdir()]
