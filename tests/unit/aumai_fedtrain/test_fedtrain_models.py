"""The numbers of updates and states: what is taken, what is refused, and that they survive JSON as the same bits."""

from __future__ import annotations

import copy
import json
import math
import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import aumai_fedtrain
import flavor
from aumai_fedtrain import FederatedNode, GlobalState, LocalUpdate, OuterState, Reports, TrainingConfig, TrainingResult
from aumai_fedtrain.vectors import Vector, as_array

CONFIG = {
    "model_name": "m",
    "learning_rate": 0.001,
    "batch_size": 32,
    "local_steps": 10,
    "global_rounds": 5,
    "num_nodes": 3,
}


def update(gradients: object, **fields: object) -> LocalUpdate:
    return LocalUpdate.model_validate(
        {"node_id": "n", "round_id": 1, "gradients": gradients, "loss": 0.5, "samples_used": 1, **fields}
    )


def test_what_the_package_offers() -> None:
    assert set(aumai_fedtrain.__all__) >= {
        *("FederatedNode", "TrainingConfig", "LocalUpdate", "GlobalState", "TrainingResult", "GradientAverager"),
        *("HashVerifier", "CreditTracker", "DiLoCoCoordinator", "UpdateProvider", "BusUpdateProvider", "__version__"),
    }
    assert all(getattr(aumai_fedtrain, name) is not None for name in aumai_fedtrain.__all__)
    assert aumai_fedtrain.__version__ == flavor.__version__
    for module, names in {
        "models": ("FederatedNode", "TrainingConfig", "LocalUpdate", "GlobalState", "TrainingResult"),
        "core": ("GradientAverager", "HashVerifier", "CreditTracker", "DiLoCoCoordinator", "UpdateProvider"),
        "cli": ("main",),
    }.items():
        loaded = __import__(f"aumai_fedtrain.{module}", fromlist=names)
        for name in names:
            assert getattr(loaded, name) is getattr(aumai_fedtrain, name, getattr(loaded, name))
    with pytest.raises(AttributeError, match="Nope"):
        aumai_fedtrain.Nope  # noqa: B018


def test_defaults() -> None:
    node = FederatedNode(node_id="a", address="10.0.0.1:5000")
    assert (node.capabilities, node.status) == ({}, "idle")
    state = GlobalState(round_id=0)
    assert (state.global_weights, state.participating_nodes, state.avg_loss) == ({}, [], None)
    assert (state.expects, state.outer_state, state.credits) == (Reports.WEIGHTS, None, {})
    assert update({}).gradient_hash is None


@pytest.mark.parametrize("missing", list(CONFIG))
def test_every_field_of_a_configuration_is_needed(missing: str) -> None:
    assert TrainingConfig.model_validate(CONFIG).local_steps == 10
    with pytest.raises(ValidationError, match=missing):
        TrainingConfig.model_validate({name: value for name, value in CONFIG.items() if name != missing})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_name", ""),
        ("learning_rate", 0),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("batch_size", 0),
        ("batch_size", 2.5),
        ("local_steps", 0),
        ("global_rounds", -1),
        ("num_nodes", "many"),
    ],
)
def test_a_bad_field_of_a_configuration_is_named(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        TrainingConfig.model_validate({**CONFIG, field: value})


def test_lists_are_lists_of_floats_that_cannot_be_changed() -> None:
    given_ = [1, 2.5, np.float32(0.5)]
    values = update({"w": given_}).gradients["w"]
    assert values == [1.0, 2.5, 0.5]
    assert isinstance(values, list)
    assert {type(value) for value in values} == {float}
    given_[0] = 7  # type: ignore[call-overload]
    assert values[0] == 1.0
    for change in (
        lambda: values.append(1.0),
        lambda: values.__setitem__(0, 2.0),
        values.sort,
        values.pop,
        lambda: values.extend([1.0]),
        lambda: values.__iadd__([1.0]),
        lambda: values.__delitem__(0),
        values.clear,
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    with pytest.raises(ValueError, match="read-only"):
        as_array(values)[0] = 3.0
    with pytest.raises(ValidationError, match="frozen"):
        update({"w": [1.0]}).loss = 2.0  # type: ignore[misc]
    assert copy.deepcopy(values) == copy.copy(values) == pickle.loads(pickle.dumps(values)) == values
    assert isinstance(pickle.loads(pickle.dumps(values)), Vector)
    assert repr(values) == "[1.0, 2.5, 0.5]"


def test_nested_lists_and_single_numbers_keep_their_shape() -> None:
    gradients = update({"w": [[1, 2], [3, 4], [5, 6]], "scale": 3, "none": []}).gradients
    assert gradients == {"w": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "scale": 3.0, "none": []}
    assert as_array(gradients["w"]).shape == (3, 2)
    assert as_array(gradients["scale"]).shape == ()
    with pytest.raises(TypeError, match="cannot be changed"):
        gradients["w"][0][1] = 9.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_arrays_are_kept_without_a_copy(dtype: type) -> None:
    array = np.arange(6).astype(dtype).reshape(2, 3)
    kept = update({"w": array}).gradients["w"]
    assert np.shares_memory(kept, array)
    assert kept.dtype == array.dtype
    assert not kept.flags.writeable
    assert array.flags.writeable
    dumped = update({"w": array}).model_dump(mode="json")["gradients"]["w"]
    assert dumped == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert {type(value) for row in dumped for value in row} == {float}
    assert json.loads(update({"w": array}).model_dump_json())["gradients"]["w"] == dumped


def test_integer_arrays_become_floats() -> None:
    assert update({"w": np.arange(3)}).gradients["w"].dtype == np.float64
    assert update({"w": np.array(4.0)}).gradients["w"] == 4.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.5", "must be a list of numbers or an array, not '0.5'"),
        (None, "not None"),
        (True, "not True"),
        ({"a": 1}, "must be a list of numbers"),
        ([1.0, "2"], "value 1 must be a number, not '2'"),
        ([1.0, None], "value 1 must be a number"),
        ([True, 1.0], "value 0 must be a number, not True"),
        ([1.0, math.nan], "value 1 is nan"),
        ([math.inf], "value 0 is inf"),
        ([[1.0], [2.0, 3.0]], "different lengths"),
        ([[1.0], 2.0], "different lengths"),
        ([10**400], "too large for a float"),
        (math.nan, "not a finite number"),
        (np.array([1.0, math.inf]), "value 1 is inf"),
        (np.array([True]), "an array of bool"),
        (np.array([1j]), "an array of complex128"),
        (np.array([{}]), "an array of object"),
    ],
)
def test_numbers_that_are_none_are_refused_with_their_place(value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=r"gradients\.w") as caught:
        update({"w": value})
    assert message in str(caught.value)


@pytest.mark.parametrize("loss", [math.nan, math.inf, "low"])
def test_a_loss_is_a_finite_number_or_was_not_measured(loss: object) -> None:
    assert update({}, loss=None).loss is None
    with pytest.raises(ValidationError, match="loss"):
        update({}, loss=loss)


@pytest.mark.parametrize("samples", [-1, 1.5, "many"])
def test_samples_are_counted(samples: object) -> None:
    with pytest.raises(ValidationError, match="samples_used"):
        update({}, samples_used=samples)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(max_size=3), st.lists(FLOATS, max_size=5), max_size=4), st.lists(FLOATS, max_size=4))
def test_a_state_survives_json_as_the_same_bits(weights: dict[str, list[float]], memory: list[float]) -> None:
    outer = OuterState(step="nesterov", rounds=3, tensors={"momentum/w": memory})
    state = GlobalState(round_id=3, global_weights=weights, avg_loss=0.1, outer_state=outer, credits={"a": 2})
    for text in (json.dumps(state.model_dump(mode="json"), indent=2), state.model_dump_json()):
        restored = GlobalState.model_validate_json(text)
        assert restored == state
        for name, values in weights.items():
            bits = np.array(values).tobytes()
            assert as_array(restored.global_weights[name]).tobytes() == bits
        assert restored.outer_state is not None
        assert as_array(restored.outer_state.tensors["momentum/w"]).tobytes() == np.array(memory).tobytes()


def test_a_node_can_be_assigned_to_and_is_validated() -> None:
    node = FederatedNode(node_id="a", address="10.0.0.1:5000")
    node.status = "training"
    node.capabilities = {"gpu": True}
    assert node.model_dump() == {
        "node_id": "a",
        "address": "10.0.0.1:5000",
        "capabilities": {"gpu": True},
        "status": "training",
    }
    for name, value in (("status", 3), ("node_id", ""), ("capabilities", None)):
        with pytest.raises(ValidationError):
            setattr(node, name, value)
    assert (node.node_id, node.status) == ("a", "training")


def test_states_with_arrays_can_be_compared() -> None:
    a, b = (GlobalState(round_id=1, global_weights={"w": np.array([1.0, 2.0])}) for _ in range(2))
    assert a == b == GlobalState(round_id=1, global_weights={"w": [1.0, 2.0]})
    assert a != GlobalState(round_id=1, global_weights={"w": [1.0, 3.0]})
    assert a != 1


def test_a_result_without_a_loss_is_null_in_json() -> None:
    config = TrainingConfig(
        model_name="m", learning_rate=0.1, batch_size=1, local_steps=1, global_rounds=1, num_nodes=1
    )
    result = TrainingResult(
        config=config,
        rounds_completed=0,
        total_samples=0,
        final_loss=math.nan,
        duration_seconds=0.1,
        final_state=GlobalState(round_id=0),
    )
    assert f"{result.final_loss:.6f}" == "nan"
    assert json.loads(result.model_dump_json())["final_loss"] is None
    assert math.isnan(TrainingResult.model_validate_json(result.model_dump_json()).final_loss)
