"""What is particular to a store in a bucket: faults on the way, uploads in parts, the cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import ACCESS_KEY, S3, SECRET_KEY, Fault, Proxy, proxied

from flavor import silence
from flavor.errors import (
    DigestMismatch,
    InvalidRecord,
    InvalidSetting,
    LocalFault,
    ObjectExists,
    ObjectMissing,
    ObjectWithheld,
    StoreError,
    StoreUnavailable,
    TransferStopped,
)
from flavor.ledger import archive
from flavor.records.objects import ObjectRef
from flavor.store import bucket, remote, uploads
from flavor.store.bucket_proxy import endpoint_of, reached_through
from flavor.store.cache import FileCache
from flavor.store.digests import sha256_file
from flavor.store.open import open_store
from flavor.store.opening import once_usable
from flavor.store.paths import manifest_path, run_record_path
from flavor.store.remote import RemoteStore
from flavor.store.settings import Endurance, StoreSettings
from flavor.watch import Watch, watched, watching
from tests.polled import eventually
from tests.proxies import squid, tunnels

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
        url, settings = f"s3://{self.bucket}/flavor", StoreSettings(endurance)
        return RemoteStore(url, cache=cache, settings=settings, create=create)

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
        store.put(ObjectRef(path, digest), staged)
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
        assert site.store(endurance=endurance).open(ObjectRef(PATH, digest)).read_bytes() == SMALL
        assert all(fault.seen for fault in faults), "each was met"
        assert site.s3.keys(site.bucket) == [f"flavor/{PATH}"]

    @pytest.mark.parametrize(("code", "passing"), [("AccessDenied", False), ("SlowDown", True), ("Odd", False)])
    def test_one_object_of_many_that_is_not_deleted_is_an_answer(self, site: Site, code: str, passing: bool) -> None:
        """In the words of obstore, which moto has no cause for."""
        from obstore.exceptions import GenericError

        said = f"Generic S3 error: DeleteObjects request failed for key p/a b: We say no (code: {code})"
        with (
            pytest.raises(StoreUnavailable, match=rf"answered \d+ \({code}\)") as raised,
            site.store()._bucket.translated("x"),
        ):
            raise GenericError(said)
        assert raised.value.passing is passing

    def test_an_outage_that_outlasts_a_signature_is_waited_out(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """obstore repeats a request as it was signed; services refuse old signatures, so another request is made."""
        monkeypatch.setattr(bucket, "_SIGNED_S", 0.0)
        digest = put(site.store(), PATH, SMALL)
        faults = [Fault("^HEAD", "drop", 2), Fault("^GET", "500", 3)]
        site.proxy.faults = faults
        store = site.store(endurance=PATIENT)
        assert store.open(ObjectRef(PATH, digest)).read_bytes() == SMALL
        assert store.start(PATH, 2) == SMALL[:2]
        assert [fault.seen for fault in faults] == [2, 3]

    @pytest.mark.parametrize("act", ["500", "drop", "lost"])
    def test_and_so_it_is_for_an_upload_in_parts(self, site: Site, parts: bytes, act: str) -> None:
        faults = [Fault("partNumber=2", act, 2), Fault("^GET", act, 3)]
        site.proxy.faults = faults
        digest = put(site.store(), PATH, parts)
        assert sha256_file(site.store().open(ObjectRef(PATH, digest)))[0] == digest
        assert [fault.seen for fault in faults] == [2, 3]
        assert site.s3.keys(site.bucket) == [f"flavor/{PATH}"]

    def test_a_store_that_does_not_answer_is_told_of_and_when_it_answers_again(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """While the request is repeated, and not only once it is given up."""
        store = site.store(create=True)
        put(store, PATH, SMALL)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(silence, "FIRST_S", 0.2)
        site.proxy.faults = [Fault("^GET", "500", 6)]
        assert store.read_unverified(PATH, most=2**20) == SMALL
        told = capsys.readouterr().err.splitlines()
        assert told[0].startswith(f"flavor: store {store.url} has given a request no answer that helps for ")
        assert told[-1] == f"flavor: store {store.url} answers again"
        assert sum("answers again" in line for line in told) == 1

    def test_one_that_gives_no_answer_when_a_process_starts_is_waited_for(self, site: Site) -> None:
        site.proxy.faults, told = [Fault("^PUT", "drop", 3)], list[str]()
        store = once_usable(
            f"s3://{site.bucket}/flavor",
            lambda: site.store(create=True, endurance=IMPATIENT),
            tell=told.append,
            pause=lambda _: False,
        )
        put(store, PATH, SMALL)
        assert len(told) == 2, told
        assert told[0].startswith(f"waiting: store {store.url}: .probe/")
        assert told[0].endswith("; trying again until it can be used")
        assert told[1] == "the store can be used again: going on"

    def test_a_request_that_moves_something_is_not_told_of(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """However long it takes."""
        monkeypatch.setattr(silence, "FIRST_S", 0.05)
        bucket, told = site.store()._bucket, threading.Semaphore(0)
        other = silence.Silence(lambda _: told.release())

        def act() -> None:
            with other.request():
                assert all(told.acquire(timeout=30) for _ in range(2))

        with watching() as watch:
            watch.moved_at = time.monotonic() + 1000  # and goes on
            bucket.ask(PATH, act)
        assert capsys.readouterr().err == ""

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
                lambda: store.put(ObjectRef("runs/other.bin", "d"), staged),
                lambda: store.place(ObjectRef(PATH, "d"), tmp_path / "out"),
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
        nowhere = RemoteStore(
            "s3://no-such-bucket/x", cache=FileCache(site.folder / "c", 1000), settings=StoreSettings(patient)
        )
        with pytest.raises(StoreUnavailable, match="no such bucket"):
            put(nowhere, PATH, b"x")
        site.proxy.faults = [Fault("", "deny", 100)]
        store = site.store(endurance=patient)
        for do in (lambda: store.local(PATH), lambda: put(store, PATH, b"x"), lambda: store.list("runs/r/")):
            with pytest.raises(StoreUnavailable, match="check the credentials"):
                do()

    @pytest.mark.parametrize(("act", "method"), [("deny", "GET"), ("400", "HEAD"), ("archived", "GET")])
    def test_what_the_store_keeps_back_is_that_objects_fault(self, site: Site, act: str, method: str) -> None:
        """Doors 9: its neighbours can be read. It is not asked for again and again, whatever its owner says of it."""
        store = site.store(endurance=Endurance(patience_s=600))
        put(store, run_record_path("r"), b"{}")
        put(store, PATH, SMALL)
        site.proxy.faults = [Fault(f"^{method} .*/clients/a/", act, 1000)]
        reader = site.store(endurance=Endurance(patience_s=600))
        with pytest.raises(ObjectWithheld, match=r"does not give it out \(40[03].*though it gives out others"):
            reader.local(PATH, size_bytes=10**12 if method == "HEAD" else None)
        assert site.proxy.faults[0].seen == 1
        if act != "archived":
            site.proxy.faults = [Fault("^(GET|HEAD)", act, 1000)]
            with pytest.raises(StoreUnavailable):
                reader.local(PATH)

    def test_a_claimed_size_buys_nothing(self, site: Site) -> None:
        put(site.store(), PATH, SMALL)
        with pytest.raises(DigestMismatch, match="expected 1000000000000"):
            site.store().local(PATH, size_bytes=10**12)
        assert site.asked("GET") == 0

    @pytest.mark.parametrize("size", [100_000, 2**20, 2 * 2**20])
    def test_an_upload_that_a_slow_link_carries_for_seconds_says_how_far_it_is(self, site: Site, size: int) -> None:
        watch, seen = Watch(), []
        site.proxy.faults = [Fault("^PUT", lambda: seen.append(watch.progress))]
        with watched(watch):
            put(site.store(), PATH, bytes(size))
        assert [(each.phase, each.total) for each in seen] == [("uploading", size)]
        assert 0 <= seen[0].done <= size  # the request stands at the proxy before all of it is sent

    def test_the_start_of_an_object_is_read_without_the_rest(self, site: Site) -> None:
        put(site.store(), PATH, SMALL)
        assert site.store().start(PATH, 7) == SMALL[:7]

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
    def test_a_part_that_takes_longer_than_a_request_may_is_no_failure(self, site: Site, parts: bytes) -> None:
        """Servers 4: what fails is that nothing moves. Here all of it moves, slowly."""
        slow = slowed(site.proxy.address, bytes_s=4_000_000)
        with pytest.MonkeyPatch.context() as patch, slow as address:
            patch.setenv("AWS_ENDPOINT_URL", site.s3.endpoint(address))
            hasty = Endurance(patience_s=0.2, request_s=2.0, silence_s=2.0)
            watch = Watch()
            with watched(watch):
                digest = put(site.store(endurance=hasty), PATH, parts)
                began = time.monotonic()
                store = site.store(endurance=hasty)
                assert sha256_file(store.open(ObjectRef(PATH, digest)))[0] == digest
            assert time.monotonic() - began > hasty.request_s
        assert sum("partNumber=1" in first and "/." in first for first in site.proxy.requests) == 1

    def test_a_download_goes_on_where_another_process_left_it(self, site: Site, parts: bytes, monkeypatch) -> None:
        monkeypatch.setattr(remote, "_PART_BYTES", 2**20)
        digest = put(site.store(), PATH, parts)
        cache = FileCache(site.folder / "resumed", 2**30)
        site.proxy.faults = [Fault("^GET", lambda: None, 5), Fault("^GET", "500", 1000)]
        with pytest.raises(StoreUnavailable):
            site.store(cache=cache, endurance=Endurance(patience_s=0.2)).open(ObjectRef(PATH, digest))
        site.proxy.faults = []
        before = site.asked("GET")
        assert sha256_file(site.store(cache=cache).open(ObjectRef(PATH, digest)))[0] == digest
        assert site.asked("GET") - before < 12, "those that had come were not fetched again"

    def test_a_service_without_a_list_of_parts_is_written_to_all_the_same(self, site: Site, parts: bytes) -> None:
        """Google's and Azure's: obstore sends the parts, and begins anew when one fails."""
        store, watch = site.store(), Watch()
        store._uploads = None
        with watched(watch):
            digest = put(store, PATH, parts)
        assert sha256_file(site.store().open(ObjectRef(PATH, digest)))[0] == digest
        watch.stop()
        with watched(watch), pytest.raises(TransferStopped):
            put(store, PATH.replace("/a/", "/b/"), parts)

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
        assert sha256_file(site.store().open(ObjectRef(PATH, digest)))[0] == digest

    @pytest.mark.parametrize("way", ["copied", "direct", "parts are not listed"])
    def test_an_upload_that_was_cut_at_half_sends_the_other_half(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        """By another process, and by the bytes that come to the service."""
        monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
        monkeypatch.setattr(uploads, "PART_BYTES", 2**18)
        monkeypatch.setattr(remote, "_SINGLE_BYTES", 2**18)
        monkeypatch.setattr(remote, "_MOST_COPIED_BYTES", 0 if way == "direct" else 2**30)
        content = os.urandom(64) * (48 * 2**11)  # 24 parts
        site.proxy.faults = [Fault(r"partNumber=(1[3-9]|2\d)\b", "drop", 1000)]
        with pytest.raises(StoreUnavailable):
            put(site.store(cache=FileCache(site.folder / "own", 2**30), endurance=IMPATIENT), PATH, content)
        before = site.proxy.body_bytes()
        site.proxy.faults = [Fault("^GET .*uploadId=", "deny", 1000)] if way == "parts are not listed" else []
        digest = put(site.store(cache=FileCache(site.folder / "own", 2**30)), PATH, content)
        again = site.proxy.body_bytes() - before
        assert 0.5 * len(content) <= again < 0.55 * len(content)
        assert sha256_file(site.store().open(ObjectRef(PATH, digest)))[0] == digest

    def test_an_upload_on_its_way_is_no_object(self, site: Site) -> None:
        put(site.store(), PATH, SMALL)
        site.s3.overwrite(site.bucket, f"flavor/{PATH.rpartition('/')[0]}/.0001-update.bin.abc", b"half")
        assert site.store().list("runs/r/clients/a/") == [PATH]
        site.store().remove("runs/r/clients/a/")
        assert site.s3.keys(site.bucket) == []


@contextlib.contextmanager
def slowed(target: tuple[str, int], *, bytes_s: int) -> Iterator[tuple[str, int]]:
    """A way to `target` on which each direction of each connection carries no more than this."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(len(data) / bytes_s)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def carry(near: socket.socket) -> None:
        with near, socket.create_connection(target) as far:
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=carry, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield listener.getsockname()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def tinyproxy(folder: Path) -> Iterator[str]:
    """Debian's."""
    if shutil.which("tinyproxy") is None:
        pytest.skip("no tinyproxy here: install it")
    port, file = free_port(), folder / "proxy.conf"
    file.write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nAllow 127.0.0.1\n")
    process = subprocess.Popen(
        ["tinyproxy", "-d", "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        if process.poll() is not None:
            pytest.skip("tinyproxy does not start here")
        return False

    try:
        eventually("tinyproxy listens", listens, 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=["tinyproxy", "squid", "socks5"])
def proxy_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """That of a real one, and of one that speaks SOCKS5 and wants a password."""
    with contextlib.ExitStack() as running:
        if request.param == "tinyproxy":
            yield running.enter_context(tinyproxy(tmp_path))
        elif request.param == "squid":
            yield running.enter_context(squid()).url
        else:
            socks = running.enter_context(tunnels())
            socks.password = "user:pa@ss"
            yield socks.url("socks5", "user:pa%40ss")
            assert socks.asked


class TestProxies:
    @pytest.fixture(autouse=True)
    def elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """This machine's own services are reached through no proxy: here they stand for those of another machine."""
        monkeypatch.setattr("flavor.proxy.is_loopback", lambda _: False)

    def test_a_store_is_reached_through_one(self, site: Site, parts: bytes, proxy_url: str, monkeypatch) -> None:
        """Servers 7: tinyproxy leaves the second request on a connection without an answer, for ever."""
        monkeypatch.setenv("ALL_PROXY", proxy_url)
        endurance = Endurance(patience_s=1.0, request_s=30.0, silence_s=30.0)
        began = time.monotonic()
        store = site.store(endurance=endurance, create=True)
        for path, content in ((PATH, SMALL), (f"{PATH}.large", parts)):
            digest = put(store, path, content)
            assert sha256_file(site.store(endurance=endurance).open(ObjectRef(path, digest)))[0] == digest
        assert time.monotonic() - began < 25

    def test_what_no_proxy_names_goes_around(self, site: Site, monkeypatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
        away = (
            r"the proxy 127\.0\.0\.1:\d+ \(HTTP_PROXY\) does not answer \(connection refused\).*NO_PROXY=127\.0\.0\.1"
        )
        with pytest.raises(StoreUnavailable, match=away):
            put(site.store(endurance=IMPATIENT), PATH, SMALL)
        assert "is reached through the proxy 127.0.0.1:" in reached_through(endpoint_of("s3://bucket"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        way = " (it is reached directly: NO_PROXY names this host, although HTTP_PROXY is set)"
        assert reached_through(endpoint_of("s3://bucket")) == way
        put(site.store(), PATH, SMALL)

    def test_one_that_we_do_not_speak_to_is_said(self, site: Site, monkeypatch) -> None:
        monkeypatch.setenv("ALL_PROXY", "https://127.0.0.1:1080")
        with pytest.raises(InvalidSetting, match=r"ALL_PROXY names a proxy that speaks https.*NO_PROXY="):
            site.store()

    def test_one_that_refuses_is_told_at_once(self, site: Site, monkeypatch) -> None:
        """obstore would try for two minutes, and then say nothing of why."""
        with squid("http_access deny all") as refusing:
            monkeypatch.setenv("FLAVOR_PROXY", refusing.url)
            for scheme in ("http", "https"):
                monkeypatch.setenv("AWS_ENDPOINT_URL", f"{scheme}://bucket.test:9000")
                why = r"the proxy .* \(FLAVOR_PROXY\) refuses connections to bucket\.test:9000 \(403 Forbidden, ERR_ACC"
                began = time.monotonic()
                with pytest.raises(StoreUnavailable, match=why):
                    site.store(create=True, endurance=Endurance(patience_s=30.0, request_s=30.0, silence_s=30.0))
                assert time.monotonic() - began < 15


class TestCache:
    def test_what_is_known_by_its_digest_is_not_asked_for_again(self, site: Site) -> None:
        digest = put(site.store(), PATH, SMALL)
        cache = FileCache(site.folder / "shared", 2**30)
        first = site.store(cache=cache).open(ObjectRef(PATH, digest))
        asked = len(site.proxy.requests)
        assert site.store(cache=cache).open(ObjectRef(PATH, digest)) == first
        assert len(site.proxy.requests) == asked
        site.store(cache=cache).local(PATH)
        assert site.asked("GET") == 1, "without a digest only its mark is looked at"

    def test_what_was_put_is_in_it(self, site: Site) -> None:
        store = site.store()
        digest = put(store, PATH, SMALL)
        assert store.open(ObjectRef(PATH, digest)).read_bytes() == SMALL
        assert store.local(PATH).read_bytes() == SMALL
        assert site.asked("GET") == 0

    def test_a_digest_stands_for_its_own_object_only(self, site: Site) -> None:
        """Naming the digest of an object that is in the cache under another path fetches nothing of it."""
        store = site.store()
        digest = put(store, PATH, SMALL)
        other = PATH.replace("/a/", "/b/")
        with pytest.raises(ObjectMissing):
            store.open(ObjectRef(other, digest))
        put(site.store(), other, b"mine")
        with pytest.raises(DigestMismatch):
            store.open(ObjectRef(other, digest))

    def test_a_file_that_was_written_to_is_fetched_again(self, site: Site) -> None:
        store = site.store()
        digest = put(store, PATH, SMALL)
        file = store.open(ObjectRef(PATH, digest))
        file.chmod(0o644)
        file.write_bytes(SMALL[::-1])
        assert store.open(ObjectRef(PATH, digest)).read_bytes() == SMALL
        file.unlink()
        assert store.open(ObjectRef(PATH, digest)).read_bytes() == SMALL
        known = next((store._cache.folder / "known").iterdir())
        known.write_text('{"mark": ')
        assert store.open(ObjectRef(PATH, digest)).read_bytes() == SMALL

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
            "from flavor.store.remote import RemoteStore\nfrom flavor.store.digests import sha256_file\n"
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
        (cache.folder / "total").unlink()  # it says until when all of them are in use
        fresh = store.local("runs/r/0.bin")
        put(store, "runs/r/8.bin", b"8" * 3000)
        left = {path.read_bytes()[:1] for path in (cache.folder / "objects").glob("*/*")}
        assert left == {b"\0", b"\7", b"8"}, "the least recently used went"
        assert fresh.exists()
        assert len(list((cache.folder / "known").iterdir())) == 3

    def test_an_object_that_is_larger_than_it_comes_in_and_goes(self, site: Site) -> None:
        cache = FileCache(site.folder / "small", 10_000)
        store, objects = site.store(cache=cache), cache.folder / "objects"
        digest = put(site.store(), "runs/r/big.bin", b"9" * 10_001)
        file = store.open(ObjectRef("runs/r/big.bin", digest))
        assert file.stat().st_size == 10_001
        age(file, 1000)
        (cache.folder / "total").unlink()  # it says until when the file is in use
        put(store, "runs/r/next.bin", b"n")
        assert [path.stat().st_size for path in objects.glob("*/*")] == [1]

    def test_least_recently_used_ones_make_room_on_a_full_disk(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = FileCache(site.folder / "roomy", 2**30)
        store = site.store(cache=cache)
        for number in range(3):
            put(store, f"runs/r/{number}.bin", bytes([number]) * 3000)
        for number in range(3):
            age(store.local(f"runs/r/{number}.bin"), 1000 - 100 * number)
        put(site.store(), "runs/r/big.bin", b"9" * 5000)
        monkeypatch.setattr(FileCache, "_free_bytes", lambda cache: 10_000 - cache._size_bytes())
        monkeypatch.setattr(FileCache, "keep_room", lambda _: None)
        store.local("runs/r/big.bin")
        assert {path.read_bytes()[:1] for path in (cache.folder / "objects").glob("*/*")} == {b"\2", b"9"}

    @pytest.mark.parametrize("has_digest", [True, False])
    def test_one_without_room_on_the_disk_is_not_fetched(
        self, site: Site, parts: bytes, monkeypatch: pytest.MonkeyPatch, has_digest: bool
    ) -> None:
        digest = put(site.store(), PATH, parts)
        store = site.store()
        monkeypatch.setattr(FileCache, "_free_bytes", lambda _: 12_000_000)
        with pytest.raises(
            LocalFault, match=r"has 12\.6 MB to fetch, and the disk at .* has 12\.0 MB: free some space"
        ):
            store.open(ObjectRef(PATH, digest)) if has_digest else store.local(PATH)
        assert site.asked("GET") == 0

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

    @pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives a folder to another user")
    def test_a_folder_that_another_user_could_replace_is_refused(self, tmp_path: Path) -> None:
        """Below a folder that all may write to; or where another's link leads, whose old files would be removed."""
        shared, precious = tmp_path / "shared", tmp_path / "precious"
        (precious / "staging").mkdir(parents=True)
        old = precious / "staging" / "thesis"
        old.write_bytes(b"x")
        age(old, 90_000, modified=True)
        shared.mkdir()
        (shared / "link").symlink_to(precious)
        os.chown(shared / "link", 65534, 65534, follow_symlinks=False)
        for owner, mode, name in ((0, 0o777, "c"), (65534, 0o777, "c"), (0, 0o1777, "link"), (65534, 0o1777, "link/c")):
            os.chown(shared, owner, owner)
            shared.chmod(mode)
            with pytest.raises(InvalidSetting, match="another --store-cache"):
                FileCache(shared / name, 1).trim()
        assert old.exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives a folder to another user")
    def test_a_folder_that_another_user_has_replaced_is_used_no_more(self, site: Site) -> None:
        """Its owner, or a user with rights that the check does not know, can still rename it."""
        folder = site.folder / "cache"
        store = site.store(cache=FileCache(folder, 2**30))
        digest = put(store, PATH, SMALL)
        ref = ObjectRef(PATH, digest, len(SMALL))
        assert store.open(ref).read_bytes() == SMALL
        shutil.copytree(folder, site.folder / "forged")
        folder.rename(site.folder / "before")
        (site.folder / "forged").rename(folder)
        os.chown(folder, 65534, 65534)
        with pytest.raises(LocalFault, match="others than this user can write to it: check --store-cache"):
            store.open(ref)

    def test_its_folder_is_that_of_the_settings(self, site: Site) -> None:
        settings = StoreSettings(cache=site.folder / "chosen", cache_bytes=10**6)
        store = open_store(f"s3://{site.bucket}/flavor", settings=settings)
        assert isinstance(store, RemoteStore)
        digest = put(store, PATH, SMALL)
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
