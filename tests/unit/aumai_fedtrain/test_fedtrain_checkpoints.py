"""Between the edges' files and the coordinator's vectors: exact in both directions, whatever the types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from aumai_fedtrain import checkpoints
from aumai_fedtrain.checkpoints import put_initial, put_round, read_parameters, read_state, read_updates
from aumai_fedtrain.models import GlobalState, OuterState, Reports
from flavor.checkpoints import TensorFile, TensorFileWriter, TensorSpec
from flavor.errors import AggregationError, CheckpointError, DigestMismatch, StoreError, UpdatesRefused
from flavor.records.info import CONFUSION
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.states import RoundState
from flavor.store.open import open_store
from flavor.store.paths import named, update_prefix
from flavor.store.protocol import ObjectStore
from tests.infos import put_info
from tests.recorded import accepted, global_model

SIZES = {"a": 100, "b": 300}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "w32": rng.normal(size=(3, 4)).astype(np.float32),
        "w64": rng.normal(size=5),
        "w16": rng.normal(size=(2,)).astype(np.float16),
        "wb": rng.normal(size=(2, 2)).astype(ml_dtypes.bfloat16),
        "scale": np.array(rng.normal(), np.float32),
        "steps": np.array(10 * seed, np.int64),
        "mask": rng.random(4) < 0.5,
        "empty": np.zeros((0, 3), np.float32),
    }


FLOATS = ("w32", "w64", "w16", "wb", "scale", "empty")


def put(store: ObjectStore, prefix: str, values: Mapping[str, np.ndarray]) -> tuple[str, str, int]:
    with store.stage() as staged:
        specs = [TensorSpec(name, array.dtype, array.shape) for name, array in values.items()]
        with TensorFileWriter(staged, specs) as writer:
            for spec in writer.specs:
                writer.write(spec.name, values[spec.name])
        path = named(prefix, "update", writer.sha256, ".safetensors")
        store.put(ObjectRef(path, writer.sha256), staged)
    return path, writer.sha256, writer.size_bytes


def a_round(
    store: ObjectStore,
    updates: Mapping[str, Mapping[str, np.ndarray]],
    number: int = 3,
    constants: tuple[str, ...] = (),
) -> RoundView:
    verdicts = {}
    for client, values in updates.items():
        path, digest, size = put(store, update_prefix("r", number, client), values)
        info = {
            "metadata": {"epoch": number, "datasetSize": SIZES[client], "importance": 1.0},
            "metrics": {**dict.fromkeys(CONFUSION, -1), **({"loss": 0.25} if client == "a" else {})},
        }
        told = put_info(store, update_prefix("r", number, client), info)
        of_info = {"info_path": told["info_path"], "info_digest": told["info_digest"]}
        verdicts[client] = accepted(
            path=path,
            digest=digest,
            size_bytes=size,
            seal=store.seal(path),
            format="pickle",
            num_examples=SIZES[client],
            constants=constants,
            **of_info,
        ).to_json()
    fields = {
        "state": RoundState.AGGREGATING,
        "expected": json.dumps(list(updates)),
        "contributors": json.dumps(list(updates)),
        **dict.fromkeys(("opened_ms", "deadline_ms", "attempt"), "1"),
    }
    return RoundView.from_hash(number, fields, verdicts)


def base(store: ObjectStore, values: Mapping[str, np.ndarray]) -> GlobalModel:
    path, digest, size = put(store, "runs/r/global/0002-", values)
    return global_model(path, digest, size, info=("i.json", ""), format="pickle", seal=store.seal(path))


def test_updates_are_the_float_tensors_or_their_exact_differences(store: ObjectStore) -> None:
    start, local = tensors(1), tensors(2)
    round_ = a_round(store, {"a": local, "b": start})
    as_they_are, other = read_updates(store, round_, None, Reports.WEIGHTS, loss_metric="loss")
    assert (as_they_are.node_id, as_they_are.round_id, as_they_are.samples_used) == ("a", 3, 100)
    assert (as_they_are.loss, other.loss) == (0.25, None)
    assert set(as_they_are.gradients) == set(FLOATS)
    for name in FLOATS:
        np.testing.assert_array_equal(as_they_are.gradients[name], local[name])
    differences, none = read_updates(store, round_, base(store, start), Reports.PSEUDOGRADIENTS, loss_metric="loss")
    for name in FLOATS:
        expected = start[name].astype(np.float64) - local[name].astype(np.float64)  # old minus new
        np.testing.assert_array_equal(differences.gradients[name], expected)
        assert not np.any(none.gradients[name])
    with pytest.raises(AggregationError, match="no global model yet"):
        read_updates(store, round_, None, Reports.PSEUDOGRADIENTS, loss_metric="loss")


@pytest.mark.parametrize("sealed", [True, False])
def test_an_update_that_was_changed_is_found(store: ObjectStore, sealed: bool) -> None:
    round_ = a_round(store, {"a": tensors(1), "b": tensors(2)})
    file = store.local(round_.inspected("b").object.path)
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DigestMismatch, match="not those that were recorded"):
        read_updates(store, round_, None, Reports.WEIGHTS, loss_metric="loss")
    with pytest.raises(DigestMismatch):
        put_round(store, "r", round_, GlobalState(round_id=3, global_weights={n: tensors(1)[n] for n in FLOATS}))


def weights(seed: int) -> dict[str, np.ndarray]:
    """A coordinator's weights: float64, with more digits than the checkpoint's types have."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=tensors(1)[name].shape) for name in sorted(FLOATS)}


@pytest.mark.parametrize("as_lists", [False, True])
def test_a_state_comes_back_as_the_same_bits(store: ObjectStore, as_lists: bool) -> None:
    outer = OuterState(step="nesterov", rounds=2, tensors={f"momentum/{n}": w for n, w in weights(5).items()})
    state = GlobalState(
        round_id=3,
        global_weights=weights(4),
        participating_nodes=["a", "b"],
        avg_loss=0.1 + 0.2,
        expects=Reports.PSEUDOGRADIENTS,
        outer_state=outer,
        credits={"a": 300, "b": 900},
    )
    if as_lists:
        state = GlobalState.model_validate_json(state.model_dump_json())
    round_ = a_round(store, {"a": tensors(1), "b": tensors(2)})
    model = put_round(store, "r", round_, state)
    assert read_state(store, model) == state
    assert model.format == "pickle"

    file = TensorFile.open(store.local(model.model.path))
    for name in FLOATS:
        found = file.tensor(name)
        assert (found.dtype, found.shape) == (tensors(1)[name].dtype, tensors(1)[name].shape)
        np.testing.assert_array_equal(found, weights(4)[name].astype(found.dtype))
    assert int(file.tensor("steps")) == round((100 * 10 + 300 * 20) / 400)
    np.testing.assert_array_equal(file.tensor("mask"), tensors(2)["mask"])  # it has three quarters of the samples
    info = json.loads(store.local(model.info.path).read_text())
    assert info["metadata"]["datasetSize"] == [100, 300]


def test_a_state_without_memory_needs_no_second_copy_of_the_weights(store: ObjectStore) -> None:
    exact = {name: tensors(7)[name] for name in FLOATS}
    state = GlobalState(round_id=3, global_weights=dict(sorted(exact.items())))
    model = put_round(store, "r", a_round(store, {"a": tensors(1), "b": tensors(2)}), state)
    assert read_state(store, model) == state
    assert TensorFile.open(store.local(model.state.path)).names == ()


def test_what_cannot_be_written_is_refused_and_nothing_is_put(store: ObjectStore) -> None:
    round_ = a_round(store, {"a": tensors(1), "b": tensors(2)})
    large = {**weights(1), "w16": np.array([1e6, 0.0])}
    with pytest.raises(CheckpointError, match="'w16' is too large for float16"):
        put_round(store, "r", round_, GlobalState(round_id=3, global_weights=large))
    large = {**weights(1), "w64": np.full_like(weights(1)["w64"], 1e155)}  # no update with it would be accepted
    with pytest.raises(CheckpointError, match="'w64' is too large for float64"):
        put_round(store, "r", round_, GlobalState(round_id=3, global_weights=large))
    lacking = {name: w for name, w in weights(1).items() if name != "w64"}
    with pytest.raises(AggregationError, match="has no 'w64'"):
        put_round(store, "r", round_, GlobalState(round_id=3, global_weights=lacking))
    other = {**weights(1), "w64": np.zeros(6)}
    with pytest.raises(AggregationError, match="'w64' has shape"):
        put_round(store, "r", round_, GlobalState(round_id=3, global_weights=other))
    assert not list(Path(store.url.removeprefix("file://")).glob("runs/r/global/0003-*"))


def test_initial_weights_are_a_model_of_round_0(store: ObjectStore) -> None:
    model = put_initial(
        store, "r", GlobalState(round_id=0, global_weights={"l": [[1, 2]], "a": tensors(1)["w64"]}).global_weights
    )
    file = TensorFile.open(store.local(model.model.path))
    assert (file.dtype("l"), file.dtype("a")) == (np.float32, np.float64)
    state = read_state(store, model)
    assert (state.round_id, state.outer_state) == (0, None)
    np.testing.assert_array_equal(state.global_weights["l"], [[1, 2]])


def test_a_run_of_another_coordinator_is_told_apart(store: ObjectStore) -> None:
    with pytest.raises(StoreError, match="was not coordinated by aumai_fedtrain"):
        read_state(store, base(store, tensors(1)))
    path, digest, _ = put(store, "runs/r/global/0002-", {"momentum/w": np.zeros(3)})
    foreign = replace(base(store, tensors(1)), state=ObjectRef(path, digest))
    with pytest.raises(StoreError, match="no state of aumai_fedtrain"):
        read_state(store, foreign)


@pytest.mark.parametrize(
    "fields",
    [
        *("", "{", "[]", "7", "null", '"x"', "{}", '{"round_id": 1}', "[1]"),
        '{"round_id": "x", "outer_state": null}',
        '{"round_id": 1, "outer_state": 7}',
        '{"round_id": 1, "outer_state": {}}',
        '{"round_id": 1, "outer_state": {"tensors": {}}}',
        '{"round_id": 1, "outer_state": null, "global_weights": {}}',
    ],
)
def test_a_state_that_is_damaged_is_told(store: ObjectStore, fields: str) -> None:
    """Of a run that another program has coordinated, or with a digest that somebody has made up for it."""
    with store.stage() as staged:
        with TensorFileWriter(staged, [], {checkpoints._STATE_KEY: fields}) as writer:
            pass
        ref = ObjectRef(f"runs/r/global/0002-state-{writer.sha256}.safetensors", writer.sha256)
        store.put(ref, staged)
    with pytest.raises(StoreError, match="no state of aumai_fedtrain"):
        read_state(store, replace(base(store, tensors(1)), state=ref))


BIAS = np.array([[0, -np.inf], [0, 0]], np.float32)
HUGE = np.array([0, np.finfo(np.float32).min], np.float32)


def test_constant_buffers_with_infinities_are_no_parameters_and_stay_as_they_are(store: ObjectStore) -> None:
    buffers = {"attn.bias": BIAS, "attn.low": HUGE}
    start = base(store, tensors(1) | buffers)
    round_ = a_round(store, {"a": tensors(2) | buffers, "b": tensors(3) | buffers}, constants=tuple(buffers))
    for expects in Reports:
        for update in read_updates(store, round_, start, expects, loss_metric="loss"):
            assert set(update.gradients) == set(FLOATS)
    state = GlobalState(round_id=3, global_weights=weights(4))
    model = put_round(store, "r", round_, state)
    file = TensorFile.open(store.local(model.model.path))
    assert all(file.tensor(name).tolist() == buffer.tolist() for name, buffer in buffers.items())
    assert read_state(store, model) == state  # what goes on from it has no infinities either
    assert set(read_parameters(store, start)) == set(FLOATS)


def test_a_constant_buffer_that_is_another_at_one_node_refuses_its_update(store: ObjectStore) -> None:
    other = np.array([[0, -np.inf], [-np.inf, 0]], np.float32)
    round_ = a_round(store, {"a": {"m": BIAS}, "b": {"m": other}}, constants=("m",))
    with pytest.raises(UpdatesRefused) as refused:
        read_updates(store, round_, base(store, {"m": BIAS}), Reports.WEIGHTS, loss_metric="loss")
    assert refused.value.refused.keys() == {"b"}


def test_numbers_that_no_update_may_have_are_one_line(store: ObjectStore) -> None:
    round_ = a_round(store, {"a": {"m": np.zeros((2, 2), np.float32)}})
    with pytest.raises(AggregationError, match=r"^the update of node 'a' cannot be used: gradients.m: value 1 is -inf"):
        read_updates(store, round_, base(store, {"m": BIAS}), Reports.PSEUDOGRADIENTS, loss_metric="loss")
