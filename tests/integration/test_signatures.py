"""Signed updates: what a worker accepts, whose key is pinned, and that the private half stays at its site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flavor.bus.admission import replace_key
from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.pruning import Pruning
from flavor.errors import InvalidSetting, ObjectMissing, StateLost, StoreError
from flavor.ledger.archive import Archive
from flavor.ledger.history import History
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import Manifest
from flavor.ledger.statement import signed
from flavor.records.objects import ObjectRef
from flavor.records.states import RoundState
from flavor.records.update import Update, from_hash
from flavor.records.verdict import Verdict
from flavor.store.local import LocalStore
from flavor.store.open import open_store
from flavor.store.paths import manifest_path, update_prefix
from flavor.store.protocol import ObjectStore
from flavor.view.observer import Lines
from tests.conftest import Bench
from tests.infos import begin_run, put_info
from tests.integration.test_worker import info, model, submit
from workers import jobs
from workers.context import WorkerContext, context, set_context

TOKEN = "coordinator"
KEY, OTHER = SigningKey.generate(), SigningKey.generate()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def begun(url: str, store: ObjectStore, **settings: object) -> RunStore:
    """A run in its open first round, with the clients a and b, and this process as its worker."""
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    begin_run(runs, store, RunConfig(rounds=2, min_clients=2, store=store.url, **settings))
    redis.set(runs.keys.coordinator, TOKEN)
    runs.open_round(TOKEN, 1, expected=["a", "b"], timeout_s=60, reason="go")
    set_context(WorkerContext(redis, url, store, name="worker-1"))
    return runs


@pytest.fixture
def runs(url: str, store: ObjectStore) -> Iterator[RunStore]:
    runs = begun(url, store)
    yield runs
    set_context(None)
    runs.redis.close()


def sign(runs: RunStore, client: str, key: SigningKey, round_: int = 1, trained_from: str = "", **lies: str) -> None:
    """Sign a submitted update as its edge does; `lies` are about what is signed."""
    name = runs.keys.client(client).update(round_)
    run_id = lies.pop("run_id", runs.read().run_id)
    base = ObjectRef("", trained_from) if trained_from else None
    update = from_hash({**runs.redis.hgetall(name), **lies}, base=base)
    assert isinstance(update, Update)
    done = signed(update, key, run=("r", run_id), round_=round_, client=client)
    runs.redis.hset(name, mapping={"public_key": done.public_key, "signature": done.signature})


def verdict(runs: RunStore, client: str, round_: int = 1) -> Verdict:
    jobs.inspect("r", round_, [client])
    view = runs.read_round(round_)
    assert view is not None
    return view.verdicts[client]


def test_a_signed_update_is_accepted_and_its_key_pinned(runs: RunStore, store: ObjectStore) -> None:
    submit(runs, store, "a", model(1))
    sign(runs, "a", KEY)
    found = verdict(runs, "a")
    assert found.accepted, found.reason
    assert found.inspected.public_key == str(KEY.public)
    assert runs.public_keys() == {"a": str(KEY.public)}


def test_an_unsigned_update_is_taken_from_a_client_without_a_key(runs: RunStore, store: ObjectStore) -> None:
    submit(runs, store, "a", model(1))
    found = verdict(runs, "a")
    assert found.accepted
    assert (found.inspected.public_key, runs.public_keys()) == ("", {})


def test_a_run_may_take_signed_updates_only(url: str, store: ObjectStore) -> None:
    runs = begun(url, store, require_signatures=True)
    submit(runs, store, "a", model(1))
    submit(runs, store, "b", model(1))
    sign(runs, "b", KEY)
    assert "it is not signed" in (found := verdict(runs, "a")).reason.replace("the update is", "it is")
    assert "--require-signatures" in found.reason
    assert verdict(runs, "b").accepted
    set_context(None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"signature": ""}, "not signed, and client 'a' has the pinned key"),
        ({"signature": "0" * 128}, "the signature is not that of this update"),
        ({"public_key": "another"}, "and client 'a' has the pinned key"),
        ({"public_key": "ed25519:xyz"}, "public key 'ed25519:xyz' cannot be used"),
        ({"public_key": ""}, "public key '' cannot be used"),
        ({"size": "7"}, "the signature is not that of this update"),
        ({"format": "torch"}, "the signature is not that of this update"),
        ({"digest": "0" * 64}, "the signature is not that of this update"),
    ],
    ids=range(8),
)
def test_with_a_pinned_key_nothing_else_counts(
    runs: RunStore, store: ObjectStore, change: dict[str, str], said: str
) -> None:
    assert runs.pin_key("a", str(KEY.public)) == str(KEY.public)
    submit(runs, store, "a", model(1))
    sign(runs, "a", KEY)
    if change == {"public_key": "another"}:
        change = {"public_key": str(OTHER.public)}  # keys differ from process to process, tests' names must not
    runs.redis.hset(runs.keys.client("a").update(1), mapping=change)
    found = verdict(runs, "a")
    assert not found.accepted
    assert said in found.reason
    assert runs.public_keys() == {"a": str(KEY.public)}


def test_information_that_was_changed_after_signing(runs: RunStore, store: ObjectStore) -> None:
    submit(runs, store, "a", model(1), size=100)
    sign(runs, "a", KEY)
    name = runs.keys.client("a").update(1)
    runs.redis.hset(name, mapping=put_info(store, update_prefix("r", 1, "a"), info(100_000)))
    assert "the signature is not that of this update" in verdict(runs, "a").reason


def test_a_signature_from_another_global_model_or_for_another_size(runs: RunStore, store: ObjectStore) -> None:
    submit(runs, store, "a", model(1))
    sign(runs, "a", KEY, trained_from="0" * 64)
    assert "the global model of the round" in verdict(runs, "a").reason
    submit(runs, store, "b", model(1))
    sign(runs, "b", KEY, size="7")
    runs.redis.hset(runs.keys.client("b").update(1), "size", "7")
    assert "7 were signed" in verdict(runs, "b").reason


def test_an_update_signed_in_an_earlier_run_of_the_name(runs: RunStore, store: ObjectStore) -> None:
    """All else the same: the run's name, the round, the key and the bytes."""
    submit(runs, store, "a", model(1))
    sign(runs, "a", KEY, run_id="f" * 32)
    assert "the signature is not that of this update: of this run" in verdict(runs, "a").reason


def test_a_key_that_was_replaced_names_its_site_to_no_other(runs: RunStore) -> None:
    """Every site reads the run's hash."""
    runs.pin_key("site-b", "one")
    for key in ("two", "", "three", "four"):
        replace_key(runs, "site-b", key)
    assert runs.replaced() == {"site-b": ("one", "two", "three")}
    assert "site-b" not in str(runs.redis.hgetall(runs.keys.state))


def test_the_first_key_stands_unless_an_operator_replaces_it(runs: RunStore) -> None:
    assert runs.pin_key("a", "one") == "one"
    assert runs.pin_key("a", "two") == "one"
    replace_key(runs, "a", "two")
    assert runs.pin_key("a", "one") == "two"


def test_a_key_that_was_replaced_is_pinned_by_nothing(runs: RunStore, store: ObjectStore) -> None:
    """What the site has written with it, or a thief of it, stands in Redis still."""
    submit(runs, store, "a", model(1))
    sign(runs, "a", KEY)
    runs.pin_key("a", str(KEY.public))
    replace_key(runs, "a")
    assert runs.pin_key("a", str(KEY.public)) == ""
    found = verdict(runs, "a")
    assert not found.accepted
    assert f"signed with key {KEY.public.fingerprint}, which the operator has replaced in this run" in found.reason
    with pytest.raises(InvalidSetting, match="a replaced key is never pinned again: name another key"):
        replace_key(runs, "a", str(KEY.public))
    assert runs.public_keys() == {}
    assert runs.pin_key("a", str(OTHER.public)) == str(OTHER.public)
    assert runs.pin_key("b", str(KEY.public)) == str(KEY.public), "it is this client's alone"


# -- the manifest of a round


def aggregate(runs: RunStore, round_: int = 1) -> None:
    runs.begin_aggregation(TOKEN, round_, attempt=1, contributors=["a", "b"], reason="all")
    jobs.aggregate("r", round_, 1)


def submit_both(runs: RunStore, store: ObjectStore, round_: int = 1, trained_from: str = "") -> None:
    for client, key in (("a", KEY), ("b", OTHER)):
        submit(runs, store, client, model(1), round_=round_)
        sign(runs, client, key, round_, trained_from)
        assert verdict(runs, client, round_).accepted


def test_a_closed_round_leaves_its_manifest(runs: RunStore, store: ObjectStore) -> None:
    submit_both(runs, store)
    aggregate(runs)
    view, round_ = runs.read(), runs.read_round(1)
    assert round_ is not None
    assert view.global_model is not None
    manifest = Manifest.parse(store.local(manifest_path("r", 1)).read_bytes(), "")
    assert manifest.is_signed()
    assert view.manifest == round_.manifest
    assert view.manifest is not None
    assert view.manifest.digest == manifest.digest
    assert manifest.config == view.config
    assert manifest.global_model.to_global(view.global_model.model.seal) == view.global_model
    assert [(each.client, each.public_key) for each in manifest.contributors] == [
        ("a", str(KEY.public)),
        ("b", str(OTHER.public)),
    ]
    assert all(manifest.statement(each).is_signed(each.public_key, each.signature) for each in manifest.contributors)
    assert round_.opened_ms == manifest.opened_ms <= manifest.closed_ms <= (round_.closed_ms or 0)
    runs.open_round(TOKEN, 2, expected=["a", "b"], timeout_s=60, reason="go")
    submit_both(runs, store, 2, manifest.global_model.digest)
    aggregate(runs, 2)
    after = Manifest.parse(store.local(manifest_path("r", 2)).read_bytes(), "")
    assert (after.previous, after.trained_from) == (manifest.digest, manifest.global_model.digest)


class Dies(LocalStore):
    """A store whose client ends between the commit and putting the manifest in place."""

    def put(self, ref: ObjectRef, source: Path) -> None:
        if "/manifests/round-" in ref.path:
            raise StoreError("the connection is gone")
        super().put(ref, source)


def test_a_crash_after_the_commit_is_repaired_by_the_coordinator(
    url: str, runs: RunStore, store: ObjectStore, tmp_path: Path
) -> None:
    submit_both(runs, store)
    told: list[str] = []
    set_context(
        WorkerContext(
            runs.redis, url, Dies(tmp_path / "store"), name="worker-2", observer=Lines(told.append, name_runs=True)
        )
    )
    aggregate(runs)
    view = runs.read_round(1)
    assert view is not None
    assert view.state is RoundState.CLOSED
    assert any("its manifest could not be put in place: the connection is gone" in line for line in told)
    archive = Archive(store, "r")
    assert not archive.has(1)
    History(runs, archive, lambda _: None).settle(1, view.manifest)
    assert archive.has(1)
    assert view.manifest is not None
    data = archive.data(1)
    assert data is not None
    assert Manifest.parse(data, "").digest == view.manifest.digest
    store.local(view.manifest.path).unlink()
    History(runs, archive, lambda _: None).settle(1, view.manifest)  # it is there: nothing to do
    store.local(manifest_path("r", 1)).unlink()
    with pytest.raises(ObjectMissing):
        History(runs, archive, lambda _: None).settle(1, view.manifest)


def test_another_round_in_the_store_than_on_redis_is_refused(runs: RunStore, store: ObjectStore) -> None:
    """As after an older Redis went on by itself."""
    submit_both(runs, store)
    aggregate(runs)
    history = History(runs, Archive(store, "r"), lambda _: None)
    history.check()
    forged = ObjectRef("elsewhere", "0" * 64)
    with pytest.raises(StateLost, match="Redis has another round 1"):
        history.settle(1, forged)
    runs.redis.hset(runs.keys.round(1), mapping=forged.to_hash("manifest_"))
    with pytest.raises(StateLost, match="has 1 closed round in the store, but Redis has another round 1"):
        history.check()
    runs.redis.hset(runs.keys.round(1), "state", "open")
    with pytest.raises(StateLost, match="but Redis has 0 closed"):
        history.check()
    runs.redis.delete(runs.keys.state)
    with pytest.raises(StateLost, match="`flavor recover --run r`"):
        history.check()


def test_only_a_manifest_of_the_runs_own_aggregators_tells_another_history(runs: RunStore, store: ObjectStore) -> None:
    """Signed by one of them, it stops the run; by anybody else, the true one is put back, before its hash goes, too."""
    submit_both(runs, store)
    aggregate(runs)
    archive, told = Archive(store, "r"), list[str]()
    path = store.local(manifest_path("r", 1))
    true, view = path.read_bytes(), runs.read_round(1)
    assert view is not None
    changed = Manifest.parse(true, "").model_copy(update={"attempt": 9})

    def put(data: bytes) -> None:
        path.unlink()
        path.write_bytes(data)

    put(changed.signed(SigningKey.generate()).to_bytes())
    History(runs, archive, told.append).check()
    assert path.read_bytes() == true
    assert "another who writes to the store replaced it; it is put back" in told[0]
    put(changed.signed(context().key).to_bytes())
    for look in (
        lambda history: history.check(),
        lambda history: history.settle(1, view.manifest),
    ):
        with pytest.raises(StateLost, match="Redis has another round 1"):
            look(History(runs, archive, told.append))
    put(changed.signed(SigningKey.generate()).to_bytes())
    path.with_name("round-51.json").write_bytes(true)  # the newest, which says how many rounds are kept
    Pruning(runs, store, RunConfig.of_run("r", runs.read().config), told.append).prune(51, ["a", "b"])
    assert path.read_bytes() == true
    assert runs.read_round(1) is None
    assert ["it is put back" in line for line in told] == [True, True]


def test_a_round_that_the_store_has_closed_is_not_aggregated_again(runs: RunStore, store: ObjectStore) -> None:
    """Redis came back older, and a worker was faster than the coordinator in taking up its work."""
    submit_both(runs, store)
    aggregate(runs)
    before = store.local(manifest_path("r", 1)).read_bytes()
    model_before = runs.read().global_model
    runs.redis.hset(runs.keys.round(1), mapping={"state": "aggregating", "attempt": "2"})
    runs.redis.hdel(runs.keys.round(1), "lease", "lease_ms", "closed_ms")
    jobs.aggregate("r", 1, 2)
    view = runs.read_round(1)
    assert view is not None
    assert "closed in the object store, but not on Redis" in (view.error or "")
    assert runs.read().global_model == model_before
    assert store.local(manifest_path("r", 1)).read_bytes() == before


# -- an edge and its key


def test_the_private_key_stays_with_its_edge(bench: Bench) -> None:
    coordinator = bench.serve("--require-signatures", rounds=1, clients=1)
    bench.aggregator()
    edge = bench.edge("edge-1", bench.trainer())
    assert [process.wait() for process in (coordinator, edge)] == [0, 0]
    path = bench.folder / "edge-1" / "client.key"
    public = SigningKey.load(path).public
    assert bench.runs.public_keys() == {"edge-1": str(public)}
    host = bench.runs.clients(["edge-1"])["edge-1"][0].host
    assert host
    joined = f'edge-1 joined with key {public.fingerprint}, by its own account from "{host}"'
    assert joined in coordinator.stderr
    secrets = [line.encode() for line in path.read_text().splitlines() if "-----" not in line]
    assert secrets
    held = [text.encode() for key in bench.redis.scan_iter(f"*{bench.run}*") for text in everything(bench, key)]
    held += [file.read_bytes() for file in bench.store.rglob("*") if file.is_file()]
    held += [process.stdout.encode() + process.stderr.encode() for process in (coordinator, edge)]
    assert not [data for data in held for secret in secrets if secret in data]
    assert any(str(public).encode() in data for data in held)


def everything(bench: Bench, key: str) -> list[str]:
    """The values of a key."""
    kind = bench.redis.type(key)
    read = {
        "string": lambda: [bench.redis.get(key)],
        "hash": lambda: list(bench.redis.hgetall(key).values()),
        "set": lambda: list(bench.redis.smembers(key)),
        "stream": lambda: [json.dumps(fields) for _, fields in bench.redis.xrange(key)],
        "list": lambda: bench.redis.lrange(key, 0, -1),
    }
    return read[kind]() if kind in read else []


def test_an_edge_with_another_key_is_refused_and_told_why(bench: Bench) -> None:
    bench.runs.pin_key("edge-1", str(OTHER.public))
    coordinator = bench.serve(rounds=1, clients=1)
    bench.aggregator()
    edge = bench.edge("edge-1", bench.trainer())
    assert edge.wait() == 1
    coordinator.until("waiting: 0 of at least 1 client is ready; edge-1: its key is ")
    key = SigningKey.load(bench.folder / "edge-1" / "client.key").public.fingerprint
    pinned = OTHER.public.fingerprint
    refused = f"its key is {key}, and this run knows it by key {pinned}: start flavor-fl with the file of that key"
    assert f"edge-1: {refused}" in coordinator.stderr
    assert refused in edge.stderr
    way_on = f"(flavor enroll {bench.run} edge-1 --new-key)"
    assert way_on in coordinator.stderr.splitlines()[-1], "also once the edge has ended for it"
    assert way_on in bench.runs.clients(["edge-1"])["edge-1"][0].reason, "and in what status reads"
    assert "joined" not in coordinator.stderr
    assert bench.runs.members() == []
    assert bench.logged("client.other_key")["client"] == "edge-1"


def test_a_key_that_others_can_read_is_not_used(bench: Bench) -> None:
    key = bench.folder / "open.key"
    SigningKey.load_or_create(key)
    key.chmod(0o644)
    bench.serve(rounds=1, clients=1)
    edge = bench.edge("edge-1", bench.trainer(), "--key", key)
    assert edge.wait() == 2
    assert f"chmod 600 {key}" in edge.stderr
    worker = bench.start("flavor-agg", "--queue", bench.run, "--store", bench.store, "--key", key)
    assert worker.wait() == 2
    assert f"chmod 600 {key}" in worker.stderr


def test_a_worker_that_cannot_keep_a_key_signs_with_a_passing_one(bench: Bench) -> None:
    (bench.folder / "file").write_text("")
    words = ["--queue", bench.run, "--store", bench.store, "--workspace", bench.folder / "file" / "x"]
    worker = bench.start("flavor-agg", *words)
    worker.until("a key that ends with this process signs: keep one with --key")
    worker.until("listens on queue")


def test_models_of_one_round_differ_by_who_contributed(runs: RunStore, store: ObjectStore) -> None:
    """The manifest is about what was aggregated, not about what was handed in afterwards."""
    submit_both(runs, store)
    submit(runs, store, "a", {"w": np.full((2, 3), 9, np.float32), "steps": np.array(7, np.int64)})
    aggregate(runs)
    manifest = Manifest.parse(store.local(manifest_path("r", 1)).read_bytes(), "")
    view = runs.read_round(1)
    assert view is not None
    assert [each.digest for each in manifest.contributors] == [view.inspected(c).object.digest for c in ("a", "b")]
    assert manifest.contributors[0].digest != runs.updates(1, ["a"])["a"].object.digest
