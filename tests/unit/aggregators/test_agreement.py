"""How far clients' changes agree with the mean change, against closed forms and the definition in float64."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregators.agreement import agreement
from flavor.errors import AggregationError


def model(*values: float, **more) -> dict:
    return {"w": np.array(values, np.float32), **more}


ZERO = model(0, 0)


def test_two_honest_clients_and_one_with_a_flipped_sign():
    found = agreement([model(1, 1), model(1, 1), model(-1, -1)], ZERO)
    assert found.cosines == pytest.approx((1, 1, -1))
    assert found.norms == pytest.approx([math.sqrt(2)] * 3)
    assert found.ratios == pytest.approx((3, 3, 3))  # the mean change is (1 + 1 − 1) / 3 of one


def test_weights_decide_whose_change_is_the_mean():
    found = agreement([model(1, 0), model(0, 1)], ZERO, [3, 1])
    assert found.cosines == pytest.approx((3 / math.sqrt(10), 1 / math.sqrt(10)))
    assert agreement([model(1, 0), model(0, 1)], ZERO, [1, 0]).cosines == pytest.approx((1, 0))


def test_the_changes_count_and_not_the_models():
    base = model(5, 7)
    assert agreement([model(6, 7), model(5, 8)], base).cosines == pytest.approx([math.sqrt(0.5)] * 2)


def test_a_change_of_nothing_has_no_cosine():
    found = agreement([ZERO, model(1, 0)], ZERO)
    assert found.cosines == (None, pytest.approx(1))
    assert found.ratios == pytest.approx((0, 2))
    cancelled = agreement([model(1, 0), model(-1, 0)], ZERO)
    assert cancelled.cosines == (None, None)
    assert cancelled.ratios == (None, None)


def test_what_is_no_parameter_does_not_count():
    def of(sign: float) -> dict:
        far = np.array([1e6 * sign], np.float32)
        return model(1, 1, **{"running_var": far, "lr": np.float32(1e6 * sign), "kept": far, "n": np.array([7, 8])})

    found = agreement([of(1), of(-1)], {name: np.zeros_like(tensor) for name, tensor in of(1).items()}, held=["kept"])
    assert found.cosines == pytest.approx((1, 1))
    assert found.norms == pytest.approx([math.sqrt(2)] * 2)
    with pytest.raises(AggregationError, match="no float tensors that are parameters"):
        agreement([{"n": np.array([1])}], {"n": np.array([1])})


@given(
    st.integers(1, 6),
    st.lists(
        st.tuples(st.integers(0, 70_000), st.sampled_from([np.float32, np.float64, ml_dtypes.bfloat16])), max_size=3
    ),
    st.integers(0, 2**32 - 1),
)
def test_it_is_its_definition_and_the_weights_add_up_to_the_mean(n, layout, seed):
    rng = np.random.default_rng(seed)
    layout = [(5, np.float32), *layout]
    models = [{f"t{i}": rng.normal(size=size).astype(of) for i, (size, of) in enumerate(layout)} for _ in range(n)]
    base = {name: rng.normal(size=tensor.shape).astype(tensor.dtype) for name, tensor in models[0].items()}
    weights = rng.integers(0, 5, n) + (np.arange(n) == 0)
    found = agreement(models, base, weights, threads=2)
    assert found == agreement(models, base, weights, threads=1)
    assert found == agreement(models, base, 7.0 * weights, threads=1)
    wide = [np.concatenate([(m[k].astype(float) - base[k].astype(float)) for k in base]) for m in models]
    mean = sum(share * change for share, change in zip(weights / weights.sum(), wide, strict=True))
    assert found.mean_norm == pytest.approx(np.linalg.norm(mean))
    assert found.norms == pytest.approx([np.linalg.norm(change) for change in wide])
    cosines = [change @ mean / np.linalg.norm(change) / np.linalg.norm(mean) for change in wide]
    assert found.cosines == pytest.approx(cosines, abs=1e-9)
    shares = weights / weights.sum()
    projected = sum(s * c * norm for s, c, norm in zip(shares, found.cosines, found.norms, strict=True))
    assert projected == pytest.approx(found.mean_norm)  # ⟨Σ wᵢ Δᵢ, Δ̄⟩ = ‖Δ̄‖²
