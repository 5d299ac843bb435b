"""What is particular to a store in a bucket: faults on the way, uploads in parts, the cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import ACCESS_KEY, S3, SECRET_KEY, Fault, Proxy, proxied

from flavor.errors import (
    DigestMismatch,
    InvalidRecord,
    InvalidSetting,
    ObjectExists,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from flavor.ledger import archive
from flavor.store import remote, uploads
from flavor.store.bucket import Endurance
from flavor.store.cache import CacheSettings, FileCache, cache_settings, set_cache
from flavor.store.objects import open_store, sha256_file
from flavor.store.paths import manifest_path
from flavor.store.remote import RemoteStore

IMPATIENT = Endurance(patience_s=0.2, request_s=0.6, silence_s=0.2)
PATIENT = Endurance(patience_s=30.0, request_s=20.0, silence_s=20.0)
ALERT = Endurance(patience_s=30.0, request_s=1.5, silence_s=0.5)
PATH = "runs/r/clients/a/0001-update.bin"
SMALL = b"hello" * 1000


class Site:
    """One machine: its cache, and its way to a bucket, which leads through a proxy."""

    def __init__(self, s3: S3, proxy: Proxy, folder: Path) -> None:
        self.s3, self.proxy, self.folder = s3, proxy, folder
        self.bucket = s3.bucket()
        self.count = 0

    def store(self, *, cache: FileCache | None = None, endurance: Endurance = PATIENT, create=False) -> RemoteStore:
        """A process of its own, as far as the cache goes."""
        self.count += 1
        cache = cache or FileCache(self.folder / f"cache-{self.count}", 2**30)
        return RemoteStore(f"s3://{self.bucket}/flavor", cache=cache, endurance=endurance, create=create)

    def asked(self, method: str) -> int:
        return sum(first.startswith(method) for first in self.proxy.requests)


@pytest.fixture
def site(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with proxied(s3) as proxy:
        for name, value in s3.environment(proxy.address).items():
            monkeypatch.setenv(name, value)
        yield Site(s3, proxy, tmp_path)


def put(store: RemoteStore, path: str, content: bytes) -> str:
    with store.stage() as staged:
        staged.write_bytes(content)
        digest, _ = sha256_file(staged)
        store.put(path, staged, digest=digest)
    return digest


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An object of three parts, by S3's smallest size for one."""
    monkeypatch.setattr(uploads, "PART_BYTES", 5 * 2**20)
    monkeypatch.setattr(remote, "_SINGLE_BYTES", 5 * 2**20)
    return os.urandom(64) * (12 * 2**14)


class TestFaults:
    @pytest.mark.parametrize("act", ["500", "drop", "cut", "lost", "hang", "late"])
    def test_what_passes_is_waited_out(self, site: Site, act: str) -> None:
        faults = [Fault("^PUT", act, 2), Fault("^HEAD", act), Fault("^GET", act, 2)]
        endurance = ALERT if act == "hang" else PATIENT
        site.proxy.faults = faults
        digest = put(site.store(endurance=endurance), PATH, SMALL)
        assert site.store(endurance=endurance).local(PATH, digest=digest).read_bytes() == SMALL
        assert all(fault.seen for fault in faults), "each was met"
        assert site.s3.keys(site.bucket) == [f"flavor/{PATH}"]

    @pytest.mark.parametrize("act", ["500", "drop", "lost"])
    def test_and_so_it_is_for_an_upload_in_parts(self, site: Site, parts: bytes, act: str) -> None:
        faults = [Fault("partNumber=2", act, 2), Fault("^GET", act, 3)]
        site.proxy.faults = faults
        digest = put(site.store(), PATH, parts)
        assert sha256_file(site.store().local(PATH, digest=digest))[0] == digest
        assert [fault.seen for fault in faults] == [2, 3]
        assert site.s3.keys(site.bucket) == [f"flavor/{PATH}"]

    @pytest.mark.parametrize(("act", "said"), [("500", "answered 500"), ("drop", "no answer"), ("hang", "no answer")])
    def test_what_lasts_is_a_clear_failure(self, site: Site, tmp_path: Path, act: str, said: str) -> None:
        store = site.store(endurance=IMPATIENT)
        put(site.store(), PATH, SMALL)
        (tmp_path / "out").write_bytes(b"before")
        site.proxy.faults = [Fault("", act, 1000)]
        with store.stage() as staged:
            staged.write_bytes(b"x")
            for do in (
                lambda: store.local(PATH),
                lambda: store.seal(PATH),
                lambda: store.exists(PATH),
                lambda: store.list("runs/r/clients/a/"),
                lambda: store.remove("runs/"),
                lambda: store.put("runs/other.bin", staged, digest="d"),
                lambda: store.fetch(PATH, tmp_path / "out", digest="d"),
                lambda: site.store(endurance=IMPATIENT, create=True),
            ):
                with pytest.raises(StoreUnavailable, match=f"{said}.*try again later") as caught:
                    do()
                told = str(caught.value)
                assert told.startswith(f"store s3://{site.bucket}/flavor: ")
                assert "\n" not in told
                assert "127.0.0.1" not in told
            assert staged.read_bytes() == b"x", "what could not be put is still there"
        assert (tmp_path / "out").read_bytes() == b"before"
        site.proxy.faults = []
        assert site.store().local(PATH).read_bytes() == SMALL

    def test_an_interrupted_upload_leaves_nothing(self, site: Site, parts: bytes) -> None:
        store = site.store(endurance=IMPATIENT)
        site.proxy.faults = [Fault("partNumber=3", "500", 1000)]
        with pytest.raises(StoreUnavailable):
            put(store, PATH, parts)
        assert site.s3.keys(site.bucket) == []

    def test_a_lost_bucket_and_a_refusal_are_not_waited_for(self, site: Site) -> None:
        patient = Endurance(patience_s=600)
        nowhere = RemoteStore("s3://no-such-bucket/x", cache=FileCache(site.folder / "c", 1000), endurance=patient)
        with pytest.raises(StoreUnavailable, match="no such bucket"):
            put(nowhere, PATH, b"x")
        site.proxy.faults = [Fault("", "deny", 100)]
        store = site.store(endurance=patient)
        for do in (lambda: store.local(PATH), lambda: put(store, PATH, b"x"), lambda: store.list("runs/r/")):
            with pytest.raises(StoreUnavailable, match="check the credentials"):
                do()

    def test_an_object_that_changes_while_it_is_read_is_not_mixed(self, site: Site, parts: bytes) -> None:
        put(site.store(), PATH, parts)
        store = site.store()
        site.proxy.faults = [Fault("^GET", lambda: site.s3.overwrite(site.bucket, f"flavor/{PATH}", parts[::-1]))]
        with pytest.raises(StoreError, match="changed in the store while it was read"):
            store.local(PATH)
        assert sha256_file(store.local(PATH))[0] == hashlib.sha256(parts[::-1]).hexdigest()

    def test_a_bucket_that_writes_twice_is_refused(self, site: Site) -> None:
        site.proxy.faults = [Fault("PUT", "plain", 100)]
        with pytest.raises(InvalidSetting, match="writes an object twice"):
            site.store(create=True)
        assert site.s3.keys(site.bucket) == []
        site.proxy.faults = []
        site.store(create=True)
        assert site.s3.keys(site.bucket) == []


class TestParts:
    def test_a_large_object_is_written_once(self, site: Site, parts: bytes) -> None:
        digest = put(site.store(), PATH, parts)
        assert site.asked("PUT") >= 3
        assert put(site.store(), PATH, parts) == digest, "the same bytes once more"
        with pytest.raises(ObjectExists):
            put(site.store(), PATH, parts[::-1])
        assert sha256_file(site.store().local(PATH))[0] == digest
        assert site.s3.keys(site.bucket) == [f"flavor/{PATH}"]

    def test_also_one_that_is_too_large_to_copy(self, site: Site, parts: bytes, monkeypatch) -> None:
        monkeypatch.setattr(remote, "_MOST_COPIED_BYTES", 6 * 2**20)
        digest = put(site.store(), PATH, parts)
        with pytest.raises(ObjectExists):
            put(site.store(), PATH, parts[::-1])
        assert sha256_file(site.store().local(PATH, digest=digest))[0] == digest

    def test_an_upload_on_its_way_is_no_object(self, site: Site) -> None:
        put(site.store(), PATH, SMALL)
        site.s3.overwrite(site.bucket, f"flavor/{PATH.rpartition('/')[0]}/.0001-update.bin.abc", b"half")
        assert site.store().list("runs/r/clients/a/") == [PATH]
        site.store().remove("runs/r/clients/a/")
        assert site.s3.keys(site.bucket) == []


class TestCache:
    def test_what_is_known_by_its_digest_is_not_asked_for_again(self, site: Site) -> None:
        digest = put(site.store(), PATH, SMALL)
        cache = FileCache(site.folder / "shared", 2**30)
        first = site.store(cache=cache).local(PATH, digest=digest)
        asked = len(site.proxy.requests)
        assert site.store(cache=cache).local(PATH, digest=digest) == first
        assert len(site.proxy.requests) == asked
        site.store(cache=cache).local(PATH)
        assert site.asked("GET") == 1, "without a digest only its mark is looked at"

    def test_what_was_put_is_in_it(self, site: Site) -> None:
        store = site.store()
        digest = put(store, PATH, SMALL)
        assert store.local(PATH, digest=digest).read_bytes() == SMALL
        assert store.local(PATH).read_bytes() == SMALL
        assert site.asked("GET") == 0

    def test_a_digest_stands_for_its_own_object_only(self, site: Site) -> None:
        """Naming the digest of an object that is in the cache under another path fetches nothing of it."""
        store = site.store()
        digest = put(store, PATH, SMALL)
        other = PATH.replace("/a/", "/b/")
        with pytest.raises(ObjectMissing):
            store.local(other, digest=digest)
        put(site.store(), other, b"mine")
        with pytest.raises(DigestMismatch):
            store.local(other, digest=digest)

    def test_a_file_that_was_written_to_is_fetched_again(self, site: Site) -> None:
        store = site.store()
        digest = put(store, PATH, SMALL)
        file = store.local(PATH, digest=digest)
        file.chmod(0o644)
        file.write_bytes(SMALL[::-1])
        assert store.local(PATH, digest=digest).read_bytes() == SMALL
        file.unlink()
        assert store.local(PATH, digest=digest).read_bytes() == SMALL
        known = next((store._cache.folder / "known").iterdir())
        known.write_text('{"mark": ')
        assert store.local(PATH, digest=digest).read_bytes() == SMALL

    def test_a_changed_object_is_fetched_again_where_no_digest_is_known(self, site: Site) -> None:
        store = site.store()
        put(store, PATH, SMALL)
        site.s3.overwrite(site.bucket, f"flavor/{PATH}", b"changed")
        assert store.local(PATH).read_bytes() == b"changed"

    def test_processes_that_want_one_object_at_once_fetch_it_once(self, site: Site, parts: bytes) -> None:
        digest = put(site.store(), PATH, parts)
        site.proxy.requests.clear()
        program = (
            "import sys\nfrom pathlib import Path\nfrom flavor.store.cache import FileCache\n"
            "from flavor.store.remote import RemoteStore\nfrom flavor.store.objects import sha256_file\n"
            "store = RemoteStore(sys.argv[1], cache=FileCache(Path(sys.argv[2]), 2**30))\n"
            "print(sha256_file(store.local(sys.argv[3]))[0])\n"
        )
        words = [sys.executable, "-c", program, f"s3://{site.bucket}/flavor", str(site.folder / "shared"), PATH]
        processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        assert {process.communicate(timeout=60)[0].strip() for process in processes} == {digest}
        assert site.asked("GET") == -(-len(parts) // (8 * 2**20))

    def test_it_is_bounded(self, site: Site) -> None:
        cache = FileCache(site.folder / "small", 10_000)
        store = site.store(cache=cache)
        for number in range(8):
            put(store, f"runs/r/{number}.bin", bytes([number]) * 3000)
        objects = list((cache.folder / "objects").glob("*/*"))
        assert len(objects) == 8, "all were used within the minute"
        for number in range(8):
            age(store.local(f"runs/r/{number}.bin"), 1000 - 100 * number)
        fresh = store.local("runs/r/0.bin")
        put(store, "runs/r/8.bin", b"8" * 3000)
        left = {path.read_bytes()[:1] for path in (cache.folder / "objects").glob("*/*")}
        assert left == {b"\0", b"\7", b"8"}, "the least recently used went"
        assert fresh.exists()
        assert len(list((cache.folder / "known").iterdir())) == 3
        put(site.store(), "runs/r/big.bin", b"9" * 10_001)
        with pytest.raises(StoreError, match=r"raise --store-cache-size"):
            store.local("runs/r/big.bin")

    def test_what_a_dead_process_left_goes(self, site: Site) -> None:
        store = site.store()
        with store.stage() as staged:
            staged.write_bytes(b"x")
            old = staged.with_name("old")
            old.write_bytes(b"x")
            age(old, 90_000, modified=True)
            put(store, PATH, SMALL)
            assert staged.exists()
            assert not old.exists()

    def test_a_folder_that_others_can_write_to_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        (tmp_path / "file").write_bytes(b"")
        for folder in (tmp_path / "open", tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(InvalidSetting, match="--store-cache"):
                FileCache(folder, 1)

    def test_its_folder_is_the_process_s(self, site: Site) -> None:
        before = cache_settings()
        try:
            set_cache(CacheSettings(site.folder / "chosen", 10**6))
            store = open_store(f"s3://{site.bucket}/flavor")
            assert isinstance(store, RemoteStore)
            digest = put(store, PATH, SMALL)
        finally:
            set_cache(before)
        assert (site.folder / "chosen" / "objects" / digest[:2] / digest).read_bytes() == SMALL


def age(path: Path, seconds: float, *, modified: bool = False) -> None:
    found = path.stat()
    accessed = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(accessed, accessed if modified else found.st_mtime_ns))


class TestNames:
    @pytest.mark.parametrize(
        "url",
        [
            f"s3://{ACCESS_KEY}:{SECRET_KEY}@bucket/prefix",
            f"s3://bucket/prefix?secret={SECRET_KEY}",
            f"s3://bucket/prefix#{SECRET_KEY}",
            "s3://",
            "s3:///prefix",
            "s3://bucket/../x",
            "s3://bucket/a//b",
            "s3://bu cket/a",
            "gs://-/x",
        ],
    )
    def test_a_url_with_more_than_a_place_is_refused(self, url: str) -> None:
        with pytest.raises((InvalidSetting, StoreError)) as caught:
            open_store(url)
        assert SECRET_KEY not in str(caught.value)
        assert ACCESS_KEY not in str(caught.value)

    def test_credentials_are_nowhere(self, site: Site) -> None:
        store = site.store()
        site.proxy.faults = [Fault("", "deny", 100)]
        with pytest.raises(StoreUnavailable) as caught:
            store.local(PATH)
        for text in (repr(store), store.url, repr(vars(store)), str(caught.value), repr(store._bucket.reading)):
            assert SECRET_KEY not in text
            assert ACCESS_KEY not in text

    def test_plain_http_is_spoken_only_where_the_endpoint_says_so(self, site: Site, monkeypatch) -> None:
        host, port = site.proxy.address
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://{host}:{port}")
        with pytest.raises(StoreUnavailable):
            site.store(endurance=Endurance(0.2, 1.0, 1.0)).local(PATH)
        assert not any("HTTP" in first for first in site.proxy.requests)


def test_a_record_that_is_far_too_large_is_refused_unread(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", len(SMALL) - 1)
    path = manifest_path("r", 1)
    put(site.store(create=True), path, SMALL)
    records = archive.Archive(site.store(), "r")
    before = site.asked("GET")
    with pytest.raises(InvalidRecord, match="no record is larger"):
        records.data(1)
    assert site.asked("GET") == before + 1, "the answer begins with its size, and no more of it is taken"
    monkeypatch.setattr(archive, "MOST_BYTES", len(SMALL))
    assert records.data(1) == SMALL
    assert records.data(2) is None
