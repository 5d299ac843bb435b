"""Runs whose edges send their change in fewer bits: the same result, fewer bytes; and updates that lie."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.checkpoints import Encoding, TensorFile, TensorFileWriter, TensorSpec, encode
from flavor.config import RunConfig
from flavor.ledger.archive import Archive
from flavor.ledger.manifest import Model, RunRecord
from flavor.records.info import CONFUSION
from flavor.records.objects import ObjectRef
from flavor.records.verdict import Verdict
from flavor.store.digests import sha256_file
from flavor.store.open import open_store
from flavor.store.paths import global_prefix, named, update_prefix
from flavor.store.protocol import ObjectStore
from tests.conftest import Bench
from tests.infos import put_info
from tests.recorded import global_model
from workers import jobs
from workers.context import WorkerContext, set_context

STEP = (10 * 1 + 20 * 2) / 30
"""What a round of the toy trainers 1 and 2 adds to every weight."""

WIDE = """
import os, sys
import numpy as np
from safetensors.numpy import load_file, save_file
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

who = int(os.environ["FLAVOR_CLIENT"].rpartition("-")[2])
SetEvent("TrainInitDone")
for _ in range(int(os.environ["TOTAL_ROUNDS"])):
    round_ = WaitEvent("TrainStarted")
    path = os.environ["GLOBAL_MODEL_PATH"]
    state = dict(load_file(path)) if os.path.exists(path) else {"w": np.zeros(200_000, np.float32)}
    change = np.random.default_rng([who, round_]).normal(size=200_000).astype(np.float32)
    save_file({"w": state["w"] + change}, os.environ["LOCAL_MODEL_PATH"])
    info = {"metadata": {"epoch": round_, "datasetSize": 10, "importance": 1.0},
            "metrics": {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}}
    SaveInfoJson(info)
    SetEvent("TrainFinished")
"""


def federate(bench: Bench, command: str, *options: object, rounds: int = 3, edges: int = 2) -> dict[str, Any]:
    words = ["--run", bench.run, "--out", bench.folder / "out", "--edges", edges, "--rounds", rounds, "--json"]
    process = bench.done("flavor", "run", "-m", command, *words, *options)
    assert process.wait() == 0, process.stderr
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def final(bench: Bench, round_: int) -> dict[str, np.ndarray]:
    file = TensorFile.open(bench.folder / "out" / "global" / f"round-{round_:04d}.safetensors")
    return {name: file.tensor(name) for name in file.names}


@pytest.mark.parametrize("compress", ["none", "bf16", "int8"])
def test_a_run_ends_where_it_would_uncompressed(bench: Bench, compress: str) -> None:
    """With a site of each format, whose checkpoints are read, encoded and written again by its own edge."""
    formats = {"edge-1": "pickle", "edge-2": "npz", "edge-3": "safetensors"}
    words = ",".join(f"{client}:{format_}" for client, format_ in formats.items())
    federate(bench, bench.trainer("--format", words), "--compress", compress, edges=3)
    step = (10 * 1 + 20 * 2 + 30 * 3) / 60
    for array in final(bench, 3).values():
        np.testing.assert_allclose(array, 3 * step, rtol=1e-6)  # a change that is the same everywhere is exact in each
    accepted = [entry for entry in bench.log() if entry["event"] == "update.accepted"]
    for client in formats:
        reasons = [entry["reason"] for entry in accepted if entry["client"] == client]
        assert len(reasons) == 3
        assert sum(f"bytes of {compress}" in reason for reason in reasons) == (0 if compress == "none" else 2)
        handed = bench.folder / "out" / "clients" / client
        assert (handed / "global" / "model.ckpt").exists()


@pytest.mark.parametrize(("compress", "times", "error"), [("none", 1, 0), ("bf16", 2, 0.02), ("int8", 3.99, 0.06)])
def test_a_round_sends_that_many_times_fewer_bytes(bench: Bench, compress: str, times: float, error: float) -> None:
    script = bench.folder / "wide.py"
    script.write_text(WIDE)
    result = federate(bench, f"{sys.executable} {script}", "--compress", compress, "--aggregator", "diloco")
    whole = 2 * 4 * 200_000
    sizes = [round_["bytes"] for round_ in result["rounds"]]
    assert sizes[0] / whole == pytest.approx(1, rel=1e-3)  # there is no global model yet that it could differ from
    for size in sizes[1:]:
        assert whole / size == pytest.approx(times, rel=4e-3)
    mean = [
        np.mean([np.random.default_rng([who, r]).normal(size=200_000) for who in (1, 2)], axis=0) for r in (1, 2, 3)
    ]
    expected = mean[0] + 0.7 * (1.9 * mean[1]) + 0.7 * (0.9 * 0.9 * mean[1] + 1.9 * mean[2])
    np.testing.assert_allclose(final(bench, 3)["w"], expected, atol=1e-5 + error)


def test_a_run_from_pretrained_weights_compresses_its_first_round(bench: Bench) -> None:
    start = {"w": np.ones((3, 2), np.float32), "b": np.zeros(4, np.float32)}
    np.savez(bench.work / "start.npz", **start)
    options = ["--compress", "int8", "--init-model", bench.work / "start.npz"]
    federate(bench, bench.trainer("--format", "npz"), *options, rounds=1)
    accepted = [entry["reason"] for entry in bench.log() if entry["event"] == "update.accepted"]
    assert all("bytes of int8" in reason for reason in accepted)
    np.testing.assert_allclose(final(bench, 1)["w"], 1 + STEP, rtol=1e-6)


def test_an_edge_says_itself_what_it_cannot_encode(bench: Bench) -> None:
    command = bench.trainer("--fail", "nan,shape", "--only", "edge-2")
    words = ["--run", bench.run, "--out", bench.folder / "out", "--edges", 2, "--rounds", 4, "--quorum", 1]
    process = bench.done("flavor", "run", "-m", command, *words, "--compress", "int8")
    assert process.wait() == 0, process.stderr
    log = (bench.folder / "out" / "logs" / "edge-2.log").read_text()
    assert "round 2: the update cannot be used: tensor 'w' has NaN or infinite values" in log
    assert "round 3: the update cannot be used: tensor 'w' has shape (7, 2); the global model has (3, 2)" in log
    assert "Traceback" not in log


def test_status_shows_what_is_sent(bench: Bench) -> None:
    script = bench.folder / "wide.py"
    script.write_text(WIDE)
    bench.serve("--compress", "int8", rounds=2, clients=1)
    bench.aggregator()
    edge = bench.edge("c-1", f"{sys.executable} {script}")
    assert edge.wait() == 0, edge.stderr
    bench.logged("run.finished")
    found = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    assert 200_000 < found["clients"]["c-1"]["update_bytes"] < 201_000
    assert "200." in bench.done("flavor", "status", bench.run).stdout


# -- updates that lie


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


THETA = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(7, np.int64)}


def put(store: ObjectStore, prefix: str, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> tuple[str, Any]:
    with store.stage() as staged:
        specs = [TensorSpec(name, array.dtype, array.shape) for name, array in tensors.items()]
        with TensorFileWriter(staged, specs, metadata) as writer:
            for spec in writer.specs:
                writer.write(spec.name, tensors[spec.name])
        path = named(prefix, "update", writer.sha256, ".safetensors")
        store.put(ObjectRef(path, writer.sha256), staged)
    return path, writer


@pytest.fixture
def runs(url: str, store: ObjectStore, request: pytest.FixtureRequest) -> Iterator[RunStore]:
    """A run in its open first round, with a global model and the client a."""
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    config = RunConfig(rounds=3, compress=getattr(request, "param", "int8"), store=store.url)
    path, writer = put(store, global_prefix("r", 0), THETA, {})
    initial = global_model(path, writer.sha256, writer.size_bytes, format="npz", seal=store.seal(path))
    record = RunRecord(run="r", run_id="0" * 32, rounds=3, config=config.to_mapping(), initial=Model.of(initial))
    Archive(store, "r").begin(record)
    runs.create(rounds=3, config=config.to_mapping(), initial=initial, run_id=record.run_id)
    redis.set(runs.keys.coordinator, "coordinator")
    runs.open_round("coordinator", 1, expected=["a"], timeout_s=60, reason="go")
    set_context(WorkerContext(redis, url, store, name="worker-1"))
    yield runs
    set_context(None)
    redis.close()


def verdict(runs: RunStore, store: ObjectStore, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> Verdict:
    path, writer = put(store, update_prefix("r", 1, "a"), tensors, metadata)
    info = {"metadata": {"epoch": 1, "datasetSize": 5, "importance": 1.0}, "metrics": dict.fromkeys(CONFUSION, -1)}
    fields = {"path": path, "digest": writer.sha256, "size": str(writer.size_bytes)}
    fields |= put_info(store, update_prefix("r", 1, "a"), info)
    runs.redis.hset(runs.keys.client("a").update(1), mapping=fields | {"format": "npz"})
    jobs.inspect("r", 1, ["a"])
    view = runs.read_round(1)
    assert view is not None
    found = view.verdicts["a"]
    assert "\n" not in found.reason
    return found


def encoding(runs: RunStore, **changes: Any) -> dict[str, str]:
    model = runs.read().global_model
    assert model is not None
    return {"flavor.encoding": json.dumps({"kind": "int8", "block": 4, "base": model.model.digest} | changes)}


def encoded(**changes: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "w": np.ones((2, 3), np.int8),
        "flavor.scale/w": np.ones(2, np.float32),
        "steps": np.array(8, np.int64),
    } | changes


def test_a_good_one_is_accepted_and_aggregated(runs: RunStore, store: ObjectStore) -> None:
    found = verdict(runs, store, encoded(), encoding(runs))
    assert found.accepted, found.reason
    assert "bytes of int8" in found.reason
    runs.begin_aggregation("coordinator", 1, attempt=1, contributors=["a"], reason="all")
    jobs.aggregate("r", 1, 1)
    model = runs.read().global_model
    assert model is not None
    file = TensorFile.open(store.local(model.model.path))
    assert file.metadata == {}
    assert file.names == ("w", "steps")
    np.testing.assert_array_equal(file.tensor("w"), THETA["w"] - 1)
    assert file.tensor("steps") == 8


def test_one_that_came_whole_is_accepted_too(runs: RunStore, store: ObjectStore) -> None:
    assert verdict(runs, store, THETA, {}).accepted


@pytest.mark.parametrize(
    ("tensors", "changes", "said"),
    [
        ({}, {"base": "0" * 64}, "a difference to another global model (SHA-256 000000000000…) than this round's"),
        ({}, {"kind": "bf16"}, "the update is compressed to bf16; this run has --compress int8"),
        ({}, {"block": 0}, "block is 0; it is an integer from 1 to"),
        ({}, {"block": 3_000_000}, "block is 3000000"),
        ({}, {"block": 2}, "tensor 'flavor.scale/w' has shape (2,); an int8 update of the global model has (3,)"),
        ({"flavor.scale/w": np.ones(5, np.float32)}, {}, "tensor 'flavor.scale/w' has shape (5,)"),
        ({"flavor.scale/w": np.array([1, np.nan], np.float32)}, {}, "'flavor.scale/w' has NaN or infinite values"),
        (
            {"flavor.scale/w": np.array([1, 3.4e38], np.float32), "w": np.full((2, 3), -127, np.int8)},
            {},
            "tensor 'w' has",
        ),
        ({"w": np.ones(6, np.int8)}, {}, "tensor 'w' has shape (6,)"),
        ({"w": np.ones((2, 3), np.float32)}, {}, "tensor 'flavor.scale/w' is not in an int8 update"),
        ({"steps": np.array(8, np.int32)}, {}, "tensor 'steps' is int32; an int8 update of the global model has int64"),
        ({"more": np.ones(1, np.float32)}, {}, "tensor 'more' is not in"),
    ],
)
def test_one_that_lies_is_refused(
    runs: RunStore, store: ObjectStore, tensors: dict[str, np.ndarray], changes: dict[str, Any], said: str
) -> None:
    found = verdict(runs, store, encoded(**tensors), encoding(runs, **changes))
    assert not found.accepted
    assert said in found.reason


@pytest.mark.parametrize("runs", ["none"], indirect=True)
def test_a_run_that_does_not_compress_takes_none(runs: RunStore, store: ObjectStore) -> None:
    assert "this run has --compress none" in verdict(runs, store, encoded(), encoding(runs)).reason


def test_one_encoded_against_the_model_before_is_refused(runs: RunStore, store: ObjectStore, tmp_path: Path) -> None:
    old, _ = put(store, global_prefix("r", 8), {**THETA, "w": THETA["w"] + 1}, {})
    local, _ = put(store, global_prefix("r", 9), {**THETA, "w": THETA["w"] + 2}, {})
    base = TensorFile.open(store.local(old))
    sha, _ = sha256_file(store.local(old))
    encode(store.local(local), tmp_path / "update", base, Encoding("int8", sha))
    file = TensorFile.open(tmp_path / "update")
    tensors = {name: np.array(file.tensor(name)) for name in file.names}
    assert "another global model" in verdict(runs, store, tensors, file.metadata).reason
