"""Every reducer against its definition in a few plain lines, and the identities they share."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregators import aggregate, run
from aggregators.blocks import Scratch
from aggregators.clip import NormClip
from aggregators.geometric import GeometricMedian
from aggregators.krum import Bulyan, Krum, MultiKrum, nearest_mean
from aggregators.mean import Mean
from aggregators.order_statistics import Median, TrimmedMean
from aggregators.protocols import Block
from aggregators.sorting_network import network
from flavor.errors import AggregationError

ALL = [
    Mean(),
    Median(),
    TrimmedMean(1),
    Krum(1),
    MultiKrum(1),
    MultiKrum(1, 2),
    Bulyan(1),
    GeometricMedian(),
    NormClip(1.0),
    NormClip("median", Bulyan(1)),
]
ids = [repr(reducer) for reducer in ALL]


def models_of(rows):
    """Split each row into two tensors, so that whole-model rules must look at both."""
    return [{"a": row[:7].reshape(7, 1), "b": row[7:]} for row in rows]


def flat(model):
    return np.concatenate([model["a"].reshape(-1), model["b"]])


def reduce(reducer, rows, weights=None, base=None, **settings):
    global_model = None if base is None else models_of([base])[0]
    return flat(run(models_of(rows), weights, reducer=reducer, global_model=global_model, **settings).model)


def random_rows(seed, n, size=40, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((n, size)).astype(dtype)


seeds = st.integers(0, 2**32 - 1)


def plain_scores(rows, f):
    n = len(rows)
    scores = []
    for i in range(n):
        distances = sorted(float(np.sum((rows[i] - rows[j]) ** 2)) for j in range(n) if j != i)
        scores.append((sum(distances[: max(1, n - f - 2)]), sum(distances)))
    return scores


def plain_bulyan(rows, f):
    left, chosen = list(rows), []
    while len(chosen) < len(rows) - 2 * f:
        scores = plain_scores(left, f)
        chosen.append(left.pop(scores.index(min(scores)))) if len(left) > 1 else chosen.append(left.pop())
    chosen, out = np.array(chosen), []
    for column in chosen.T:
        nearest = sorted(column, key=lambda v: (abs(v - np.median(column)), v))
        out.append(np.mean(nearest[: len(rows) - 4 * f]))
    return np.array(out)


def plain_geometric(rows, weights, rounds, nu):
    z = np.median(rows, axis=0)
    for _ in range(rounds):
        beta = weights / np.maximum(nu, np.linalg.norm(rows - z, axis=1))
        z = np.average(rows, axis=0, weights=beta)
    return z


@pytest.mark.parametrize("n", range(1, 18))
def test_a_network_brings_every_rank_to_its_place(n):
    # The 0-1 principle: a network that sorts all rows of zeros and ones sorts everything.
    columns = np.array(list(itertools.product([0, 1], repeat=n)), np.float32).T if n < 12 else random_rows(n, n, 500)
    wanted = np.sort(columns, axis=0)
    for first, last in {(0, n), ((n - 1) // 2, n // 2 + 1), (n // 3, n - n // 3), (0, 1), (n - 1, n)}:
        net = network(n, first, last)
        got = net.sort(list(columns), np.empty((net.slots, columns.shape[1]), np.float32))
        np.testing.assert_array_equal(np.array(got), wanted[first:last])
        assert net.slots <= n + 1


def test_a_network_has_no_more_steps_than_batchers():
    # 31 and 63 comparators sort 10 and 16 rows (Knuth, TAOCP 3, 5.2.2); each is a min and a max.
    assert len(network(10, 0, 10).steps) == 2 * 31
    assert len(network(16, 0, 16).steps) == 2 * 63
    assert len(network(10, 4, 6).steps) < 2 * 31


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(1, 12), dtype=st.sampled_from([np.float32, np.float64]))
def test_median(seed, n, dtype):
    rows = random_rows(seed, n, dtype=dtype)
    np.testing.assert_allclose(reduce(Median(), rows), np.median(rows, axis=0), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_middle_of_two_values_has_room_and_of_the_same_value_is_that(dtype):
    """From the smallest number, whose half is 0, to the largest, whose sum is infinite."""
    limits = np.finfo(dtype)
    least, most = limits.smallest_subnormal, limits.max
    low = np.resize(np.array([least, 3 * least, most, -most, -most, 1, 0], dtype), 20)
    high = np.resize(np.array([least, 3 * least, most, -most, most, 3, 0], dtype), 20)
    expected = np.resize(np.array([least, 3 * least, most, -most, 0, 2, 0], dtype), 20)
    assert reduce(Median(), np.stack([low, high])).tobytes() == expected.tobytes()


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(1, 12), data=st.data())
def test_trimmed_mean(seed, n, data):
    f = data.draw(st.integers(0, (n - 1) // 2))
    rows = random_rows(seed, n)
    wanted = np.sort(rows.astype(np.float64), axis=0)[f : n - f].mean(axis=0)
    np.testing.assert_allclose(reduce(TrimmedMean(f), rows), wanted, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(3, 12), data=st.data())
def test_krum_and_multi_krum(seed, n, data):
    f = data.draw(st.integers(0, (n - 3) // 2))
    m = data.draw(st.integers(1, n - f))
    rows = random_rows(seed, n, dtype=np.float64)
    order = sorted(range(n), key=plain_scores(rows, f).__getitem__)
    np.testing.assert_array_equal(reduce(Krum(f), rows), rows[order[0]])
    np.testing.assert_allclose(reduce(MultiKrum(f, m), rows), rows[order[:m]].mean(axis=0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(reduce(MultiKrum(f), rows), reduce(MultiKrum(f, n - f), rows))


@settings(max_examples=25, deadline=None)
@given(seed=seeds, f=st.integers(0, 3), more=st.integers(0, 3))
def test_bulyan(seed, f, more):
    rows = random_rows(seed, 4 * f + 3 + more, dtype=np.float64)
    np.testing.assert_allclose(reduce(Bulyan(f), rows), plain_bulyan(rows, f), rtol=1e-10, atol=1e-12)


def test_bulyan_takes_the_lower_of_two_values_equally_far_from_the_median():
    rows = np.repeat(np.array([[-3.0], [-1.0], [0.0], [1.0], [3.0]]), 40, axis=1)
    got = np.empty(40)
    nearest_mean(3, Block(list(rows), None, Scratch()), got)
    np.testing.assert_array_equal(got, -0.5)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(1, 8), rounds=st.integers(1, 5), nu=st.sampled_from([1e-3, 5.5, 50.0]))
def test_geometric_median(seed, n, rounds, nu):
    rows = random_rows(seed, n, dtype=np.float64)
    weights = np.random.default_rng(seed).uniform(1, 5, n)
    got = reduce(GeometricMedian(rounds, nu, 0), rows, weights)
    np.testing.assert_allclose(got, plain_geometric(rows, weights, rounds, nu), rtol=1e-9, atol=1e-11)


def test_a_geometric_median_that_has_not_converged_says_so():
    models = [{"w": row} for row in random_rows(1, 9)]
    assert run(models, reducer=GeometricMedian()).warning == ""
    assert run(models, reducer=GeometricMedian(3, tol=0)).warning == "", "no convergence is asked for"
    said = r"geometric_median has not converged: its round 2 of 2 still changed the objective by .*tol is 1e-15: raise"
    for rule in (GeometricMedian(2, tol=1e-15), NormClip(1e9, then=GeometricMedian(2, tol=1e-15))):
        base = {"w": np.zeros_like(models[0]["w"])}
        assert re.match(said, run(models, reducer=rule, global_model=base).warning)
    with pytest.warns(UserWarning, match=said):
        aggregate(models, aggregator="geometric_median:rounds=2,tol=1e-15")


def test_geometric_median_is_hardly_moved_by_a_huge_client():
    rows = random_rows(1, 9)
    honest = reduce(GeometricMedian(), rows[:8])
    rows[8] = 1e6
    assert np.linalg.norm(reduce(GeometricMedian(), rows) - honest) < 2


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(1, 8), c=st.one_of(st.just("median"), st.floats(0.1, 20)))
def test_norm_clip(seed, n, c):
    rows = random_rows(seed, n, dtype=np.float64) * np.arange(1, n + 1)[:, None]
    base = random_rows(seed + 1, 1, dtype=np.float64)[0]
    norms = np.linalg.norm(base - rows, axis=1)
    bound = np.median(norms) if c == "median" else c
    clipped = base - (base - rows) * np.minimum(1, bound / norms)[:, None]
    np.testing.assert_allclose(reduce(NormClip(c), rows, base=base), clipped.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        reduce(NormClip(c, Median()), rows, base=base), np.median(clipped, axis=0), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("reducer", ALL, ids=ids)
def test_equal_updates_give_that_update(reducer):
    row = random_rows(3, 1)[0]
    base = row - 0.01
    got = reduce(reducer, np.stack([row] * 7), range(1, 8), base)
    np.testing.assert_allclose(got, row, rtol=1e-6)


@pytest.mark.parametrize("reducer", ALL, ids=ids)
def test_the_order_of_clients_does_not_matter(reducer):
    rows, weights = random_rows(4, 9), np.arange(1, 10)
    rows[5] = rows[2]
    base = random_rows(5, 1)[0]
    wanted = reduce(reducer, rows, weights, base)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(9)
        got = reduce(reducer, rows[order], weights[order], base)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
        if isinstance(reducer, (Median, TrimmedMean, Krum, Bulyan)):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("reducer", ALL, ids=ids)
def test_block_size_and_threads_do_not_show(reducer):
    # In float64, so that a sum over other blocks would show in the distances too.
    rows, base = random_rows(6, 7, 70_000, np.float64), random_rows(7, 1, 70_000, np.float64)[0]
    wanted = reduce(reducer, rows, range(1, 8), base, threads=1)
    for threads, block_elems in [(2, 1000), (3, 4097), (4, 1 << 20)]:
        got = reduce(reducer, rows, range(1, 8), base, threads=threads, block_elems=block_elems)
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("reducer", ALL, ids=ids)
def test_inputs_are_never_written_to_and_half_precision_comes_back_as_such(reducer):
    rows, base = random_rows(8, 7, dtype=np.float16), random_rows(9, 1, dtype=np.float16)[0]
    rows.flags.writeable = base.flags.writeable = False
    got = reduce(reducer, rows, None, base)
    assert got.dtype == np.float16
    wide = reduce(reducer, rows.astype(np.float32), None, base.astype(np.float32))
    np.testing.assert_array_equal(got, wide.astype(np.float16))


def test_krum_compares_models_that_hardly_differ_beside_a_huge_one():
    # Through |a|² + |b|² − 2ab the differences of 1e-4 would be lost beside values of 100.
    rows = 100 + 1e-3 * random_rows(10, 7, dtype=np.float32)
    rows[3] = rows[0]
    rows[6] = 1e15
    assert run(models_of(rows), reducer=Krum(1)).clients == run(models_of(rows - 100), reducer=Krum(1)).clients


def test_a_client_with_nan_is_infinitely_far_for_krum():
    rows = random_rows(11, 6)
    rows[0, 3] = np.nan
    assert 0 not in run(models_of(rows), reducer=MultiKrum(1)).clients


def test_integers_follow_the_clients_that_krum_chooses_and_do_not_choose_them():
    rows = random_rows(12, 5)
    models = [m | {"steps": np.array(10**9 * i)} for i, m in enumerate(models_of(rows))]
    result = run(models, reducer=Krum(1))
    assert result.clients == run(models_of(rows), reducer=Krum(1)).clients
    assert result.model["steps"] == 10**9 * result.clients[0]


@pytest.mark.parametrize(
    ("reducer", "n", "message"),
    [
        (TrimmedMean(2), 4, r"trimmed_mean with f = 2 needs 2f < n: at least 5 clients, got n = 4"),
        (TrimmedMean(-1), 4, r"f = -1"),
        (Krum(1), 4, r"krum with f = 1 .* at least 5 clients, got n = 4"),
        (MultiKrum(1, 5), 5, r"m = 5 needs 1 <= m <= n - f = 4, got n = 5"),
        (MultiKrum(1, 0), 5, r"m = 0"),
        (Bulyan(1), 6, r"bulyan with f = 1 .* n >= 4f \+ 3 = 7 clients, got n = 6"),
        (NormClip(1.0, Krum(1)), 4, r"krum with f = 1"),
    ],
)
def test_outside_its_condition_a_rule_refuses_with_the_numbers(reducer, n, message):
    rows = random_rows(13, n)
    with pytest.raises(AggregationError, match=message):
        reduce(reducer, rows, base=rows[0])


def test_bad_options_are_refused_when_the_rule_is_made():
    for make in (lambda: NormClip(0), lambda: NormClip(float("nan")), lambda: GeometricMedian(rounds=0)):
        with pytest.raises(AggregationError):
            make()
    with pytest.raises(AggregationError, match="NormClip needs the old global model"):
        reduce(NormClip(1.0), random_rows(14, 2))
