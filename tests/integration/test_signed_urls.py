"""Runs whose sites have no credentials: the coordinator signs URLs, and a gate before the bucket checks signatures."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import queue
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from buckets import SECRET_KEY, Proxy, proxied
from signatures import SignatureGate

from flavor.bus.admission import tell_admission
from flavor.bus.connection import connect
from flavor.bus.subscription import Subscription
from flavor.bus.wishes import read_wish
from flavor.config import RunConfig
from flavor.coordinator.url_desk import UrlDesk
from flavor.edge.inbox import Listener
from flavor.edge.membership import Membership
from flavor.edge.urls import UrlAsker
from flavor.errors import StoreUnavailable, TransferStopped
from flavor.records.admission import Admission
from flavor.records.objects import ObjectRef
from flavor.records.signed_urls import UrlAnswer, UrlUse, UrlWish
from flavor.store.bucket import failure
from flavor.store.settings import Endurance, StoreSettings
from flavor.store.signed import SignedStore
from flavor.store.signer import opened_signer
from flavor.store.url_rights import refusal_of

EVALUATOR = Path(__file__).with_name("toy_evaluator.py")
TOKEN = "the coordinator's"
DIGEST = "ab" * 32


@pytest.fixture
def gated(s3) -> Iterator[tuple[Proxy, SignatureGate]]:
    with proxied(s3) as proxy:
        gate = proxy.gate = SignatureGate()
        yield proxy, gate


def evaluator(*flags: object) -> str:
    return shlex.join([sys.executable, str(EVALUATOR), *map(str, flags)])


def without_libraries(folder: Path) -> str:
    """Make a folder in which the libraries of the extra `s3` cannot be imported, before all others."""
    for name in ("obstore", "botocore"):
        (folder / f"{name}.py").write_text("raise ImportError('not installed at this site')")
    return str(folder)


def test_a_run_whose_sites_have_no_credentials(bench, s3, gated, tmp_path):
    """Three sites train, and one only judges, also after the end of the run.

    The first lacks the libraries for buckets; the third trusts an aggregator's key, and reads manifests.
    """
    proxy, gate = gated
    bucket = s3.bucket()
    own = {**s3.environment(proxy.address), "FLAVOR_STORE": f"s3://{bucket}/fed"}
    nothing = dict.fromkeys(own)
    initial = tmp_path / "initial.pkl"
    initial.write_bytes(pickle.dumps({"state_dict": {"w": np.zeros((2, 3), np.float32)}}))
    (stubs := tmp_path / "stubs").mkdir()

    def machine(name: str, **env: str | None) -> dict[str, str | None]:
        return {**nothing, "FLAVOR_STORE_CACHE": str(bench.folder / f"cache-{name}"), **env}

    serve = ["--run", bench.run, "--rounds", 2, "--min-clients", 3, "--queue", bench.run, "--evaluate", "every"]
    serve += ["--signed-urls", "--share-names", "--init-model", initial]
    coordinator = bench.start("flavor", "serve", *serve, env=machine("serve", **own))
    worker = bench.start("flavor-agg", "--queue", bench.run, "--key", tmp_path / "agg.key", env=machine("agg", **own))
    worker.until("listens")
    digest = bench.eventually("the run is there", bench.runs.find).global_model.model.digest
    trust = ["--trust", tmp_path / "agg.key.pub", "--trust", f"sha256:{digest}"]
    lacking = {
        "FLAVOR_TEST_COLD": "1",
        "PYTHONPATH": os.pathsep.join([without_libraries(stubs), bench.env["PYTHONPATH"]]),
    }
    sites = [
        bench.edge("c1", bench.trainer(), env=machine("c1", **lacking)),
        bench.edge("c2", bench.trainer(), "-e", evaluator("--report"), env=machine("c2")),
        bench.edge("c3", bench.trainer(), "-e", evaluator(), *trust, env=machine("c3")),
    ]
    words = ["--run", bench.run, "--client", "v4", "-m", evaluator(), "--workspace", bench.folder / "v4"]
    judge = bench.start("flavor-fv", *words, env={**machine("v4"), "TEST_BUS": bench.url})
    assert coordinator.wait(60) == 0, coordinator.stderr
    for site in sites:
        assert site.wait() == 0, site.stderr
    assert "in time" not in coordinator.stderr, "each has got a URL of the last model"
    judge.until("this site stays")
    judged = bench.done("flavor", "evaluate", bench.run, "--round", 1, "--json", env=machine("op", **own))
    assert judged.wait() == 0, judged.stderr
    assert json.loads(judged.stdout)["metrics"]["accuracy"]["plain_mean"] == pytest.approx(7 / 300 + 0.004)
    judge.send(signal.SIGTERM)
    assert judge.wait() == 143
    assert gate.refused == []
    keys = s3.keys(bucket)
    assert len([key for key in keys if "/clients/" in key and "-image-" in key]) == 2
    model = bench.runs.read().global_model
    assert model is not None
    for name in ("c1", "c2", "c3"):
        assert (bench.folder / f"cache-{name}" / "objects" / model.model.digest[:2] / model.model.digest).is_file()
    probes = [first for first in gate.by_url if "/.probe/" in first and first.startswith("PUT")]
    assert len(probes) == 2, "one of `flavor serve`, and one of `flavor evaluate`"
    by_sites = [first for first in gate.by_url if "/clients/" in first]
    assert {first.split("/clients/")[1].split("/")[0] for first in by_sites if first.startswith("PUT")} == {
        *("c1", "c2", "c3", "v4")
    }
    for process in (coordinator, worker, judge, judged, *sites):
        for text in (process.stdout, process.stderr):
            assert SECRET_KEY not in text
            assert "X-Amz-" not in text, "no URL is told"
    for path in bench.folder.rglob("*"):
        assert not path.is_file() or b"X-Amz-" not in path.read_bytes(), path
    for key in bench.redis.scan_iter(match=f"flavor:*{bench.run}*:urls"):
        assert 0 < bench.redis.pttl(key) <= 60_000
    for key in bench.redis.scan_iter(match=f"flavor:*{bench.run}*"):
        assert bench.redis.type(key) != "hash" or "X-Amz-" not in str(bench.redis.hgetall(key)), key


class Desk:
    """A run by hand, with client `a` in it, and a desk that signs for it."""

    def __init__(self, bench, s3, proxy: Proxy, monkeypatch) -> None:
        self.bench, self.runs, self.bucket = bench, bench.runs, s3.bucket()
        for name, value in s3.environment(proxy.address).items():
            monkeypatch.setenv(name, value)
        self.url, self.told = f"s3://{self.bucket}", list[str]()
        self.config = RunConfig(rounds=3, store=self.url, signed_urls=True, max_update_bytes=10**9)
        self.runs.create(rounds=3, config=self.config.to_mapping())
        bench.redis.set(self.runs.keys.coordinator, TOKEN)
        self.runs.admit(TOKEN, "a", "")
        tell_admission(self.runs, "a", Admission(True))
        self.keys = self.runs.keys.client("a")
        self.open_round(1)
        self.signer = opened_signer(self.url, Endurance())
        self.begin()

    def begin(self) -> None:
        self.desk = UrlDesk(
            self.runs, self.config, self.bench.url, self.signer, token=TOKEN, tell=self.told.append, patience_s=5
        )
        self.desk.start()

    def open_round(self, round_: int) -> None:
        self.runs.open_round(TOKEN, round_, expected=["a"], timeout_s=600, reason="")

    def answer(self, path: str, *, client: str = "a", use: UrlUse = UrlUse.PUT, **words) -> UrlAnswer | None:
        """Make a wish as a site's own program could; the answer, or None after two seconds without one."""
        wish = UrlWish(os.urandom(8).hex(), use, path, **{"size_bytes": 10, "digest": DIGEST, **words})
        return self.answer_to(wish.to_text(), wish.id, client=client)

    def answer_to(self, text: str | bytes, name: str, *, client: str = "a", wait_s: float = 2.0) -> UrlAnswer | None:
        keys, until = self.runs.keys.client(client), time.monotonic() + wait_s
        self.bench.redis.set(keys.wish, text)
        self.bench.redis.publish(keys.wish, "")
        while time.monotonic() < until:
            found = self.bench.redis.get(keys.urls)
            if found is not None and (answer := UrlAnswer.parse(found)).wish == name:
                return answer
            time.sleep(0.005)
        return None


@pytest.fixture
def desk(bench, s3, gated, monkeypatch) -> Iterator[Desk]:
    made = Desk(bench, s3, gated[0], monkeypatch)
    try:
        yield made
    finally:
        made.desk.close()


def test_crafted_wishes_get_nothing_and_end_nothing(desk, subtests, monkeypatch):
    run, name = desk.runs.run, f"update-{DIGEST[:16]}.safetensors"
    own = f"runs/{run}/clients/a/0001-{name}"
    for why, path, words in [
        ("another client's folder", f"runs/{run}/clients/b/0001-{name}", {}),
        ("up and away", f"runs/{run}/clients/a/../b/0001-{name}", {}),
        ("below a folder", f"runs/{run}/clients/a/x/0001-{name}", {}),
        ("another run", f"runs/other/clients/a/0001-{name}", {}),
        ("a global model to write", f"runs/{run}/global/0001-model-{DIGEST[:16]}.safetensors", {}),
        ("a manifest to write", f"runs/{run}/manifests/round-1.json", {}),
        ("what was accepted", f"runs/{run}/accepted/0001-a-{name}", {}),
        ("another digest", own, {"digest": "cd" * 32}),
        ("a petabyte", own, {"size_bytes": 10**15}),
        ("a petabyte in parts", own, {"size_bytes": 10**15, "use": UrlUse.BEGIN}),
        ("more than the run takes", own, {"size_bytes": 10**9 + 1}),
        ("information too large", f"runs/{run}/clients/a/0001-info-{DIGEST[:16]}.json", {"size_bytes": 10**6}),
        ("another's update to read", f"runs/{run}/clients/b/0001-{name}", {"use": UrlUse.GET}),
        ("the run's record", f"runs/{run}/run.json", {"use": UrlUse.GET}),
        ("a manifest, without --share-names", f"runs/{run}/manifests/round-1.json", {"use": UrlUse.GET}),
        ("the state of the server step", f"runs/{run}/global/0001-state-{DIGEST[:16]}.st", {"use": UrlUse.GET}),
        ("parts beyond the object", own, {"use": UrlUse.PARTS, "upload": "u", "parts": (2,)}),
    ]:
        with subtests.test(why):
            answer = desk.answer(path, **words)
            assert answer is not None
            assert answer.refused
            assert not answer.urls
            assert not answer.is_over
    with subtests.test("a run that shares names gives out its records"):
        for path in (f"runs/{run}/run.json", f"runs/{run}/manifests/round-1.json"):
            wish = UrlWish("0" * 16, UrlUse.GET, path)
            assert not refusal_of(wish, run, "a", most_update_bytes=None, shares_names=True)
    with subtests.test("of rounds and evaluations without a task"):
        for path in (own.replace("0001-", "0002-"), f"runs/{run}/clients/a/0001-result-0-{DIGEST[:16]}.json"):
            answer = desk.answer(path)
            assert answer is not None
            assert answer.is_over
    with subtests.test("of a client that was never admitted"):
        answer = desk.answer(f"runs/{run}/clients/b/0001-{name}", client="b")
        assert answer is not None
        assert "not admitted" in answer.refused
    with subtests.test("what is no wish at all is not answered"):
        for text in (b"", b"{", b"[1]", b"\xff\xfe", b'{"id": "' + b"0" * 2**20, b"[" * 3000, b'{"use": "get"}'):
            assert desk.answer_to(text, "none", wait_s=0.02) is None
        desk.bench.redis.delete(desk.keys.wish)
        desk.bench.redis.rpush(desk.keys.wish, "a list")
        desk.bench.redis.publish(desk.keys.wish, "")
    with subtests.test("a flood is bounded, and ends nothing"):
        before, began = desk.bench.redis.info("commandstats")["cmdstat_getrange"]["calls"], time.monotonic()
        while time.monotonic() - began < 0.3:
            desk.bench.redis.publish(desk.keys.wish, "")
        read = desk.bench.redis.info("commandstats")["cmdstat_getrange"]["calls"] - before
        assert read < 100 + 20 * (time.monotonic() - began)  # a burst, and so many in each second
        answer = desk.answer(own)
        assert answer is not None
        assert len(answer.urls) == 1
    with subtests.test("uploads that a client begins in a round are counted"):
        for number in range(10):
            digest = hashlib.sha256(bytes([number])).hexdigest()
            path, use = own.replace(DIGEST[:16], digest[:16]), UrlUse.PUT if number % 3 else UrlUse.BEGIN
            answer = desk.answer(path, use=use, size_bytes=17 * 2**20, digest=digest)
            assert answer is not None
            assert bool(answer.urls) == (number < 7), answer.refused  # and one before
        assert len(list(desk.signer._requests.uploads("runs/"))) == 3
    with subtests.test("the next round ends what was left unfinished, and the round before"):
        desk.open_round(2)
        answer = desk.answer(own)
        assert answer is not None
        assert answer.is_over
        desk.bench.eventually("none is left", lambda: not list(desk.signer._requests.uploads("runs/")))
    with subtests.test("the operator is told of each kind of fault, however many there were before"):
        for status, code in [*[(503, "")] * 25, (403, "ExpiredToken")]:
            name = os.urandom(8).hex()
            error = failure(desk.url, f"runs/{run}/clients/a/{name}", "", status=status, code=code)
            monkeypatch.setattr(desk.signer, "get", Mock(side_effect=error))
            answer = desk.answer(f"runs/{run}/global/0001-model-{DIGEST[:16]}.safetensors", use=UrlUse.GET)
            assert answer is not None
            assert str(status) in answer.refused
        assert [("503" in line, "ExpiredToken" in line) for line in desk.told[1:]] == [(True, False), (False, True)]
    assert "a asks for a signed URL (put) of " in desk.told[0], "one line about a client"


def test_an_edge_asks_by_its_keys_and_waits_for_the_coordinator(desk, s3, tmp_path, subtests):
    redis, told = desk.bench.redis, list[str]()
    membership = Membership(redis, desk.bench.url, desk.runs.keys, "a")
    membership.take(ttl_s=60, told=told.append)
    asker = UrlAsker(membership, desk.keys.urls, has_ended=lambda: False, tell=told.append)
    subscription = Subscription(connect(desk.bench.url), desk.bench.url, patterns=[desk.keys.to_pattern])
    listener = Listener(subscription, queue.SimpleQueue(), asker.heard)
    listener.start()
    settings = StoreSettings(cache=tmp_path / "cache")
    store = SignedStore(desk.url, asker.ask, settings=settings, tell=told.append)
    data = os.urandom(17 * 2**20)
    digest = hashlib.sha256(data).hexdigest()
    ref = ObjectRef(f"runs/{desk.runs.run}/clients/a/0001-update-{digest[:16]}.bin", digest, len(data))
    with subtests.test("a large object in parts, by four lanes of a desk"):
        (tmp_path / "update").write_bytes(data)
        store.put(ref, tmp_path / "update")
        assert s3.read(desk.bucket, ref.path) == data
        assert store.read(ref, most=2**25) == data
    with subtests.test("another holder of the coordinator's lease answers, and this desk does not"):
        redis.set(desk.runs.keys.coordinator, "another")
        assert desk.answer_to(UrlWish("0" * 16, UrlUse.GET, ref.path).to_text(), "0" * 16, wait_s=0.1) is None
        redis.set(desk.runs.keys.coordinator, TOKEN)
        assert desk.answer(ref.path, use=UrlUse.GET) is not None
    with subtests.test("a coordinator that comes back answers a wish from before"):
        desk.desk.close()
        found = queue.SimpleQueue[bytes]()
        threading.Thread(target=lambda: found.put(store.read(ref, most=2**25)), daemon=True).start()
        store._requests._given.clear()
        desk.bench.eventually("it asks", lambda: read_wish(desk.runs, "a"))
        desk.begin()
        assert found.get(timeout=20) == data
    with subtests.test("a round that is over ends the transfer"):
        desk.open_round(2)
        (tmp_path / "late").write_bytes(b"late")
        late = hashlib.sha256(b"late").hexdigest()
        with pytest.raises(TransferStopped):
            store.put(
                ObjectRef(f"runs/{desk.runs.run}/clients/a/0001-update-{late[:16]}.bin", late, 4), tmp_path / "late"
            )
    with subtests.test("a refusal is one line"):
        with pytest.raises(StoreUnavailable, match="the run's coordinator gives no URL: this site may read") as error:
            store.read(ObjectRef(ref.path.replace("/a/", "/b/"), digest), most=5)
        assert not error.value.passing
    assert [line for line in told if "lead to" not in line] == []
    listener.close()
    membership.leave(announce=False)
