"""Integers under rules by order: exact up to the ends of their types, and out of one liar's reach."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregators import run
from aggregators.clip import NormClip
from aggregators.geometric import GeometricMedian
from aggregators.krum import Bulyan, Krum, MultiKrum
from aggregators.mean import Mean
from aggregators.order_statistics import Median, TrimmedMean

TYPES = [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64]


@st.composite
def columns(draw: st.DrawFn) -> Any:
    """The values of n clients, ends of the type among them: `[n, B]`."""
    dtype, n = draw(st.sampled_from(TYPES)), draw(st.integers(1, 9))
    ends = np.iinfo(dtype)
    edges = [ends.min, ends.min + 1, ends.max - 1, ends.max, 0, 1, 2, 3]
    value = st.one_of(st.sampled_from(edges), st.integers(int(ends.min), int(ends.max)))
    return np.array(draw(st.lists(st.lists(value, min_size=n, max_size=n), min_size=1, max_size=6)), dtype).T


@settings(max_examples=200, deadline=None)
@given(rows=columns(), data=st.data())
def test_medians_and_trimmed_means_are_exact(rows: Any, data: st.DataObject) -> None:
    n = len(rows)
    f = data.draw(st.integers(0, (n - 1) // 2))
    for reducer, ends in ((Median(), (n - 1) // 2), (TrimmedMean(f), f)):
        got = run([{"k": row} for row in rows], [10**9, *[1] * (n - 1)], reducer=reducer).model["k"]
        for column, value in zip(rows.T, got, strict=True):
            middle = sorted(int(v) for v in column)[ends : n - ends]
            assert value == round(Fraction(sum(middle), len(middle)))


@settings(max_examples=200, deadline=None)
@given(rows=columns(), data=st.data())
def test_a_geometric_medians_integers_are_the_weighted_median(rows: Any, data: st.DataObject) -> None:
    n = len(rows)
    weights = data.draw(st.lists(st.integers(1, 20), min_size=n, max_size=n))
    models = [{"w": np.zeros(2, np.float32), "k": row} for row in rows]
    got = run(models, weights, reducer=GeometricMedian()).model["k"]
    for column, value in zip(rows.T, got, strict=True):
        spread = sorted(int(v) for v, weight in zip(column, weights, strict=True) for _ in range(weight))
        low, high = spread[(len(spread) - 1) // 2], spread[len(spread) // 2]
        assert value == round(Fraction(low + high, 2))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_means_are_exact_wherever_the_values_lie(data: st.DataObject) -> None:
    """As long as they do not lie so far apart that weight times distance leaves 2⁵³: near the ends of the type, too."""
    ends = np.iinfo(data.draw(st.sampled_from(TYPES)))
    near = data.draw(st.one_of(st.sampled_from([ends.min, ends.max, 0]), st.integers(int(ends.min), int(ends.max))))
    low, high = max(int(ends.min), int(near) - 2**20), min(int(ends.max), int(near) + 2**20)
    values = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=6))
    weights = data.draw(st.lists(st.integers(1, 10**8), min_size=len(values), max_size=len(values)))
    got = run([{"k": np.array([value], ends.dtype)} for value in values], weights, reducer=Mean()).model["k"]
    assert int(got[0]) == round(Fraction(sum(w * v for w, v in zip(weights, values, strict=True)), sum(weights)))


@settings(max_examples=100, deadline=None)
@given(rows=columns(), scale=st.sampled_from([1.0, 1e-300, 1e300]))
def test_a_mean_of_integers_never_leaves_its_values(rows: Any, scale: float) -> None:
    got = run([{"k": row} for row in rows], [scale * (1 + i) for i in range(len(rows))]).model["k"]
    assert (rows.min(axis=0) <= got).all()
    assert (got <= rows.max(axis=0)).all()


ROBUST = [
    Median(),
    TrimmedMean(1),
    Krum(1),
    MultiKrum(1),
    Bulyan(1),
    GeometricMedian(),
    NormClip("median", Median()),
]


@pytest.mark.parametrize("reducer", ROBUST, ids=repr)
@pytest.mark.parametrize("weight", [1, 3])
def test_one_client_that_lies_in_its_integers_alone_moves_none(reducer: Any, weight: int) -> None:
    """One client gave 1.8e18, its floats being like everybody's."""
    rng = np.random.default_rng(3)
    base = {"w": np.zeros(50, np.float32), "steps": np.array([0, 0])}
    models = [{"w": rng.standard_normal(50).astype(np.float32), "steps": np.array([100 + i, 7])} for i in range(7)]
    models[3]["steps"] = np.array([9 * 10**18, -(9 * 10**18)])
    got = run(models, [1, 1, 1, weight, 1, 1, 1], reducer=reducer, global_model=base)
    if reducer == Krum(1) and got.clients == (3,):
        pytest.skip("Krum gives back the one that it has chosen")
    assert 100 <= got.model["steps"][0] <= 106
    assert got.model["steps"][1] == 7
    assert run(models, reducer=Mean(), global_model=base).model["steps"][0] > 10**18, "which a mean is for"


def test_the_majority_counts_weights_only_where_the_rule_does() -> None:
    models = [{"w": np.zeros(1, np.float32), "on": np.array([i == 0])} for i in range(5)]
    heavy = [100, 1, 1, 1, 1]
    assert run(models, heavy).model["on"] == [True]
    assert run(models, heavy, reducer=GeometricMedian()).model["on"] == [True]
    assert run(models, heavy, reducer=Median()).model["on"] == [False]
    assert math.prod(run(models[:2], reducer=Median()).model["on"]) == 0, "a tie is False"
