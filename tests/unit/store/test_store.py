"""The suite that every object store passes, and what is particular to a folder."""

from __future__ import annotations

import ast
import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from buckets import S3

import flavor
from flavor.errors import BadObjectPath, DigestMismatch, InvalidSetting, ObjectExists, ObjectMissing, ObjectWithheld
from flavor.records.objects import ObjectRef
from flavor.store.cache import FileCache
from flavor.store.digests import copy_of, sha256_file
from flavor.store.local import LocalStore
from flavor.store.open import open_store
from flavor.store.protocol import ObjectStore
from flavor.store.remote import RemoteStore


@dataclass
class Place:
    """A store, another process's view of it, and somebody who writes to it from outside."""

    store: ObjectStore
    other: Callable[[], ObjectStore]
    tamper: Callable[[str, bytes], None]


def folder_place(tmp_path: Path) -> Place:
    def tamper(path: str, content: bytes) -> None:
        inside = tmp_path / "store" / path
        inside.chmod(0o644)
        inside.write_bytes(content)

    url = str(tmp_path / "store")
    return Place(open_store(url, create=True), lambda: open_store(url), tamper)


def bucket_place(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    bucket = s3.bucket()
    url = f"s3://{bucket}/some/prefix"
    caches = iter(range(100))

    def opened(**options: bool) -> RemoteStore:
        return RemoteStore(url, cache=FileCache(tmp_path / f"cache-{next(caches)}", 2**30), **options)

    return Place(
        opened(create=True), opened, lambda path, content: s3.overwrite(bucket, f"some/prefix/{path}", content)
    )


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "folder":
        return folder_place(tmp_path)
    return bucket_place(tmp_path, request.getfixturevalue("s3"), monkeypatch)


@pytest.fixture
def store(place: Place) -> ObjectStore:
    return place.store


def put(store: ObjectStore, path: str, content: bytes) -> str:
    with store.stage() as staged:
        staged.write_bytes(content)
        digest, _ = sha256_file(staged)
        store.put(ObjectRef(path, digest), staged)
        assert not staged.exists()
    return digest


def test_what_is_put_is_there(place: Place, tmp_path: Path) -> None:
    digest = put(place.store, "runs/r/a.bin", b"hello")
    for store in (place.store, place.other()):
        assert store.exists("runs/r/a.bin")
        assert store.size_bytes("runs/r/a.bin") == 5
        assert store.local("runs/r/a.bin").read_bytes() == b"hello"
        assert store.open(ObjectRef("runs/r/a.bin", digest)).read_bytes() == b"hello"
        store.place(ObjectRef("runs/r/a.bin", digest), tmp_path / "out.bin")
        assert (tmp_path / "out.bin").read_bytes() == b"hello"


def test_an_object_is_opened_and_placed_as_a_record_names_it(place: Place, tmp_path: Path) -> None:
    digest, path = put(place.store, "runs/r/a.bin", b"hello"), tmp_path / "out.bin"
    ref = ObjectRef("runs/r/a.bin", digest, 5, place.store.seal("runs/r/a.bin"))
    for number, store in enumerate((place.store, place.other())):
        assert store.open(ref).read_bytes() == b"hello"
        store.place(ref, path, check=lambda file: file.stat())
        assert path.read_bytes() == b"hello"
        copy_of(store, ref, tmp_path / f"copy-{number}")
        assert (tmp_path / f"copy-{number}").read_bytes() == b"hello"
    for wrong in (ObjectRef(ref.path, "0" * 64, 5), ObjectRef(ref.path, ""), ObjectRef(ref.path, digest, 6)):
        store = place.other()
        with pytest.raises(DigestMismatch):
            store.open(wrong)
        with pytest.raises(DigestMismatch):
            store.place(wrong, tmp_path / "wrong")
        with pytest.raises(DigestMismatch):
            copy_of(store, wrong, tmp_path / "wrong")
        assert not (tmp_path / "wrong").exists()


def test_a_file_from_elsewhere_can_be_put(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "mine.bin"
    source.write_bytes(b"hello")
    store.put(ObjectRef("runs/r/a.bin", sha256_file(source)[0]), source)
    assert not source.exists()
    assert store.local("runs/r/a.bin").read_bytes() == b"hello"


def test_an_empty_object(place: Place) -> None:
    digest = put(place.store, "runs/r/empty.bin", b"")
    assert place.other().open(ObjectRef("runs/r/empty.bin", digest)).read_bytes() == b""


def test_the_same_bytes_again_are_no_error_and_others_are(place: Place) -> None:
    put(place.store, "runs/r/a.bin", b"hello")
    for store in (place.store, place.other()):
        put(store, "runs/r/a.bin", b"hello")
        with pytest.raises(ObjectExists):
            put(store, "runs/r/a.bin", b"other")
    assert place.other().local("runs/r/a.bin").read_bytes() == b"hello"


def test_a_changed_object_is_found_and_the_destination_kept(place: Place, tmp_path: Path) -> None:
    digest = put(place.store, "runs/r/a.bin", b"hello")
    seal = place.store.seal("runs/r/a.bin")
    assert place.other().seal("runs/r/a.bin") == seal
    for changed in (b"hellO", b"hell"):
        place.tamper("runs/r/a.bin", changed)
        store = place.other()
        assert store.seal("runs/r/a.bin") != seal
        out = tmp_path / "out.bin"
        out.write_bytes(b"before")
        for given in ("", seal):
            with pytest.raises(DigestMismatch, match="changed or cut off"):
                store.place(ObjectRef("runs/r/a.bin", digest, seal=given), out)
            with pytest.raises(DigestMismatch):
                store.open(ObjectRef("runs/r/a.bin", digest, seal=given))
        assert out.read_bytes() == b"before"
        assert store.local("runs/r/a.bin").read_bytes() == changed, "whoever knows no digest sees what is there"


def test_an_object_of_another_size_is_found_before_it_is_read(place: Place, tmp_path: Path) -> None:
    digest = put(place.store, "a/x", b"some bytes")
    destination = tmp_path / "destination"
    destination.write_bytes(b"before")
    place.tamper("a/x", b"many more bytes than it")
    with pytest.raises(DigestMismatch, match="23 of them, expected 10"):
        place.other().open(ObjectRef("a/x", digest, size_bytes=10))
    with pytest.raises(DigestMismatch, match="23 of them, expected 10"):
        place.other().place(ObjectRef("a/x", digest, size_bytes=10), destination)
    assert destination.read_bytes() == b"before"


def test_of_a_file_of_terabytes_nothing_is_read(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    digest = put(store, "a/x", b"some bytes")
    seal = store.seal("a/x", strict=True)
    os.truncate(store.local("a/x"), 4 * 2**40)
    with pytest.raises(DigestMismatch, match="expected 10"):
        store.open(ObjectRef("a/x", digest, size_bytes=10, seal=seal))


def test_a_file_that_grows_while_it_is_read_has_an_end(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1_000_000)
    assert sha256_file(file, most=1_000_000) == sha256_file(file)
    assert sha256_file(file, most=2_000_000) == sha256_file(file)
    assert sha256_file(file, most=0)[1] == 1
    os.truncate(file, 4 * 2**40)
    assert sha256_file(file, most=1_000_000) == (hashlib.sha256(b"x" * 1_000_000 + b"\0").hexdigest(), 1_000_001)


def test_a_strict_seal_is_not_kept_by_setting_the_time_back(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    digest = put(store, "runs/r/a.bin", b"hello")
    seals = store.seal("runs/r/a.bin"), store.seal("runs/r/a.bin", strict=True)
    for seal in seals:
        store.open(ObjectRef("runs/r/a.bin", "of what was sealed", seal=seal))
    path = store.local("runs/r/a.bin")
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"hellO")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    store.open(ObjectRef("runs/r/a.bin", digest, seal=seals[0]))
    with pytest.raises(DigestMismatch):
        store.open(ObjectRef("runs/r/a.bin", digest, seal=seals[1]))


def test_fetching_twice_leaves_no_litter(store: ObjectStore, tmp_path: Path) -> None:
    digest = put(store, "runs/r/a.bin", b"hello")
    folder = tmp_path / "edge"
    folder.mkdir()
    store.place(ObjectRef("runs/r/a.bin", digest), folder / "model")
    store.place(ObjectRef("runs/r/a.bin", digest), folder / "model")
    assert [path.name for path in folder.iterdir()] == ["model"]


def test_missing_objects_say_so(store: ObjectStore, tmp_path: Path) -> None:
    for look in (store.local, store.seal, store.size_bytes):
        with pytest.raises(ObjectMissing):
            look("runs/r/none.bin")
    with pytest.raises(ObjectMissing):
        store.place(ObjectRef("runs/r/none.bin", "0"), tmp_path / "x")
    assert not store.exists("runs/r/none.bin")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "runs/../../x", "", "a//b", "runs/.hidden", "runs/r\n", "~/x", "a/", "a/..", "."]
)
def test_paths_that_leave_the_store_are_refused(store: ObjectStore, tmp_path: Path, path: str) -> None:
    for look in (store.local, store.seal, store.size_bytes, store.exists):
        with pytest.raises(BadObjectPath):
            look(path)
    with pytest.raises(BadObjectPath):
        store.place(ObjectRef(path, "d"), tmp_path / "x")
    with store.stage() as staged:
        staged.write_bytes(b"x")
        with pytest.raises(BadObjectPath):
            store.put(ObjectRef(path, "d"), staged)


@pytest.mark.parametrize("prefix", ["../", "/", "", "runs/../../", "runs/.staging/", "a//"])
def test_prefixes_that_leave_the_store_are_refused(store: ObjectStore, prefix: str) -> None:
    put(store, "runs/r/a.bin", b"1")
    for act in (store.list, store.remove):
        with pytest.raises(BadObjectPath):
            act("/" + prefix if prefix == "a//" else prefix)
    assert store.exists("runs/r/a.bin")


def test_a_list_has_what_lies_in_its_folder_itself(place: Place) -> None:
    paths = ["runs/r/b.bin", "runs/r/clients/a/1.bin", "runs/r/clients/a/2.bin", "runs/r/clients/ab/1.bin", "runs/rr/c"]
    for path in reversed(paths):
        put(place.store, path, b"1")
    for store in (place.store, place.other()):
        assert store.list("runs/r/") == paths[:1]
        assert store.list("runs/r/clients/a/") == paths[1:3]
        assert len(store.list("runs/r/clients/a/", most=1)) == 1
        assert store.list("runs/r/clients/a/", most=1, after=paths[1]) == paths[2:3]
        assert store.list("runs/r/clients/a/", after=paths[2]) == []
        assert store.list("runs/r/clients/") == store.list("runs/") == store.list("none/") == []
        assert store.folders("runs/r/clients/") == ["runs/r/clients/a/", "runs/r/clients/ab/"]
        assert len(store.folders("runs/r/clients/", most=1)) == 1
        assert store.folders("runs/") == ["runs/r/", "runs/rr/"]
        assert store.folders("runs/r/clients/a/") == store.folders("none/") == []
        for act in (store.list, store.folders):
            with pytest.raises(BadObjectPath):
                act("../")
        with store.stage() as staged:
            staged.write_bytes(b"on its way")
            assert store.list("runs/r/") == paths[:1]


def test_removing_a_prefix(place: Place) -> None:
    store = place.store
    for path in ("runs/r/clients/a/u.bin", "runs/r/clients/ab/u.bin", "runs/r/global/m.bin", "runs/rr/x.bin"):
        put(store, path, b"1")
    store.remove("runs/r/clients/a/")
    store.remove("runs/r/accepted/")
    assert store.folders("runs/r/clients/") == ["runs/r/clients/ab/"]
    store.remove("runs/r/")
    with pytest.raises(ObjectMissing):
        store.local("runs/r/clients/ab/u.bin")
    assert store.exists("runs/rr/x.bin")


def test_deleting_objects(place: Place) -> None:
    store = place.store
    paths = ["runs/r/clients/a/1.bin", "runs/r/clients/a/2.bin", "runs/r/clients/a/3.bin"]
    for path in paths:
        put(store, path, b"1")
    store.delete([*paths[:2], "runs/r/clients/a/none.bin", "runs/r/clients/none/x.bin"])
    store.delete([])
    assert store.list("runs/r/clients/a/") == paths[2:]
    with pytest.raises(BadObjectPath):
        store.delete(["../x"])


def test_an_object_that_is_taken_is_out_of_its_sites_reach(place: Place) -> None:
    """In a bucket it stays where it is, and its digest gives away who changes it."""
    store, path, target = place.store, "runs/r/clients/a/0001-update-x.bin", "runs/r/accepted/0001-a-update-x.bin"
    digest = put(store, path, b"accepted")
    where = store.take(path, target)
    assert store.read(ObjectRef(where, digest), most=10) == b"accepted"
    assert store.take(path, target) == where, "a worker that died in between is repeated"
    if where == target:
        assert not store.exists(path)
        put(store, path, b"another")  # what its site writes later
        assert store.take(path, target) == target
        assert store.read(ObjectRef(target, digest), most=10) == b"accepted", "the first stands"
        with pytest.raises(ObjectMissing):
            store.take("runs/r/clients/a/0001-update-y.bin", "runs/r/accepted/0001-a-update-y.bin")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
class TestAnothers:
    """Objects of another user, who can write to them wherever they lie: what is taken is a copy."""

    PATH, TARGET, UID = "runs/r/clients/a/0001-update-x.bin", "runs/r/accepted/0001-a-update-x.bin", 54321

    @pytest.fixture
    def folder(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "store", create=True)

    def theirs(self, store: LocalStore, content: bytes) -> tuple[Path, str]:
        digest = put(store, self.PATH, content)
        file = store.local(self.PATH)
        os.chown(file, self.UID, self.UID)
        file.chmod(0o600)
        return file, digest

    def test_it_is_copied_and_its_owner_writes_to_another_file(self, folder: LocalStore, tmp_path: Path) -> None:
        content = os.urandom(3 * 2**20 + 5)
        file, digest = self.theirs(folder, content)
        with file.open("r+b") as held:
            assert folder.take(self.PATH, self.TARGET) == self.TARGET
            held.write(b"another")
        found = folder.open(ObjectRef(self.TARGET, digest)).stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode), found.st_nlink) == (os.geteuid(), 0o444, 1)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, "a file that is not ours keeps its mode"
        assert list((tmp_path / "store/.staging").iterdir()) == []

    def test_of_a_file_of_terabytes_the_holes_are_not_written(self, folder: LocalStore) -> None:
        file, _ = self.theirs(folder, b"head")
        with file.open("r+b") as held:
            held.truncate(2**40)
            held.seek(2**30)
            held.write(b"middle")
        folder.take(self.PATH, self.TARGET)
        taken = folder.local(self.TARGET)
        assert (taken.stat().st_size, taken.stat().st_blocks * 512 < 2**23) == (2**40, True)
        with taken.open("rb") as copy:
            assert copy.read(5) == b"head\0"
            copy.seek(2**30)
            assert copy.read(7) == b"middle\0"

    @pytest.mark.parametrize("kind", ["link", "pipe"])
    def test_one_that_becomes_something_else_meanwhile_is_no_object(
        self, folder: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """After it was looked at, and before it is copied: nothing of ours is read, nor is its mode changed."""
        file, _ = self.theirs(folder, b"x")
        private = tmp_path / "private"
        private.write_bytes(b"ours")
        private.chmod(0o600)
        found = file.stat()

        class Looked:
            def stat(self) -> os.stat_result:
                return found

        def swapped(path: str) -> Looked:
            file.unlink()
            if kind == "link":
                file.symlink_to(private)
            else:
                os.mkfifo(file)
            return Looked()

        monkeypatch.setattr(folder, "local", swapped)
        with pytest.raises(ObjectMissing, match="is no file any more"):
            folder.take(self.PATH, self.TARGET)
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
        assert not os.path.lexists(tmp_path / "store" / self.TARGET)
        assert list((tmp_path / "store/.staging").iterdir()) == []

    def test_one_that_its_owner_keeps_from_us_is_its_fault_and_not_this_machines(
        self, folder: LocalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file, _ = self.theirs(folder, b"x")
        opened = os.open

        def refused(path: str | Path, *words: int, **options: int) -> int:
            if path == file:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return opened(path, *words, **options)

        monkeypatch.setattr(os, "open", refused)
        with pytest.raises(ObjectWithheld, match="its owner does not let this process read it"):
            folder.take(self.PATH, self.TARGET)


def test_an_empty_digest_is_refused_and_switches_no_check_off(place: Place, tmp_path: Path) -> None:
    """Doors 17: a record that lacks one names nothing."""
    put(place.store, "runs/r/a.bin", b"hello")
    for act in (
        lambda: place.store.open(ObjectRef("runs/r/a.bin", "")),
        lambda: place.store.place(ObjectRef("runs/r/a.bin", ""), tmp_path / "there"),
        lambda: place.other().open(ObjectRef("runs/r/a.bin", "", seal=place.store.seal("runs/r/a.bin"))),
    ):
        with pytest.raises(DigestMismatch, match="is named without a digest"):
            act()
    assert not (tmp_path / "there").exists()


UNCHECKED = {
    "flavor/edge/consent.py": 1,  # the run's record, to compare its run id
    "flavor/ledger/archive.py": 1,  # records, which are signed and chained
    "flavor/ledger/audit.py": 1,  # which computes the digest, to say what it is
    "flavor/results/rounds.py": 1,  # merged information of an earlier release, which recorded no digest
    "flavor/store/digests.py": 1,  # which computes the digest of its copy
    "flavor/store/local.py": 8,  # its own looks, and what it verifies afterwards
    "flavor/store/remote.py": 1,  # which verifies it afterwards
    "flavor/store/signed.py": 1,  # which verifies it afterwards
    "flavor/store/trouble.py": 2,  # the run's record, to see whether it can be read and has the run id
    "workers/reading.py": 3,  # which computes it of what it opens: an update to judge, an opaque one, one in a folder
}
"""Where an object is taken without its digest on purpose, and how often."""


def test_who_takes_an_object_without_its_digest_is_known() -> None:
    """Doors 17: everybody else names it, so that another file is never taken for the one that was recorded."""
    here = Path(flavor.__file__).parents[1]
    found: Counter[str] = Counter()
    for package in ("flavor", "workers", "aggregators", "aumai_fedtrain"):
        for path in sorted((here / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                name = node.func.attr
                if name in ("local", "read_unverified") and ast.unparse(node.func.value) != "threading":
                    found[str(path.relative_to(here))] += 1
    assert dict(found) == UNCHECKED


def test_folders_nested_beyond_any_path_are_removed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    put(store, "runs/r/clients/a/0001-update-x.bin", b"1")
    here = os.open(tmp_path / "store/runs/r/clients/a", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("nested", dir_fd=here)
        deeper = os.open("nested", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    assert store.list("runs/r/clients/a/") == ["runs/r/clients/a/0001-update-x.bin"]
    store.remove("runs/r/")
    assert not (tmp_path / "store/runs/r").exists()
    assert list((tmp_path / "store/.staging").iterdir()) == []


def test_reading_a_small_object(place: Place) -> None:
    put(place.store, "runs/r/a.json", b"{}")
    put(place.store, "runs/r/empty.json", b"")
    for store in (place.store, place.other()):
        assert store.read(ObjectRef("runs/r/a.json", hashlib.sha256(b"{}").hexdigest()), most=2) == b"{}"
        assert store.read_unverified("runs/r/empty.json", most=0) == b""
        with pytest.raises(DigestMismatch, match=r"2 bytes|larger than 1"):
            store.read_unverified("runs/r/a.json", most=1)
        with pytest.raises(DigestMismatch, match="not those that were recorded"):
            store.read(ObjectRef("runs/r/a.json", "0" * 64), most=2)
        with pytest.raises(DigestMismatch, match="named without a digest"):
            store.read(ObjectRef("runs/r/a.json", ""), most=2)
        with pytest.raises(ObjectMissing):
            store.read_unverified("runs/r/none.json", most=2)


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


def test_files_of_a_store_are_read_only(store: ObjectStore) -> None:
    put(store, "runs/r/a.bin", b"x")
    assert not os.stat(store.local("runs/r/a.bin")).st_mode & 0o222


class TestFolder:
    def test_a_file_is_linked_and_not_copied(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path / "store", create=True)
        with store.stage() as staged:
            staged.write_bytes(b"x" * 100)
            digest, _ = sha256_file(staged)
            inode = staged.stat().st_ino
            store.put(ObjectRef("runs/r/a.bin", digest), staged)
        store.place(ObjectRef("runs/r/a.bin", digest), tmp_path / "out.bin")
        assert store.local("runs/r/a.bin").stat().st_ino == inode == (tmp_path / "out.bin").stat().st_ino

    def test_objects_are_read_only(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path, create=True)
        put(store, "runs/r/a.bin", b"x")
        assert not os.stat(store.local("runs/r/a.bin")).st_mode & 0o222

    def test_links_and_what_is_on_its_way_are_not_listed(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path / "store", create=True)
        put(store, "runs/r/a.bin", b"hello")
        folder = store.local("runs/r/a.bin").parent
        (folder / "link.bin").symlink_to(folder / "a.bin")
        (folder / "folder").symlink_to(tmp_path)
        (folder / ".half").write_text("x")
        assert store.list("runs/r/") == ["runs/r/a.bin"]

    def test_links_that_leave_the_store_are_refused(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path / "store", create=True)
        put(store, "runs/r/a.bin", b"hello")
        root = store.local("runs/r/a.bin").parent
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        (root / "link.bin").symlink_to(outside / "secret")
        with pytest.raises(ObjectMissing):
            store.local("runs/r/link.bin")
        assert not store.exists("runs/r/link.bin")
        (root / "folder").symlink_to(outside)
        with pytest.raises(BadObjectPath):
            store.local("runs/r/folder/secret")
        assert not store.exists("runs/r/folder/secret")
        with pytest.raises(BadObjectPath):
            put(store, "runs/r/folder/new/x.bin", b"x")
        with pytest.raises(BadObjectPath):
            store.list("runs/r/folder/")
        assert store.folders("runs/r/") == []
        with pytest.raises(BadObjectPath):
            store.delete(["runs/r/folder/secret"])
        with pytest.raises(BadObjectPath):
            store.remove("runs/r/folder/deeper/")
        store.remove("runs/r/folder/")
        store.remove("runs/")
        assert [path.name for path in outside.iterdir()] == ["secret"], "nothing was made or removed there"

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidSetting, match="name a folder that exists"):
            open_store(str(tmp_path / "absent"))

    def test_other_schemes_are_refused_and_not_quoted(self) -> None:
        with pytest.raises(InvalidSetting, match="ftp") as caught:
            open_store("ftp://user:secret@host/x")
        assert "secret" not in str(caught.value)
