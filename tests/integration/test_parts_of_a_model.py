"""Runs that share a part of the model: the other tensors stay at their site, through restarts, and are nowhere else."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np

from flavor.checkpoints import TensorFile, read
from flavor.ledger.archive import Archive
from flavor.store.local import LocalStore
from tests.conftest import Bench

OWN, ELEMENTS = 54321.5, 60_000
"""The number with which the own tensor of each site begins, as it appears nowhere else, and the size of the shared."""
SHARED_BYTES = 4 * ELEMENTS
STEP = (10 * 1 + 20 * 2) / 30
"""What a round of the toy trainers 1 and 2 adds to every shared weight."""


def trainer(bench: Bench, *flags: object) -> str:
    return bench.trainer("--own", OWN, "--elements", ELEMENTS, *flags)


def whole(bench: Bench, client: str) -> dict[str, np.ndarray]:
    """The model with which a site ends, in its script's format."""
    return read(bench.folder / client / "global" / "model.ckpt").tensors


def ready(bench: Bench, client: str) -> None:
    key = bench.runs.keys.client(client).hash
    bench.eventually(f"{client} is ready", lambda: bench.redis.hget(key, "state") == "ready")


def status(bench: Bench) -> dict:
    told = bench.done("flavor", "status", bench.run, "--json")
    assert told.wait() == 0, told.stderr
    return json.loads(told.stdout)


def updates(store: Path) -> list[Path]:
    return list((store / "runs").glob("*/accepted/*-update-*"))


def test_tensors_that_are_not_shared_stay_at_their_site_through_a_kill(bench: Bench, subtests) -> None:
    formats = "c1:npz,c2:safetensors"
    coordinator = bench.serve("--local", "b", "--keep-rounds", 0, "--on-quorum-lost", "wait")
    bench.aggregator()
    one = bench.edge("c1", trainer(bench, "--format", formats, "--hold", "--only", "c1"))
    two = bench.edge("c2", trainer(bench, "--format", formats))
    bench.held("c1")
    one.send(signal.SIGKILL)
    one.wait()
    late = bench.edge("c3", trainer(bench))
    early = bench.edge("c4", trainer(bench, "--early"))
    for client in ("c3", "c4"):
        ready(bench, client)
    one = bench.edge("c1", trainer(bench, "--format", formats))
    for program in (coordinator, one, two, early):
        assert program.wait() == 0, program.stderr

    last = (10 * 1 + 20 * 2 + 40 * 4) / 70
    for number, client, rounds in ((1, "c1", 3), (2, "c2", 3), (4, "c4", 1)):
        with subtests.test("the file at the end is whole", client=client):
            model = whole(bench, client)
            np.testing.assert_array_equal(model["b"], np.full(4, OWN + rounds * number, np.float32))
            np.testing.assert_allclose(model["w"], 2 * STEP + last, rtol=1e-6)
    with subtests.test("a site without such tensors is told what to do, and the run why it left"):
        assert late.wait() != 0
        assert "this site has none of the other tensors: have the script save its initial model to" in late.stderr
        assert "begin the run with --init-model" in bench.logged("client.lost", client="c3")["reason"]
    with subtests.test("the store has no trace of them"):
        found = [path.read_bytes() for path in bench.store.rglob("*") if path.is_file()]
        assert len(found) > 10
        for added in range(7):
            assert not any(np.float32(OWN + added).tobytes() in data for data in found)
    with subtests.test("bytes on the wire"):
        sizes = [path.stat().st_size for path in updates(bench.store)]
        assert len(sizes) == 7
        assert max(sizes) <= 1.01 * SHARED_BYTES
    with subtests.test("the manifest and the status say how much is shared"):
        manifest = Archive(LocalStore(bench.store), bench.run).manifest(1)
        assert manifest is not None
        assert (manifest.global_model.tensors, manifest.global_model.whole) == (1, None)
        size = manifest.global_model.size_bytes
        assert size <= 1.01 * SHARED_BYTES
        assert status(bench)["shares"] == {"share": [], "local": ["b"], "tensors": 1, "bytes": size}
        shown = bench.done("flavor", "status", bench.run)
        assert "shares: 1 tensor of the model, 240.1 kB (--local 'b')" in shown.stdout
        verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
        assert verified.wait() == 0, verified.stdout
    with subtests.test("whole models are at the sites alone"):
        got = bench.done("flavor", "get", bench.run, "--whole", "--store", bench.store)
        assert got.wait() == 1
        assert "began without --init-model, so that only its sites have the other tensors" in got.stderr


def test_a_frozen_base_is_sent_once_and_a_site_that_comes_late_has_it(bench: Bench, subtests, tmp_path: Path) -> None:
    start = {"w": np.zeros((ELEMENTS // 2, 2), np.float32), "b": np.full(4, 7, np.float32)}
    np.savez(tmp_path / "init.npz", **start)
    options = ("--share", "w", "--init-model", tmp_path / "init.npz", "--compress", "int8")
    coordinator = bench.serve(*options)
    bench.aggregator()
    bench.logged("run.created")
    assert status(bench)["shares"]["tensors"] == 1, "before any round"
    one = bench.edge("c1", trainer(bench, "--format", "npz", "--hold"))
    two = bench.edge("c2", trainer(bench, "--format", "npz"))
    bench.held("c1")
    late = bench.edge("c3", trainer(bench, "--format", "npz"))
    ready(bench, "c3")
    bench.release("c1")
    for program in (coordinator, one, two, late):
        assert program.wait() == 0, program.stderr

    with subtests.test("the operator is told once what the sites are told"):
        warned = [(each["client"], each["reason"]) for each in bench.log() if each["event"] == "client.warned"]
        assert sorted(client for client, _ in warned) == ["c1", "c2", "c3"]
        assert "its script trains tensors that stay at the site" in warned[0][1]
        assert status(bench)["clients"]["c1"]["warning"] in warned[0][1]
    for number, client, rounds in ((1, "c1", 3), (2, "c2", 3), (3, "c3", 1)):
        with subtests.test("it began with the tensors of the initial model", client=client):
            np.testing.assert_array_equal(whole(bench, client)["b"], np.full(4, 7 + rounds * number, np.float32))
    record = Archive(LocalStore(bench.store), bench.run).beginning()
    assert record is not None
    assert record.initial is not None
    assert record.initial.whole is not None
    base = record.initial.whole.size_bytes
    with subtests.test("the whole model is fetched once"):
        received = int(bench.redis.hget(bench.runs.keys.client("c1").hash, "received"))
        assert base + 3 * SHARED_BYTES < received < base + 4 * 1.02 * SHARED_BYTES, "with the last model, or without"
    with subtests.test("a whole model for the operator has the tensors of the initial one"):
        got = bench.done("flavor", "get", bench.run, "--whole", "--store", bench.store, "-o", tmp_path / "got.npz")
        assert got.wait() == 0, got.stderr
        assert "the tensors that the run does not share (--share 'w') are those of --init-model" in got.stderr
        made = read(tmp_path / "got.npz").tensors
        assert list(made) == ["w", "b"]
        np.testing.assert_array_equal(made["b"], start["b"])
        newest = TensorFile.open(next((bench.store / "runs" / bench.run / "global").glob("0003-model-*")))
        np.testing.assert_array_equal(made["w"], newest.tensor("w"))
    with subtests.test("a run that was rebuilt knows it"):
        before = bench.runs.read()
        bench.redis.flushdb()
        again = bench.done("flavor", "recover", "--run", bench.run, "--untrusted", "--store", bench.store)
        assert again.wait() == 0, again.stderr
        after = bench.runs.read()
        assert after.whole == before.whole is not None
        assert after.global_model is not None
        assert before.global_model is not None
        assert after.global_model.tensors == before.global_model.tensors == 1
