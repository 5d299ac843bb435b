"""The suite that every object store passes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flavor.errors import BadObjectPath, DigestMismatch, InvalidSetting, ObjectExists, ObjectMissing
from flavor.store.local import LocalStore
from flavor.store.objects import ObjectStore, open_store, sha256_file


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def put(store: ObjectStore, path: str, content: bytes) -> str:
    with store.stage() as staged:
        staged.write_bytes(content)
        digest, _ = sha256_file(staged)
        store.put(path, staged, digest=digest)
        assert not staged.exists()
    return digest


def test_what_is_put_is_there(store: ObjectStore, tmp_path: Path) -> None:
    digest = put(store, "runs/r/a.bin", b"hello")
    assert store.exists("runs/r/a.bin")
    assert store.local("runs/r/a.bin").read_bytes() == b"hello"
    store.fetch("runs/r/a.bin", tmp_path / "out.bin", digest=digest)
    assert (tmp_path / "out.bin").read_bytes() == b"hello"


def test_the_same_bytes_again_are_no_error_and_others_are(store: ObjectStore) -> None:
    put(store, "runs/r/a.bin", b"hello")
    put(store, "runs/r/a.bin", b"hello")
    with pytest.raises(ObjectExists):
        put(store, "runs/r/a.bin", b"other")
    assert store.local("runs/r/a.bin").read_bytes() == b"hello"


def test_a_changed_object_is_found_and_the_destination_kept(store: ObjectStore, tmp_path: Path) -> None:
    digest = put(store, "runs/r/a.bin", b"hello")
    seal = store.seal("runs/r/a.bin")
    inside = store.local("runs/r/a.bin")
    inside.chmod(0o644)
    inside.write_bytes(b"hellO")
    out = tmp_path / "out.bin"
    out.write_bytes(b"before")
    for given in ("", seal):
        with pytest.raises(DigestMismatch, match="changed or cut off"):
            store.fetch("runs/r/a.bin", out, digest=digest, seal=given)
    assert out.read_bytes() == b"before"


def test_fetching_twice_leaves_no_litter(store: ObjectStore, tmp_path: Path) -> None:
    digest = put(store, "runs/r/a.bin", b"hello")
    folder = tmp_path / "edge"
    folder.mkdir()
    store.fetch("runs/r/a.bin", folder / "model", digest=digest)
    store.fetch("runs/r/a.bin", folder / "model", digest=digest)
    assert [path.name for path in folder.iterdir()] == ["model"]


def test_missing_objects_say_so(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing):
        store.local("runs/r/none.bin")
    with pytest.raises(ObjectMissing):
        store.fetch("runs/r/none.bin", tmp_path / "x", digest="0")
    assert not store.exists("runs/r/none.bin")


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "runs/../../x", "", "a//b", "runs/.hidden", "runs/r\n", "~/x", "a/"]
)
def test_paths_that_leave_the_store_are_refused(store: ObjectStore, path: str) -> None:
    with pytest.raises(BadObjectPath):
        store.local(path)
    with store.stage() as staged:
        staged.write_bytes(b"x")
        with pytest.raises(BadObjectPath):
            store.put(path, staged, digest="d")


def test_links_that_leave_the_store_are_refused(store: ObjectStore, tmp_path: Path) -> None:
    put(store, "runs/r/a.bin", b"hello")
    root = store.local("runs/r/a.bin").parent
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ObjectMissing):
        store.local("runs/r/link.bin")
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(BadObjectPath):
        store.local("runs/r/folder/secret")


def test_removing_a_prefix(store: ObjectStore) -> None:
    put(store, "runs/r/rounds/1/clients/a/u.bin", b"1")
    put(store, "runs/r/rounds/2/clients/a/u.bin", b"2")
    store.remove("runs/r/rounds/1/clients/")
    store.remove("runs/r/rounds/9/clients/")
    assert not store.exists("runs/r/rounds/1/clients/a/u.bin")
    assert store.exists("runs/r/rounds/2/clients/a/u.bin")


def test_listing_a_prefix(store: ObjectStore) -> None:
    for path in ("runs/r/b.bin", "runs/r/rounds/10/c.bin", "runs/r/rounds/9/c.bin", "runs/rr/d.bin"):
        put(store, path, b"x")
    assert store.list("runs/r/") == ["runs/r/b.bin", "runs/r/rounds/10/c.bin", "runs/r/rounds/9/c.bin"]
    assert store.list("runs/r/rounds/9/") == ["runs/r/rounds/9/c.bin"]
    assert store.list("runs/none/") == []
    with pytest.raises(BadObjectPath):
        store.list("../")


def test_staging_cleans_up_after_a_failure(store: ObjectStore) -> None:
    def fail() -> None:
        with store.stage() as staged:
            seen.append(staged)
            staged.write_bytes(b"x")
            raise RuntimeError

    seen: list[Path] = []
    with pytest.raises(RuntimeError):
        fail()
    assert not seen[0].exists()


class TestLocal:
    def test_a_file_is_linked_and_not_copied(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path / "store", create=True)
        with store.stage() as staged:
            staged.write_bytes(b"x" * 100)
            digest, _ = sha256_file(staged)
            inode = staged.stat().st_ino
            store.put("runs/r/a.bin", staged, digest=digest)
        store.fetch("runs/r/a.bin", tmp_path / "out.bin", digest=digest)
        assert store.local("runs/r/a.bin").stat().st_ino == inode == (tmp_path / "out.bin").stat().st_ino

    def test_links_and_what_is_on_its_way_are_not_listed(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path / "store", create=True)
        put(store, "runs/r/a.bin", b"hello")
        folder = store.local("runs/r/a.bin").parent
        (folder / "link.bin").symlink_to(folder / "a.bin")
        (folder / "folder").symlink_to(tmp_path)
        (folder / ".half").write_text("x")
        assert store.list("runs/r/") == ["runs/r/a.bin"]

    def test_objects_are_read_only(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path, create=True)
        put(store, "runs/r/a.bin", b"x")
        assert not os.stat(store.local("runs/r/a.bin")).st_mode & 0o222

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidSetting, match="name a folder that exists"):
            open_store(str(tmp_path / "absent"))

    def test_other_schemes_are_refused(self) -> None:
        with pytest.raises(InvalidSetting, match="ftp"):
            open_store("ftp://host/x")
