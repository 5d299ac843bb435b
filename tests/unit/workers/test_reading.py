"""Objects in a folder that their sites can write to while a worker reads them."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flavor.checkpoints import TensorFileWriter, TensorSpec
from flavor.checkpoints.mapped import release
from flavor.errors import DigestMismatch
from flavor.records.objects import ObjectRef
from flavor.store import links, seals
from flavor.store.digests import copy_of
from flavor.store.local import LocalStore
from tests.resident import counted, resident_bytes
from tests.unit.contributions.madeup import MadeRun
from workers.reading import ChangedWhileRead, NotAsAccepted, Reading, as_accepted, reading

ELEMENTS = 100_000
PATH = "runs/r/accepted/0001-a-update-0000.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path, create=True)
    file = tmp_path / PATH
    file.parent.mkdir(parents=True)
    with TensorFileWriter(file, [TensorSpec("w", np.dtype(np.float32), (ELEMENTS,))]) as writer:
        writer.write("w", np.ones(ELEMENTS, np.float32))
    return store


def digest_of(store: LocalStore) -> str:
    return hashlib.sha256((Path(store.url.removeprefix("file://")) / PATH).read_bytes()).hexdigest()


def test_bytes_that_were_shown_and_taken_back_are_told_by_the_seal_alone(store: LocalStore) -> None:
    digest, seal = digest_of(store), store.seal(PATH, strict=True)
    file = Path(store.url.removeprefix("file://")) / PATH

    def read() -> None:
        with reading(store) as opened:
            tensors = opened.open(ObjectRef(PATH, digest, seal=seal))
            good = file.read_bytes()
            with file.open("r+b") as kept:
                kept.seek(-4, os.SEEK_END)
                kept.write(np.float32(999).tobytes())
            assert tensors.tensor("w")[-1] == 999
            file.write_bytes(good)

    with pytest.raises(ChangedWhileRead, match=r"0000\.safetensors: changed in the store while it was read") as raised:
        read()
    assert raised.value.paths == (PATH,)
    assert digest_of(store) == digest


def test_an_error_that_came_of_such_bytes_is_none_of_its_own(store: LocalStore) -> None:

    def read() -> None:
        with reading(store) as opened:
            opened.open(ObjectRef(PATH, digest_of(store)))
            os.utime(Path(store.url.removeprefix("file://")) / PATH)
            raise ZeroDivisionError

    with pytest.raises(ChangedWhileRead) as raised:
        read()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_folder_that_is_put_in_place_of_another_and_taken_away_shows_nothing(store: LocalStore) -> None:
    """The seal is that of the file that is read, and not of the one that has its name before and after."""
    digest, seal = digest_of(store), store.seal(PATH, strict=True)
    folder = (Path(store.url.removeprefix("file://")) / PATH).parent
    aside, other = folder.with_name("aside"), folder.with_name("other")
    other.mkdir()
    with TensorFileWriter(other / Path(PATH).name, [TensorSpec("w", np.dtype(np.float32), (ELEMENTS,))]) as writer:
        writer.write("w", np.full(ELEMENTS, 9, np.float32))
    folder.rename(aside)
    other.rename(folder)
    with pytest.raises(NotAsAccepted), as_accepted(PATH):
        Reading(store).open(ObjectRef(PATH, digest, seal=seal))
    folder.rename(other)
    aside.rename(folder)
    assert store.seal(PATH, strict=True) == seal
    assert Reading(store).open(ObjectRef(PATH, digest, seal=seal)).tensor("w").sum() == ELEMENTS


def test_a_pipe_under_the_name_keeps_nobody_waiting(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(store.url.removeprefix("file://")) / PATH
    digest = digest_of(store)
    file.unlink()
    os.mkfifo(file)
    monkeypatch.setattr(LocalStore, "local", lambda *_, **__: file)  # it was a file when the store looked
    with pytest.raises(DigestMismatch), as_accepted(PATH):
        Reading(store).open(ObjectRef(PATH, digest))


def test_a_seal_stands_for_a_digest_once_the_tick_of_its_last_change_is_over(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([100, 100, 100, 104, 104])
    monkeypatch.setattr(seals, "_tells_changes_apart", lambda _: False)
    monkeypatch.setattr(seals, "_now_ns", lambda _: next(ticks))
    assert seals.has_settled(store, 100)
    assert list(ticks) == [104]
    monkeypatch.setattr(seals, "_now_ns", lambda _: 100)
    assert not seals.has_settled(store, 100), "a clock that is ahead is not waited for"


def test_two_changes_within_a_tick_are_told_apart_or_waited_for(store: LocalStore, tmp_path: Path) -> None:
    """As the file system of this machine does it: whatever that is, the later change has another seal."""
    file = tmp_path / PATH
    for _ in range(50):
        os.utime(file)
        assert seals.has_settled(store, file.stat().st_ctime_ns)
        before = store.seal(PATH, strict=True)
        os.utime(file)
        assert store.seal(PATH, strict=True) != before


@pytest.mark.parametrize("are_linked", [True, False], ids=["linked", "copied"])
@pytest.mark.parametrize("has_seal", [True, False], ids=["seal", "digest"])
def test_what_is_placed_is_what_was_checked_and_not_what_had_its_name_a_moment_ago(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, are_linked: bool, has_seal: bool
) -> None:
    """Another has the name of the object as it is given to a site, and the object has it before and after."""
    digest, seal = digest_of(store), store.seal(PATH) if has_seal else "1:2:3"
    file, aside, other, target = tmp_path / PATH, tmp_path / "aside", tmp_path / "other", tmp_path / "target"
    other.write_bytes(bytes(file.stat().st_size))
    really = {"linked": links.linked, "copied": links.copied}

    def swapped(how: str) -> Callable[[Path, Path], Any]:
        def place(source: Path, temporary: Path) -> Any:
            if how == "linked" and not are_linked:
                return False
            file.rename(aside)
            other.rename(file)
            try:
                return really[how](source, temporary)
            finally:
                file.rename(other)
                aside.rename(file)

        return place

    for how in really:
        monkeypatch.setattr(links, how, swapped(how))
    target.write_bytes(b"as it was")
    with pytest.raises(DigestMismatch):
        store.place(ObjectRef(PATH, digest, seal=seal), target)
    assert target.read_bytes() == b"as it was"
    monkeypatch.undo()
    store.place(ObjectRef(PATH, digest, seal=seal), target)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == digest


def test_a_copy_is_hashed_as_it_is_made(store: LocalStore, tmp_path: Path) -> None:
    digest, target = digest_of(store), tmp_path / "copy"
    copy_of(store, ObjectRef(PATH, digest), target)
    assert target.read_bytes() == (tmp_path / PATH).read_bytes()
    target.unlink()
    (tmp_path / PATH).write_bytes(b"others")
    with pytest.raises(DigestMismatch, match="the bytes are not those that were recorded"):
        copy_of(store, ObjectRef(PATH, digest), target)
    assert not target.exists()


@counted
def test_an_aggregation_releases_the_pages_of_files_that_belong_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of a bucket's cache are mapped; without this, all updates of a round would be resident at its end."""
    monkeypatch.setattr(LocalStore, "private", True)
    monkeypatch.setattr("workers.reading._RELEASE_BYTES", 1)
    left = list[int]()

    def released(mapped: mmap.mmap) -> None:
        release(mapped)
        left.append(resident_bytes("/clients/"))

    monkeypatch.setattr("workers.reading.release", released)
    run = MadeRun(tmp_path)
    model = {name: np.ones(300_000, np.float32) for name in "ab"}
    run.round({"x": (model, 1), "y": (model, 1)})
    assert len(left) == 4, "two files, after each of two tensors"
    assert left[-1] == 0
    assert run.tensors()["b"][-1] == 1
