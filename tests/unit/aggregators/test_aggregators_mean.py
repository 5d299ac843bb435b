"""The engine with its simplest rule: the weighted mean, replacing the global model."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregators import check_compatible, parse, run
from flavor.errors import AggregationError

EPS32 = 2.0**-24


def model(rng, dtype=np.float32):
    return {
        "w": rng.standard_normal((37, 11)).astype(dtype),
        "b": rng.standard_normal(5).astype(dtype),
        "scalar": np.asarray(rng.standard_normal(), dtype),
        "empty": np.zeros((0, 4), dtype),
    }


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 9),
    dtype=st.sampled_from([np.float32, np.float64, np.float16, ml_dtypes.bfloat16]),
    weights=st.lists(st.floats(1e-3, 1e6), min_size=9, max_size=9),
    seed=st.integers(0, 2**32 - 1),
)
def test_mean_is_the_weighted_mean_of_its_definition(n, dtype, weights, seed):
    rng = np.random.default_rng(seed)
    models = [model(rng, dtype) for _ in range(n)]
    got = run(models, weights[:n]).model
    share = np.array(weights[:n]) / math.fsum(weights[:n])
    eps = EPS32 if np.dtype(dtype).itemsize <= 4 else 2.0**-53
    own = float(ml_dtypes.finfo(dtype).eps)
    for name, tensor in got.items():
        assert tensor.dtype == models[0][name].dtype
        assert tensor.shape == models[0][name].shape
        rows = np.stack([m[name].astype(np.float64) for m in models])
        wanted = np.tensordot(share, rows, 1)
        room = 2 * (n + 2) * eps * np.tensordot(share, abs(rows), 1) + own * abs(wanted)
        assert np.all(abs(tensor.astype(np.float64) - wanted) <= room + 1e-7 * (own > 1e-4))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("block_elems", [1, 7, 100, 2048, 1 << 20])
def test_result_is_the_same_for_every_block_size_and_thread_count(threads, block_elems):
    rng = np.random.default_rng(1)
    models = [model(rng) | {"steps": rng.integers(0, 9, 50), "on": rng.random(50) > 0.5} for _ in range(5)]
    wanted = run(models, [1, 2, 3, 4, 5], threads=1).model
    got = run(models, [1, 2, 3, 4, 5], threads=threads, block_elems=block_elems).model
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name])


def test_one_client_comes_back_bit_for_bit():
    rng = np.random.default_rng(2)
    only = model(rng) | {"steps": np.array([2**63 - 1, -(2**63), 2**53 + 1]), "on": np.array([True, False])}
    got = run([only], [0.3]).model
    for name, tensor in only.items():
        np.testing.assert_array_equal(got[name], tensor)


def test_a_client_of_weight_zero_leaves_no_trace():
    good = {"w": np.ones(3, np.float32), "i": np.array([4]), "on": np.array([True])}
    bad = {"w": np.full(3, np.nan, np.float32), "i": np.array([999]), "on": np.array([False])}
    got = run([bad, good], [0, 2])
    np.testing.assert_array_equal(got.model["w"], good["w"])
    assert got.model["i"] == 4
    assert got.model["on"]
    assert got.clients == (1,)


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=7),
    weights=st.lists(st.integers(1, 1000), min_size=7, max_size=7),
    order=st.randoms(use_true_random=False),
)
def test_integers_are_the_exact_mean_rounded_half_to_even_in_any_order(values, weights, order):
    pairs = list(zip(values, weights[: len(values)], strict=True))
    order.shuffle(pairs)
    wanted = round(Fraction(sum(v * w for v, w in pairs), sum(w for _, w in pairs)))
    got = run([{"i": np.array(v)} for v, _ in pairs], [w for _, w in pairs]).model["i"]
    assert got == wanted
    assert got.dtype == np.int64


def test_a_heavy_client_holds_integers_at_either_end():
    low, high = {"i": np.array([0])}, {"i": np.array([1])}
    assert run([low, high], [1000, 1]).model["i"] == 0
    assert run([low, high], [1, 1000]).model["i"] == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int64])
def test_integers_reach_the_ends_of_their_type_without_wrapping(dtype):
    ends = np.iinfo(dtype)
    low, high = np.array([ends.min], dtype), np.array([ends.max], dtype)
    assert run([{"i": high}, {"i": high}, {"i": high}]).model["i"] == ends.max
    assert run([{"i": low}, {"i": low}, {"i": low}]).model["i"] == ends.min
    middle = int(run([{"i": low}, {"i": high}]).model["i"][0])
    assert abs(middle - (int(ends.min) + int(ends.max)) / 2) <= 1


def test_bool_is_the_weighted_majority_and_a_tie_is_false():
    votes = [np.array([True, True, False]), np.array([True, False, True]), np.array([False, True, False])]
    got = run([{"on": v} for v in votes], [1, 2, 3]).model["on"]
    np.testing.assert_array_equal(got, [False, True, False])
    assert got.dtype == np.bool_


def test_reads_and_writes_mapped_files(tmp_path):
    rng = np.random.default_rng(3)
    shape = (300, 700)
    models = []
    for i in range(3):
        rng.standard_normal(shape, dtype=np.float32).tofile(tmp_path / str(i))
        models.append({"w": np.memmap(tmp_path / str(i), np.float32, "r", shape=shape)})
    out = {"w": np.memmap(tmp_path / "out", np.float32, "w+", shape=shape)}
    got = run(models, [1, 1, 2], out=out).model
    assert got["w"] is out["w"]
    out["w"].flush()
    on_disk = np.fromfile(tmp_path / "out", np.float32).reshape(shape)
    np.testing.assert_allclose(
        on_disk, np.average([m["w"] for m in models], axis=0, weights=[1, 1, 2]), rtol=1e-5, atol=1e-6
    )


def test_the_arrays_of_out_are_used_for_every_tensor():
    rng = np.random.default_rng(4)
    models = [model(rng), model(rng)]
    out = {name: np.full_like(tensor, 7) for name, tensor in reversed(models[0].items())}
    got, wanted = run(models, out=out).model, run(models).model
    assert list(got) == list(models[0])
    for name, tensor in got.items():
        assert tensor is out[name]
        np.testing.assert_array_equal(tensor, wanted[name])


def test_views_that_are_not_contiguous_are_read_right():
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    got = run([{"w": square.T}, {"w": square.T + 2}]).model["w"]
    np.testing.assert_array_equal(got, square.T + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("b"), r"client 1: tensor 'b' is missing"),
        (lambda m: m.update(c=np.zeros(1)), r"client 1: tensor 'c' is not in "),
        (
            lambda m: m.update(b=np.zeros((5, 1), np.float32)),
            r"client 1: tensor 'b' has shape \(5, 1\).*\(5,\)",
        ),
        (lambda m: m.update(b=np.zeros(5)), r"client 1: tensor 'b' is float64.*float32"),
    ],
)
def test_models_that_do_not_fit_are_refused_by_client_and_tensor(change, message):
    rng = np.random.default_rng(5)
    good, bad = model(rng), model(rng)
    change(bad)
    with pytest.raises(AggregationError, match=message):
        check_compatible([good, bad, good])
    with pytest.raises(AggregationError, match=message.replace("client 1", "client 0")):
        run([bad], global_model=good)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], "2 weights for 3 clients"),
        ([1, -2, 1], "client 1 has weight -2"),
        ([1, 1, math.nan], "client 2 has weight nan"),
        ([0, 0, 0], "weights of all 3 clients are 0"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights, message):
    with pytest.raises(AggregationError, match=message):
        run([{"w": np.zeros(1)}] * 3, weights)


def test_nothing_strange_is_aggregated():
    with pytest.raises(AggregationError, match="no client's model"):
        run([])
    with pytest.raises(AggregationError, match=r"client 0: tensor 'c': .*complex64"):
        run([{"c": np.zeros(1, np.complex64)}])
    with pytest.raises(AggregationError, match="threads and block_elems"):
        run([{"w": np.zeros(1)}], threads=0)


def test_a_sink_that_does_not_fit_is_refused_before_anything_is_written():
    models = [{"a": np.ones(3), "w": np.ones(3)}]
    first = np.zeros(3)
    for bad, message in [
        ({"a": first}, "no array for it"),
        ({"a": first, "w": np.zeros(4)}, r"float64 \(4,\), needed float64 \(3,\)"),
        ({"a": first, "w": np.zeros((3, 2))[:, 0]}, "writable and C-contiguous"),
    ]:
        with pytest.raises(AggregationError, match=message):
            run(models, out=bad)
    assert not first.any()


# -- what no site has trained


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 3], [10, 200, 33], [1, 1], [1, 1, 1, 1, 1, 1, 1], [1, 1e12, 5]])
@pytest.mark.parametrize("block_elems", [7, 640 * 1024])
def test_the_mean_of_equal_values_is_that_value(dtype, weights, block_elems):
    rng = np.random.default_rng(3)
    same = (rng.standard_normal(5000) * 10.0 ** rng.integers(-4, 4, 5000)).astype(dtype)
    for places in (slice(None), slice(1200, 3300), rng.random(5000) < 0.02, slice(0, 0)):
        models = []
        for _ in weights:
            model = rng.standard_normal(5000).astype(dtype)
            model[places] = same[places]
            models.append({"w": model})
        result = run(models, weights, block_elems=block_elems).model["w"]
        assert result[places].tobytes() == same[places].tobytes()
        exact = np.average([model["w"].astype(np.float64) for model in models], axis=0, weights=weights)
        eps = max(float(ml_dtypes.finfo(dtype).eps), 2.0**-22 if dtype != np.float64 else 2.0**-50)
        np.testing.assert_allclose(result.astype(np.float64), exact, rtol=eps, atol=4 * eps)


@pytest.mark.parametrize("step", ["nesterov", "momentum", "adam", "yogi", "adagrad"])
@pytest.mark.parametrize("reducer", ["mean", "trimmed_mean:f=1", "bulyan:f=0", "multi_krum:f=0", "geometric_median"])
def test_what_no_client_changes_does_not_move_in_300_rounds(step, reducer):
    rng = np.random.default_rng(5)
    frozen = rng.standard_normal(300).astype(np.float32)
    rule, theta, state = parse(reducer, step), {"frozen": frozen, "w": np.zeros(4, np.float32)}, None
    for _ in range(300 if reducer == "mean" else 30):
        clients = [
            {"frozen": theta["frozen"], "w": theta["w"] + rng.standard_normal(4).astype(np.float32)} for _ in range(5)
        ]
        result = run(
            clients,
            [1, 3, 10, 200, 33],
            reducer=rule.reducer,
            server_step=rule.server_step,
            global_model=theta,
            state=state,
            threads=1,
        )
        theta, state = result.model, result.state
    assert theta["frozen"].tobytes() == frozen.tobytes()
