"""The store of a site by signed URLs, in a bucket behind a gate that checks signatures and their time."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from buckets import SECRET_KEY, Fault, Proxy, proxied
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from signatures import SignatureGate

from flavor.errors import (
    DigestMismatch,
    InvalidSetting,
    ObjectExists,
    ObjectMissing,
    StoreUnavailable,
    TransferStopped,
)
from flavor.records.objects import ObjectRef
from flavor.records.signed_urls import SignedUrl, UrlAnswer, UrlUse, UrlWish
from flavor.store.cache import FileCache
from flavor.store.settings import Endurance, StoreSettings
from flavor.store.signed import SignedStore
from flavor.store.signer import opened_signer
from flavor.store.url_grants import granted
from flavor.watch import Watch, watched

ENDURANCE = Endurance(patience_s=2.0, request_s=20.0, silence_s=20.0)
FOLDER = "runs/r/clients/a"
PART = 5 * 2**20


class Coordinator:
    """Grants all wishes at once, as the URLs of another process would come; counts them."""

    def __init__(self, url: str) -> None:
        self.url, self.signer = url, opened_signer(url, ENDURANCE)
        self.expires_s = 3600
        self._asking = threading.Lock()
        self.asked: list[UrlUse] = []

    def ask(self, wish: UrlWish) -> UrlAnswer:
        parsed = UrlWish.parse(wish.to_text())
        assert parsed == wish
        self.asked.append(wish.use)
        assert self._asking.acquire(blocking=False), "lanes ask one after another"
        try:
            answer = granted(self.signer, wish, self.expires_s)
        finally:
            self._asking.release()
        assert UrlAnswer.parse(answer.to_text()) == answer
        return answer


class Place:
    def __init__(self, s3, proxy: Proxy, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.s3, self.proxy, self.folder = s3, proxy, folder
        self.gate = proxy.gate = SignatureGate()
        self.bucket = s3.bucket()
        for name, value in s3.environment(proxy.address).items():
            monkeypatch.setenv(name, value)
        self.coordinator = Coordinator(f"s3://{self.bucket}/fed")
        self.told: list[str] = []

    def store(self, name: str = "a", **how) -> SignedStore:
        cache = FileCache(self.folder / f"cache-{name}", 2**30)
        settings = StoreSettings(endurance=replace(ENDURANCE, **how))
        return SignedStore(
            self.coordinator.url, self.coordinator.ask, cache=cache, settings=settings, tell=self.told.append
        )

    def file(self, data: bytes) -> Path:
        path = self.folder / f"own-{len(list(self.folder.iterdir()))}"
        path.write_bytes(data)
        return path

    def refused(self, why: str) -> list[str]:
        found = [line for line in self.gate.refused if why in line]
        self.gate.refused = [line for line in self.gate.refused if why not in line]
        return found


@pytest.fixture
def place(s3, tmp_path, monkeypatch) -> Iterator[Place]:
    with proxied(s3) as proxy:
        made = Place(s3, proxy, tmp_path, monkeypatch)
        yield made
        assert made.gate.refused == [], "each refusal was meant"


def named(data: bytes, round_: int = 1) -> ObjectRef:
    digest = hashlib.sha256(data).hexdigest()
    return ObjectRef(f"{FOLDER}/{round_:04d}-update-{digest[:16]}.bin", digest, len(data))


def test_small_objects(place, subtests):
    store, data = place.store(), b"hello" * 1000
    ref = named(data)
    store.put(ref, place.file(data))
    with subtests.test("an object is read by another site, verified, and then lies in its cache"):
        other = place.store("b")
        assert other.open(ref).read_bytes() == data
        asked = len(place.coordinator.asked)
        assert other.open(ref).read_bytes() == data
        other.place(ref, place.folder / "model")
        assert (place.folder / "model").read_bytes() == data
        assert len(place.coordinator.asked) == asked
    with subtests.test("small reads"):
        assert store.read(ref, most=5000) == data
        assert store.start(ref.path, 5) == b"hello"
        assert store.size_bytes(ref.path) == 5000
        assert store.exists(ref.path)
        assert not store.exists(f"{FOLDER}/0001-update-0000.bin")
        with pytest.raises(DigestMismatch, match="no more than 4999"):
            store.read(ref, most=4999)
        with pytest.raises(ObjectMissing):
            store.open(named(b"nothing"))
    with subtests.test("the same bytes again change nothing; others under the name are refused"):
        store.put(ref, place.file(data))
        other_bytes = ObjectRef(ref.path, hashlib.sha256(b"x").hexdigest(), 1)
        with pytest.raises(ObjectExists):
            store.put(other_bytes, place.file(b"x"))
        assert place.s3.read(place.bucket, f"fed/{ref.path}") == data
    with subtests.test("what was changed in the bucket is no object of this digest"):
        place.s3.overwrite(place.bucket, f"fed/{ref.path}", b"other")
        with pytest.raises(DigestMismatch):
            place.store("c").open(ref)
        with pytest.raises(DigestMismatch):
            place.store("d").open(replace(ref, size_bytes=None))
    with subtests.test("an empty object"):
        store.put(empty := named(b""), place.file(b""))
        assert place.store("e").open(empty).read_bytes() == b""
        assert place.store("f").open(replace(empty, size_bytes=None)).read_bytes() == b""
    with subtests.test("a service in trouble"):
        place.proxy.faults = [Fault("^PUT", "500", 1), Fault("^PUT", "lost", 1), Fault("^GET", "cut", 1)]
        store.put(ref_again := named(b"again" * 9000), place.file(b"again" * 9000))
        assert place.store("g").open(ref_again).read_bytes() == b"again" * 9000
        assert all(fault.seen for fault in place.proxy.faults)
    for kind in ("500", "drop"):
        with subtests.test("a service that stays in trouble: the error is its own", kind=kind):
            place.proxy.faults = [Fault("^PUT", kind, 99)]
            with pytest.raises(StoreUnavailable):
                place.store("p", patience_s=0.5, request_s=1.0).put(named(b"never" * 9000), place.file(b"never" * 9000))
            place.proxy.faults = []
    with subtests.test("a coordinator that cannot reach the bucket for a moment is asked again"):
        asking, real = place.store("h"), place.coordinator.ask
        first = iter([UrlAnswer("", refused="its own request failed", is_passing=True)])
        asking._requests._ask = lambda wish: next(first, None) or real(wish)
        assert asking.read(ref_again, most=10**5) == b"again" * 9000
        told = [line for line in place.told if line.endswith("which is asked for again: its own request failed")]
        assert len(told) == 1
        place.told.remove(told[0])
    with subtests.test("it lists and deletes nothing"):
        for act in (lambda: store.list(f"{FOLDER}/"), lambda: store.delete([ref.path]), lambda: store.seal(ref.path)):
            with pytest.raises(StoreUnavailable, match="signed URLs cannot"):
                act()
    host = f"http://127.0.0.1:{place.proxy.address[1]}"
    assert set(place.told) == {f"the URLs that the run's coordinator signs lead to {host}"}


def test_an_upload_that_is_cut_at_half_goes_on_after_a_restart(place):
    data = os.urandom(17 * PART + 17)
    ref, watch = named(data), Watch()
    sent = lambda: place.proxy.body_bytes("^PUT .*partNumber")  # noqa: E731
    place.proxy.faults = [Fault(r"partNumber=9&", watch.stop, 1)]
    with watched(watch), pytest.raises(TransferStopped):
        place.store().put(ref, place.file(data))
    before = sent()
    assert len(data) * 0.4 < before < len(data) * 0.7
    place.store("a").put(ref, place.file(data))
    again = sent() - before
    assert again <= 0.55 * len(data), "finished parts are not sent again"
    assert place.s3.read(place.bucket, f"fed/{ref.path}") == data
    assert place.coordinator.asked.count(UrlUse.PARTS) == 0, "URLs of sixteen parts come at once"
    assert not list(place.coordinator.signer._requests.uploads("runs/")), "no upload is left half done"
    found = place.store("b")
    place.proxy.faults = [Fault("^GET", "cut", 1)]
    fetched = lambda: sum(size for first, size in place.proxy.answers if first.startswith("GET "))  # noqa: E731
    before = fetched()
    assert hashlib.sha256(found.open(ref).read_bytes()).hexdigest() == ref.digest
    assert fetched() - before < 1.2 * len(data)


def test_an_upload_that_the_bucket_forgets_is_begun_again(place):
    data = os.urandom(4 * PART)
    ref = named(data)
    place.proxy.faults = [Fault(r"partNumber=3&", "gone", 1), Fault(r"^POST .*uploadId=", "gone", 1)]
    place.store().put(ref, place.file(data))
    assert place.coordinator.asked.count(UrlUse.BEGIN) == 3, "a part has found none, and so has the completion"
    assert place.s3.read(place.bucket, f"fed/{ref.path}") == data
    place.proxy.faults = [Fault("^POST .*uploadId=", "lost", 1)]
    store, other = place.store("b"), os.urandom(4 * PART)
    store.put(second := named(other), place.file(other))
    assert place.s3.read(place.bucket, f"fed/{second.path}") == other, "the answer to its completion was lost"


def test_urls_expire_while_a_site_trains(place, subtests):
    store, data = place.store(), b"model" * 500
    store.put(ref := named(data), place.file(data))
    reading = place.store("b")
    assert reading.start(ref.path, 5) == b"model"
    with subtests.test("the bucket says that it has expired: another one is asked for, without a word"):
        place.gate.clock_s = 4000.0
        told = list(place.told)
        with pytest.raises(StoreUnavailable, match="the clock of the coordinator's machine is wrong") as error:
            place.store("c", patience_s=0.2).start(ref.path, 5)
        assert error.value.passing
        assert place.refused("expired")
        place.gate.clock_s = 0.0
        place.told[:] = told
        grant = reading._requests._given[ref.path]
        aged = SignedUrl(place.coordinator.signer.get(ref.path, 1).url)
        place.gate.clock_s = 5.0
        reading._requests._given[ref.path] = replace(grant, signed=aged)
        assert reading.start(ref.path, 5) == b"model"
        assert len(place.refused("expired")) == 1
        assert place.told == told
    with subtests.test("a bucket whose clock is an hour behind the coordinator's"):
        place.gate.clock_s = -3600.0
        with pytest.raises(StoreUnavailable, match="the clock of the coordinator's machine is wrong"):
            place.store("d", patience_s=0.2).put(named(b"late"), place.file(b"late"))
        assert place.refused("not yet valid")
        with pytest.raises(InvalidSetting, match="set the clock of the machine that signs"):
            opened_signer(place.coordinator.url, ENDURANCE)
        place.refused("not yet valid")
    place.gate.clock_s = 0.0
    assert not [line for line in place.told if "X-Amz" in line]


def test_a_url_writes_its_own_object_and_nothing_else(place, subtests):
    data = b"mine" * 10
    ref = named(data)
    signed = place.coordinator.signer.put(ref.path, len(data), ref.digest, 60)
    theirs = ref.path.replace("/clients/a/", "/clients/b/")

    def put(url: str, body: bytes, **headers: str) -> int:
        all_headers = {**signed.headers, **headers}
        request = urllib.request.Request(url, data=body, headers=all_headers, method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    for why, url, body, headers in [
        ("another client's object", signed.url.replace("/clients/a/", "/clients/b/"), data, {}),
        ("another round's", signed.url.replace("0001-", "0002-"), data, {}),
        ("more bytes", signed.url, data * 2, {}),
        ("other bytes", signed.url, b"evil" * 10, {}),
        ("without the condition", signed.url, data, {"If-None-Match": "x"}),
    ]:
        with subtests.test(why):
            assert put(url, body, **headers) == 403
            assert len(place.gate.refused) == 1
            place.gate.refused.clear()
    with subtests.test("after its end"):
        place.gate.clock_s = 61
        assert put(signed.url, data) == 403
        assert place.refused("expired")
        place.gate.clock_s = 0
    assert place.s3.keys(place.bucket) == [], "nothing was written"
    assert put(signed.url, data) == 200
    assert put(signed.url, data) == 412, "once"
    reading = place.coordinator.signer.get(ref.path, 60).url
    assert put(reading, data) == 403, "a URL to read writes nothing"
    place.gate.refused.clear()
    assert theirs not in str(place.s3.keys(place.bucket))
    assert "Signature" not in repr(signed)
    assert SECRET_KEY not in signed.url


def test_urls_that_a_site_does_not_follow(place):
    real, ref = place.coordinator.ask, named(b"x")
    store = place.store()

    def leading(url: str):
        return lambda wish: replace(real(wish), urls=(SignedUrl(url),))

    for url, why in [
        ("http://169.254.169.254/latest/meta-data", "cannot be used here"),
        ("http://[fe80::1]/x", "cannot be used here"),
        ("file:///etc/passwd", "cannot be used here"),
        ("http://", "cannot be used here"),
    ]:
        place.coordinator.ask = leading(url)
        with pytest.raises(StoreUnavailable, match=why):
            place.store("b").open(ref)
    place.coordinator.ask = real
    store.put(ref, place.file(b"x"))
    store._requests._ask = leading("http://127.0.0.2:9/x")
    with pytest.raises(StoreUnavailable, match="another host than before"):
        store.open(ref)


def service_account() -> str:
    """A key of a made-up service account, as Google gives it out."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    names = {"type": "service_account", "client_email": "x@y.iam.gserviceaccount.com", "private_key_id": "1"}
    return json.dumps({**names, "private_key": pem})


def test_signed_urls_need_a_bucket_and_credentials(place, monkeypatch, tmp_path, subtests):
    for url, why in [(str(tmp_path), "a folder has no URLs"), ("tape://x/y", "a store 'tape://' has no URLs")]:
        with subtests.test(url), pytest.raises(InvalidSetting, match=why):
            opened_signer(url, ENDURANCE)
    with subtests.test("a bucket without a signature"):
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        with pytest.raises(InvalidSetting, match="no credentials here to sign"):
            opened_signer(place.coordinator.url, ENDURANCE)
        monkeypatch.delenv("AWS_SKIP_SIGNATURE")
    with subtests.test("a bucket that takes no such URLs"):
        place.proxy.faults = [Fault("X-Amz-Signature", "deny", 9)]
        with pytest.raises(InvalidSetting, match="does not take URLs that are signed here: it answered 403 to PUT"):
            opened_signer(place.coordinator.url, ENDURANCE)
    with subtests.test("a service that does not know the header with the digest"):
        place.proxy.faults = [Fault("^PUT .*checksum", "400", 1)]
        signer = opened_signer(place.coordinator.url, ENDURANCE)
        assert "x-amz-checksum-sha256" not in signer.put(named(b"x").path, 1, named(b"x").digest, 60).headers
    with subtests.test("Google and Azure: signed without a request, and one request for each object"):
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acct")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5a2V5")
        from flavor.store.signer import ObstoreSigner

        signer = ObstoreSigner("az://box/fed", ENDURANCE)
        signed = signer.put("runs/r/clients/a/0001-update-x.bin", 3, "0" * 64, 60)
        assert signed.url.startswith("https://acct.blob.core.windows.net/box/fed/runs/r/clients/a/0001-update-x.bin?")
        assert "sig=" in signed.url
        assert signed.headers["x-ms-blob-type"] == "BlockBlob"
        assert not signer.has_parts
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", service_account())
        google = ObstoreSigner("gs://box/fed", ENDURANCE).get("runs/r/global/x", 60)
        assert google.url.startswith("https://storage.googleapis.com/box/fed/runs/r/global/x?")
        assert "X-Goog-Signature=" in google.url
        monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT_KEY")
        with pytest.raises(InvalidSetting, match="give the key of a service account"):
            ObstoreSigner("gs://box/fed", ENDURANCE).get("runs/r/global/x", 60)
