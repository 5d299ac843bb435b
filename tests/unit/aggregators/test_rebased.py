"""Stale models on the newest global model, against the closed form of FedBuff in float64."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregators import run
from aggregators.blocks import Scratch
from aggregators.clip import NormClip
from aggregators.encoded import EncodedTensor
from aggregators.krum import Krum
from aggregators.mean import Mean
from aggregators.order_statistics import Median, TrimmedMean
from aggregators.protocols import Reducer
from aggregators.rebased import RebasedTensor, rebased
from aggregators.server import Momentum, Nesterov
from aggregators.staleness import Polynomial
from flavor.checkpoints.encoding import quantise
from flavor.errors import AggregationError

WHOLE = [np.int8, np.uint8, np.int32, np.int64, np.uint64]
STALENESS = Polynomial(0.5)
rng = np.random.default_rng(3)


def model(seed: int, size: int = 300) -> dict[str, Any]:
    of = np.random.default_rng(seed)
    return {
        "w": of.normal(size=(size // 10, 10)).astype(np.float32),
        "b": of.normal(size=7).astype(np.float64),
        "h": of.normal(size=50).astype(ml_dtypes.bfloat16),
    }


def floats(of: Any) -> Any:
    return np.concatenate([np.asarray(of[name], np.float64).reshape(-1) for name in ("w", "b", "h")])


class Buffer:
    """Updates of K clients of which some began from older models, in float64 and as the engine gets them."""

    def __init__(self, stalenesses: list[int], seed: int = 0) -> None:
        bases = {rounds: model(100 + seed + rounds) for rounds in {0, *stalenesses}}
        self.newest = bases[0]
        self.weights = [10 * (index + 1) for index in range(len(stalenesses))]
        self.models, rows = [], []
        theta = floats(self.newest)
        for index, rounds in enumerate(stalenesses):
            mine = model(seed + index)
            scale = STALENESS.factor(rounds)
            moved = rebased(mine, bases[rounds], self.newest, scale) if rounds else mine
            self.models.append(moved)
            rows.append(theta + scale * (floats(mine) - floats(bases[rounds])) if rounds else floats(mine))
        self.rows, self.theta = np.array(rows), theta


@pytest.mark.parametrize("stalenesses", [[1], [0, 1], [0, 3, 1, 0], [5, 5, 2, 9, 1]])
def test_the_mean_is_the_step_of_fedbuff(stalenesses: list[int]) -> None:
    """θ' = θ − Σ nᵢ s(τᵢ) Δᵢ / Σ nᵢ: the normaliser has no s."""
    buffer = Buffer(stalenesses)
    result = run(buffer.models, buffer.weights, global_model=buffer.newest).model
    share = np.array(buffer.weights) / sum(buffer.weights)
    expected = buffer.theta + share @ (buffer.rows - buffer.theta)
    np.testing.assert_allclose(floats(result)[:307], expected[:307], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(floats(result), expected, rtol=1e-2, atol=1e-2)  # with bfloat16


@pytest.mark.parametrize(
    ("reducer", "closed_form"),
    [
        (Median(), lambda rows: np.median(rows, axis=0)),
        (TrimmedMean(f=1), lambda rows: np.sort(rows, axis=0)[1:-1].mean(axis=0)),
    ],
)
def test_rules_without_weights_reduce_the_moved_rows(reducer: Reducer, closed_form: Any) -> None:
    buffer = Buffer([0, 2, 4, 1, 3])
    result = run(buffer.models, buffer.weights, reducer=reducer, global_model=buffer.newest).model
    np.testing.assert_allclose(floats(result)[:307], closed_form(buffer.rows)[:307], rtol=2e-6, atol=2e-6)


def test_krum_measures_the_moved_rows() -> None:
    buffer = Buffer([0, 2, 4, 1, 3])
    apart = np.square(buffer.rows[:, None] - buffer.rows[None]).sum(axis=2)
    scores = np.sort(apart, axis=1)[:, 1:3].sum(axis=1)  # n − f − 2 = 2 neighbours beside itself
    chosen = run(buffer.models, buffer.weights, reducer=Krum(f=1), global_model=buffer.newest).clients
    assert chosen == (int(np.argmin(scores)),)


def test_norm_clip_bounds_the_scaled_change() -> None:
    buffer = Buffer([0, 6, 1])
    change = buffer.rows - buffer.theta
    norms = np.linalg.norm(change, axis=1)
    bound = float(np.sort(norms)[0] / 2)
    result = run(buffer.models, None, reducer=NormClip(c=bound, then=Mean()), global_model=buffer.newest).model
    expected = buffer.theta + (change * (bound / norms)[:, None]).mean(axis=0)
    np.testing.assert_allclose(floats(result)[:307], expected[:307], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("step", [Momentum(lr=0.5, beta=0.9), Nesterov(lr=0.7, momentum=0.9)])
def test_a_server_step_goes_on_from_the_newest_model(step: Any) -> None:
    buffer = Buffer([0, 2])
    result = run(buffer.models, buffer.weights, server_step=step, global_model=buffer.newest).model
    share = np.array(buffer.weights) / sum(buffer.weights)
    down = -(share @ (buffer.rows - buffer.theta))  # the pseudogradient: old minus new
    moved = step.lr * (down + step.momentum * down) if isinstance(step, Nesterov) else step.lr * down
    np.testing.assert_allclose(floats(result)[:307], (buffer.theta - moved)[:307], rtol=1e-5, atol=1e-5)


def test_any_number_of_threads_and_any_blocks_give_the_same_bytes() -> None:
    buffer = Buffer([0, 2, 4])
    wanted = run(buffer.models, buffer.weights, global_model=buffer.newest, threads=1).model
    for threads, elements in ((1, 17), (3, 64), (2, 10**6)):
        found = run(buffer.models, buffer.weights, global_model=buffer.newest, threads=threads, block_elems=elements)
        assert all(wanted[name].tobytes() == found.model[name].tobytes() for name in wanted)


def test_what_a_client_has_not_changed_is_that_of_the_newest_model_to_the_last_bit() -> None:
    newest = np.array([0.1, -np.inf, np.inf, -0.0, 3.0], np.float32)
    base = np.array([7.0, -np.inf, 5.0, 1e30, np.nan], np.float32)
    moved = np.asarray(RebasedTensor(base.copy(), base, newest, 0.3))
    assert moved[:4].tobytes() == newest[:4].tobytes()
    assert np.isnan(moved[4])  # and is refused as ever


@settings(max_examples=100, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(WHOLE))
def test_integers_take_the_whole_change_and_stay_in_their_range(data: st.DataObject, dtype: Any) -> None:
    limits = np.iinfo(dtype)
    values = st.lists(st.integers(int(limits.min), int(limits.max)), min_size=8, max_size=8)
    mine, base, newest = (data.draw(values) for _ in range(3))
    moved = np.asarray(RebasedTensor(*(np.array(each, dtype) for each in (mine, base, newest)), 0.1))
    assert moved.dtype == dtype
    expected = [
        min(max(new + a - b, int(limits.min)), int(limits.max)) for a, b, new in zip(mine, base, newest, strict=True)
    ]
    assert moved.tolist() == expected


def test_a_bool_that_the_client_changed_is_the_clients() -> None:
    mine, base, newest = (np.array(bits, bool) for bits in ([0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]))
    assert np.asarray(RebasedTensor(mine, base, newest, 0.1)).tolist() == [True, False, True, False]


def test_integers_and_bools_pass_through_the_engine() -> None:
    newest = {"step": np.array([110]), "mask": np.array([True, False])}
    fresh = {"step": np.array([120]), "mask": np.array([True, False])}
    stale = {"step": np.array([57]), "mask": np.array([False, False])}
    began = {"step": np.array([50]), "mask": np.array([True, False])}
    result = run([fresh, rebased(stale, began, newest, 0.5)], [1, 3], global_model=newest).model
    assert result["step"].tolist() == [118]  # the mean of 120 and 117, whose weight is 3, rounded half to even
    assert result["mask"].tolist() == [False, False]


def test_a_statistic_is_a_mean_with_the_newest_and_never_below_zero() -> None:
    newest = {"bn.running_var": np.float32([0.1]), "scale": np.float32(4), "w": np.float32([1])}
    began = {"bn.running_var": np.float32([9.0]), "scale": np.float32(1), "w": np.float32([2])}
    mine = {"bn.running_var": np.float32([0.2]), "scale": np.float32(2), "w": np.float32([4])}
    moved = {name: np.asarray(tensor) for name, tensor in rebased(mine, began, newest, 0.5).items()}
    assert moved["bn.running_var"] == pytest.approx(0.15)  # and not 0.1 + 0.5 (0.2 − 9)
    assert moved["scale"] == pytest.approx(3)
    assert moved["w"] == pytest.approx(2)
    assert rebased(mine, began, newest, 0.5, statistics=("w",))["w"].shape == (1,)
    assert np.asarray(rebased(mine, began, newest, 0.5, statistics=("w",))["w"]) == pytest.approx(2.5)


def test_an_encoded_update_is_a_difference_to_its_own_base() -> None:
    base, newest = (rng.normal(size=1000).astype(np.float32) for _ in range(2))
    values = rng.integers(-128, 128, 1000).astype(np.int8)
    encoded = EncodedTensor(base, values, np.full(8, 0.01, np.float32), 128)
    moved = np.asarray(RebasedTensor(encoded, base, newest, 0.5))
    np.testing.assert_allclose(moved, newest - 0.5 * 0.01 * values, rtol=1e-5, atol=1e-5)


def test_the_mean_of_int8_updates_from_several_models_is_the_step_of_fedbuff() -> None:
    """θ' = θ − Σ nᵢ s(τᵢ) qᵢ scaleᵢ / Σ nᵢ, where the blocks move a thousand times as far as each other."""
    stalenesses, block, weights = [0, 1, 4], 128, [10, 20, 30]
    bases = {rounds: rng.normal(size=1000).astype(np.float32) for rounds in stalenesses}
    newest = bases[0]
    models, step = [], np.zeros(1000)
    for rounds, weight in zip(stalenesses, weights, strict=True):
        change = rng.normal(size=1000) * 10.0 ** rng.integers(-3, 1, 8).repeat(block)[:1000]
        values, scales = np.empty(1000, np.int8), np.empty(8, np.float32)
        quantise(change.astype(np.float32), values, scales, block)
        rounded = values * np.repeat(scales.astype(np.float64), block)[:1000]
        assert np.abs(rounded - change).max() <= scales.max() * 0.51, "half a step, and float32"
        encoded = EncodedTensor(bases[rounds], values, scales, block)
        factor = STALENESS.factor(rounds)
        models.append(
            rebased({"w": encoded}, {"w": bases[rounds]}, {"w": newest}, factor) if rounds else {"w": encoded}
        )
        step += weight * factor * rounded
    result = run(models, weights, global_model={"w": newest}).model["w"]
    np.testing.assert_allclose(result, newest - step / sum(weights), rtol=1e-5, atol=1e-5)


def test_a_span_is_the_same_as_the_whole() -> None:
    mine, base, newest = (rng.normal(size=500).astype(np.float16) for _ in range(3))
    tensor = RebasedTensor(mine, base, newest, 0.7)
    whole = np.empty(500, np.float32)
    tensor.decode(0, 500, whole, Scratch())
    part = np.empty(77, np.float32)
    tensor.decode(123, 200, part, Scratch())
    assert part.tobytes() == whole[123:200].tobytes()
    assert np.asarray(tensor).dtype == np.float16


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"base": np.zeros(3, np.float32)}, "the global model that it began from has float32 (3,)"),
        ({"newest": np.zeros(2, np.float64)}, "the newest global model has float64 (2,)"),
        ({"scale": 1.5}, "cannot be scaled by 1.5"),
        ({"scale": float("nan")}, "cannot be scaled by nan"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], why: str) -> None:
    plain = np.zeros(2, np.float32)
    values: dict[str, Any] = {"tensor": plain, "base": plain, "newest": plain, "scale": 0.5, **changed}
    with pytest.raises(AggregationError) as error:
        RebasedTensor(**values)
    assert why in str(error.value)


def test_a_tensor_that_a_model_lacks_is_named() -> None:
    mine = {"w": np.zeros(1, np.float32), "new": np.zeros(1, np.float32)}
    with pytest.raises(AggregationError, match="tensor 'new' is not in the global model that it began from"):
        rebased(mine, {"w": mine["w"]}, mine, 1.0)
    with pytest.raises(AggregationError, match="tensor 'new' is not in the newest global model"):
        rebased(mine, mine, {"w": mine["w"]}, 1.0)
