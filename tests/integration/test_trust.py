"""A site that trains from what a trusted aggregator has signed alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from flavor.bus.token import JoinToken
from flavor.ledger.canonical import sha256
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import Manifest
from flavor.records.objects import ObjectRef
from flavor.store.open import open_store
from flavor.store.paths import global_prefix, manifest_path
from tests.conftest import Bench, Process


def failure(bench: Bench, client: str) -> str:
    """What the client's edge tells the operator of why it ended."""
    return bench.runs.clients([client])[client][0].failure


def test_a_site_with_trust_trains_from_signed_models_alone(bench: Bench) -> None:
    """With another key it ends before the second round; with the right one it takes part to the end."""
    signer = bench.folder / "aggregator.key"
    coordinator = bench.serve("--on-quorum-lost", "wait", rounds=3, clients=1)
    bench.aggregator("--key", signer)
    other = SigningKey.generate().public
    wrong = bench.edge("edge-1", bench.trainer(), "--trust", other)
    assert wrong.wait() == 1, wrong.stderr
    last = wrong.stderr.strip().splitlines()[-1]
    assert "Error: the global model of round 1 is not trained from: " in last, wrong.stderr
    assert f"key {SigningKey.load(signer).public.fingerprint}, which --trust does not name" in last
    assert "Traceback" not in wrong.stderr
    assert failure(bench, "edge-1") == "untrusted-model", "and not its store"
    right = bench.edge("edge-1", bench.trainer(), "--trust", other, "--trust", f"{signer}.pub")
    assert [right.wait(), coordinator.wait()] == [0, 0], right.stderr
    assert "could not be placed" not in right.stderr


def test_an_enrolled_site_has_its_key_pinned_before_it_comes_and_its_trust_in_its_token(bench: Bench) -> None:
    """Another's key is turned away with the reason; with its own it trains from the worker's models, and no others."""
    own, other = (SigningKey.load_or_create(bench.folder / f"{name}.key", "edge-1") for name in ("own", "other"))
    worker = SigningKey.load_or_create(bench.folder / "aggregator.key", "aggregator")

    def token(trusted: SigningKey, key: Path) -> str:
        words = [
            "--unsaved",
            bench.run,
            "edge-1",
            "--store",
            bench.store,
            "--public-key",
            key,
            "--trust",
            trusted.public,
        ]
        process = bench.done("flavor", "enroll", *words)
        assert process.wait() == 0, process.stderr
        assert f"edge-1 of run {bench.run}: key {own.public.fingerprint} is pinned" in process.stderr
        found = process.stdout.strip()
        assert JoinToken.parse(found).trust == (str(trusted.public),)
        return found

    def joined(with_token: str, key: str) -> Process:
        words = ["-m", bench.trainer(), "--workspace", bench.folder / "edge-1", "--key", bench.folder / key]
        bus = {"FLAVOR_REDIS_URL": None, "FLAVOR_JOIN": with_token, "TEST_BUS": bench.url}
        return bench.start("flavor-fl", *words, env=bus)

    pinned = bench.folder / "own.key.pub"
    wrong = token(other, pinned)
    coordinator = bench.serve("--on-quorum-lost", "wait", rounds=2, clients=1)
    bench.aggregator("--key", bench.folder / "aggregator.key")
    misled = joined(wrong, "own.key")
    assert misled.wait() == 1, misled.stderr
    assert "Error: the global model of round 1 is not trained from: " in misled.stderr.splitlines()[-1]
    right = token(worker, pinned)
    foreign = joined(right, "other.key")
    assert foreign.wait() == 1, foreign.stderr
    last = foreign.stderr.splitlines()[-1]
    assert f"its key is {other.public.fingerprint}, and this run knows it by key {own.public.fingerprint}" in last
    assert "joined" not in foreign.stderr
    site = joined(right, "own.key")
    assert [site.wait(), coordinator.wait()] == [0, 0], site.stderr
    assert f"joined run {bench.run!r}" in site.stderr
    assert bench.runs.read_round(2).inspected("edge-1").public_key == str(own.public)


def test_a_site_that_does_not_trust_the_final_model_does_not_end_well(bench: Bench) -> None:
    coordinator = bench.serve(rounds=1, clients=1)
    bench.aggregator()
    edge = bench.edge("edge-1", bench.trainer(), "--trust", SigningKey.generate().public)
    assert [coordinator.wait(), edge.wait()] == [0, 1], edge.stderr
    last = edge.stderr.strip().splitlines()[-1]
    assert "is finished, and its final global model could not be placed at" in last
    assert "which --trust does not name" in last


def replaced(bench: Bench, round_: int) -> str:
    """Put a manifest in the place of a round's own that says something else, signed with a key of nobody's."""
    path = bench.store / manifest_path(bench.run, round_)
    found = Manifest.parse(path.read_bytes(), str(path))
    forged = found.model_copy(update={"attempt": found.attempt + 1}).signed(SigningKey.generate())
    new = bench.folder / "forged"
    new.write_bytes(forged.to_bytes())
    os.replace(new, path)
    return forged.digest


def made_up(bench: Bench, site: str) -> None:
    """A manifest for the round that is open, by a site: with its own key, and its own statement on its own update."""
    before = Manifest.parse((bench.store / manifest_path(bench.run, 1)).read_bytes(), "")
    key = SigningKey.load(bench.folder / site / "client.key")
    made = before.model_copy(
        update={"round": 2, "previous": before.digest, "trained_from": before.global_model.digest, "signature": ""}
    )
    contributors = [
        each.model_copy(update={"signature": key.sign(made.statement(each).message())}) if each.client == site else each
        for each in made.contributors
    ]
    forged = made.model_copy(update={"contributors": tuple(contributors)}).signed(key)
    (bench.store / manifest_path(bench.run, 2)).write_bytes(forged.to_bytes())


def test_a_manifest_that_somebody_else_signed_stops_nothing_and_is_put_back(bench: Bench) -> None:
    """In the middle of a round: a site that trusts one key comes, and the coordinator is started again.

    The place of the round that is open has one, too, which a site has made up.
    """
    signer = bench.folder / "aggregator.key"
    key = SigningKey.load_or_create(signer, "aggregator").public
    coordinator = bench.serve("--on-quorum-lost", "wait")
    aggregator = bench.aggregator("--key", signer)
    held = bench.trainer("--hold", "--at", "2")
    edges = [bench.edge(name, held, "--trust", key) for name in ("edge-1", "edge-2")]
    for name in ("edge-1", "edge-2"):
        bench.held(name)
    digest = replaced(bench, 1)
    made_up(bench, "edge-1")
    edges[1].send(signal.SIGTERM)
    edges[1].wait()
    edges[1] = bench.edge("edge-2", held, "--trust", key)
    bench.held("edge-2")  # it has the model of round 1: what was staged says who made it
    coordinator.send(signal.SIGTERM)
    coordinator.wait()
    coordinator = bench.serve("--on-quorum-lost", "wait")
    coordinator.until("another who writes to the store put it there, and it counts for no round; the run goes on")
    coordinator.until("another who writes to the store replaced it; it is put back; the run goes on")
    assert Manifest.parse((bench.store / manifest_path(bench.run, 1)).read_bytes(), "").digest != digest
    assert bench.logged("round.note", round=1)
    bench.release("edge-1", "edge-2")
    assert [process.wait() for process in (coordinator, *edges)] == [0, 0, 0], coordinator.stderr
    assert "round 2: runs/" in aggregator.stderr
    assert "round 2: runs/" in bench.logged("round.note", round=2)["reason"]
    checked = bench.done("flavor", "verify", bench.run, "--store", bench.store, "--trust", f"{signer}.pub")
    assert checked.wait() == 0, checked.stderr


def test_a_file_that_redis_calls_the_signed_model_is_hashed_by_a_site_that_trusts_keys(bench: Bench) -> None:
    """Redis names another file by its seal, with the digest that an aggregator signed: a worker can do it."""
    signer = bench.folder / "aggregator.key"
    key = SigningKey.load_or_create(signer, "aggregator").public
    coordinator = bench.serve("--on-quorum-lost", "wait", rounds=2, clients=1)
    bench.aggregator("--key", signer)
    edge = bench.edge("edge-1", bench.trainer("--hold", "--at", "2"), "--trust", key)
    bench.held("edge-1")
    edge.send(signal.SIGTERM)
    edge.wait()
    store, task = open_store(str(bench.store)), bench.runs.keys.client("edge-1").task(2)
    honest = bench.runs.redis.hgetall(task)
    data = bytearray(store.local(honest["global_path"]).read_bytes())
    data[-4:] = np.float32(666).tobytes()
    other = f"{global_prefix(bench.run, 1)}model-{'f' * 16}.safetensors"
    with store.stage() as staged:
        staged.write_bytes(data)
        store.put(ObjectRef(other, sha256(bytes(data))), staged)
    bench.runs.redis.hset(task, mapping={"global_path": other, "global_seal": store.seal(other)})
    misled = bench.edge("edge-1", bench.trainer(), "--trust", key)
    assert misled.wait() == 1, misled.stderr
    assert f"object {other}: the bytes are not those that were recorded" in misled.stderr.splitlines()[-1]
    assert failure(bench, "edge-1") == "refused-object"
    bench.runs.redis.hset(task, mapping=honest)
    edge = bench.edge("edge-1", bench.trainer(), "--trust", key)
    assert [edge.wait(), coordinator.wait()] == [0, 0], edge.stderr


def test_what_is_no_manifest_stops_nothing_and_is_named(bench: Bench) -> None:
    """Somebody who can write to the store puts two bytes where the manifests of this round and the next will lie."""
    coordinator = bench.serve(rounds=2, clients=1)
    bench.aggregator()
    edge = bench.edge("edge-1", bench.trainer("--hold", "--at", "1"))
    bench.held("edge-1")
    for round_ in (1, 2):
        path = bench.store / manifest_path(bench.run, round_)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    bench.release("edge-1")
    assert [edge.wait(), coordinator.wait()] == [0, 0], coordinator.stderr
    for round_ in (1, 2):
        place = manifest_path(bench.run, round_)
        told = f"round {round_}: {place} was not the manifest that its aggregator has signed: another who writes to"
        assert told in coordinator.stderr
    found = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert found.wait() == 0, found.stderr
