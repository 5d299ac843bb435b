"""FedNova against equation 11 of its paper, and what it does with equal steps, statistics, integers and other rules."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregators import aggregate, run
from aggregators.clip import NormClip
from aggregators.mean import Mean
from aggregators.normalised import FedNova
from aggregators.order_statistics import Median
from aggregators.protocols import needs_steps
from aggregators.rebased import rebased
from flavor.errors import AggregationError


def drawn(seed: int, n: int, size: int = 30) -> tuple[Any, Any, Any, list[float]]:
    """The old global model, the clients' models, their weights and their local steps."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=size)
    return base, base + rng.normal(size=(n, size)), rng.integers(1, 900, n), [float(a) for a in rng.integers(1, 400, n)]


def middle(weights: Any, steps: list[float]) -> float:
    """The fewest steps such that half of the weight has no more of them."""
    half = sum(int(w) for w in weights) / 2
    return min(a for a in steps if sum(int(w) for w, b in zip(weights, steps, strict=True) if b <= a) >= half)


def closed_form(base: Any, rows: Any, weights: Any, steps: list[float]) -> Any:
    shares = np.asarray(weights) / np.sum(weights)
    scales = [min(100.0, middle(weights, steps) / a) for a in steps]
    return base - sum(p * s * (base - row) for p, s, row in zip(shares, scales, rows, strict=True))


def reduced(reducer: Any, base: Any, rows: Any, weights: Any, steps: Any, **more: Any) -> Any:
    parts = [{f"w{place}": part for place, part in enumerate(np.split(row, 3))} for row in (base, *rows)]
    made = run(parts[1:], weights, reducer=reducer, global_model=parts[0], local_steps=steps, **more).model
    return np.concatenate(list(made.values()))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 9))
def test_the_model_is_that_of_the_closed_form(seed: int, n: int) -> None:
    base, rows, weights, steps = drawn(seed, n)
    wanted = closed_form(base, rows, weights, steps)
    np.testing.assert_allclose(reduced(FedNova(), base, rows, weights, steps), wanted, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_steps_are_the_weighted_mean_bit_for_bit(dtype: type) -> None:
    for seed in range(40):
        base, rows, weights, _ = drawn(seed, 5)
        base, rows = base.astype(dtype), rows.astype(dtype)
        mean = reduced(Mean(), base, rows, weights, None)
        for steps in (7.0, 0.1, 1e12):
            assert reduced(FedNova(), base, rows, weights, [steps] * 5).tobytes() == mean.tobytes()


def test_without_an_extreme_client_the_model_is_that_of_the_paper() -> None:
    """Equation 11 with τ_eff a number that the server chooses."""
    base, rows, _, _ = drawn(3, 5)
    steps = [20.0, 5.0, 10.0, 40.0, 8.0]
    wanted = base - 10 * np.mean([(base - row) / a for row, a in zip(rows, steps, strict=True)], axis=0)
    np.testing.assert_allclose(reduced(FedNova(), base, rows, [7] * 5, steps), wanted, rtol=1e-12)


@pytest.mark.parametrize("reported", [1e-320, 1e-30, 1e-3, 1e3, 1e12])
@pytest.mark.parametrize("n", [2, 3, 4, 9])
def test_steps_that_one_client_makes_up_enlarge_no_change_but_its_own(reported: float, n: int) -> None:
    """The other clients' changes count as with steps that one of them reports, or with less; its own 100 times."""
    models: list[Any] = [{"w": row} for row in np.eye(n)]
    steps = [*(10.0 + client for client in range(n - 1)), reported]
    made: Any = aggregate(models, aggregator="fednova", global_model={"w": np.zeros(n)}, local_steps=steps)
    found = made["w"] * n  # the scale of each client
    assert (found[:-1] <= max(steps[:-1]) / np.array(steps[:-1]) * (1 + 1e-12)).all()
    assert found[-1] <= 100 * (1 + 1e-12)
    if n > 2:  # of two clients, none is in the majority
        assert (found[:-1] >= min(steps[:-1]) / np.array(steps[:-1]) * (1 - 1e-12)).all()


def test_a_weight_counts_in_the_median_where_it_counts_in_the_rule_behind() -> None:
    base, rows, steps = np.zeros(3), np.ones((3, 3)), [1.0, 2.0, 8.0]
    mean = reduced(FedNova(), base, rows, [1, 1, 98], steps)  # 8 steps
    np.testing.assert_allclose(mean, 8 * 0.01 + 4 * 0.01 + 0.98)
    assert (reduced(FedNova(Median()), base, rows, [1, 1, 98], steps) == 1).all(), "2 steps"


def test_a_client_that_does_not_count_has_no_say_in_the_steps() -> None:
    base, rows, weights, _ = drawn(4, 3)
    weights[1] = 0
    mean = reduced(Mean(), base, rows, weights, None)
    assert reduced(FedNova(), base, rows, weights, [5, 999, 5]).tobytes() == mean.tobytes()


def test_only_parameters_are_divided() -> None:
    """A variance moved ten times as far would be negative; a counter has no steps."""
    theta = {"w": np.ones(8), "bn.running_var": np.full(8, 1.0), "temperature": np.array(1.0), "n": np.array([10])}
    low = {"w": np.zeros(8), "bn.running_var": np.full(8, 0.1), "temperature": np.array(0.5), "n": np.array([20])}
    high = {name: tensor * 1 for name, tensor in theta.items()}
    models: list[Any] = [low, high, high]
    made: Any = aggregate(models, aggregator="fednova", global_model=theta, local_steps=[1, 39, 39])
    np.testing.assert_allclose(made["w"], 1 - 39 * 1 / 3)
    np.testing.assert_allclose(made["bn.running_var"], 0.7)
    assert (round(float(made["temperature"]), 9), made["n"]) == (0.833333333, 13)


def test_a_server_step_takes_the_mean_change() -> None:
    base, rows, weights, steps = drawn(5, 4)
    models, theta = [{"w": row} for row in rows], {"w": base}
    made: Any = aggregate(
        models, weights, aggregator="fednova", server_step="momentum:lr=0.5", global_model=theta, local_steps=steps
    )
    wanted = base - 0.5 * (base - closed_form(base, rows, weights, steps))
    np.testing.assert_allclose(made[0]["w"], wanted, rtol=1e-12, atol=1e-12)


def test_rules_before_and_behind_see_what_is_theirs() -> None:
    base, rows, weights, steps = drawn(6, 5)
    scales = middle([1] * 5, steps) / np.array(steps)  # weights do not count in a median
    moved = base + scales[:, None] * (rows - base)
    median = reduced(FedNova(Median()), base, rows, weights, steps)
    np.testing.assert_allclose(median, np.median(moved, axis=0), rtol=1e-12, atol=1e-12)
    for bound in (1e-2, 1.0, 8.0):
        behind = reduced(FedNova(NormClip(bound)), base, rows, [3] * 5, steps)
        before = reduced(NormClip(bound, FedNova()), base, rows, weights, steps)
        np.testing.assert_allclose(behind, reduced(NormClip(bound), base, moved, [3] * 5, None), atol=1e-12)
        norms = np.linalg.norm(rows - base, axis=1)
        near = base + np.minimum(1, bound / norms)[:, None] * (rows - base)
        np.testing.assert_allclose(before, closed_form(base, near, weights, steps), atol=1e-10)


def test_two_rules_in_a_row_do_not_share_what_they_write() -> None:
    """The rule in front moves some clients, the one behind moves others."""
    base, rows, weights, _ = drawn(7, 4)
    rows[0] = base + 0.5 * (rows[0] - base)
    bound = float(np.linalg.norm(rows[0] - base)) * 1.01  # that of client 0 stays
    found = reduced(NormClip(bound, NormClip(bound / 2)), base, rows, weights, None)
    np.testing.assert_allclose(found, reduced(NormClip(bound / 2), base, rows, weights, None), atol=1e-12)


def test_a_stale_client_is_moved_first_and_divided_then() -> None:
    base, rows, weights, steps = drawn(8, 3)
    older = base + np.random.default_rng(1).normal(size=base.size)
    stale: Any = rebased({"w": rows[1]}, {"w": older}, {"w": base}, 0.5)
    models: list[Any] = [{"w": rows[0]}, stale, {"w": rows[2]}]
    found = run(models, weights, reducer=FedNova(), global_model={"w": base}, local_steps=steps).model["w"]
    rows[1] = base + 0.5 * (rows[1] - older)
    np.testing.assert_allclose(found, closed_form(base, rows, weights, steps), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (None, "fednova needs the number of local steps of each client"),
        ([1, 2], "2 numbers of local steps for 3 clients"),
        ([1, 0, 2], "client 1 has 0 local steps"),
        ([1, -3, 2], "client 1 has -3 local steps"),
        ([1, float("nan"), 2], "client 1 has nan local steps"),
        ([1, 1e308, 2], "client 1 has 1e+308 local steps"),
    ],
)
def test_steps_that_cannot_be_divided_by(steps: Any, said: str) -> None:
    base, rows, weights, _ = drawn(9, 3)
    with pytest.raises(AggregationError, match=re.escape(said)):
        reduced(FedNova(), base, rows, weights, steps)


def test_a_rule_needs_steps_also_behind_another_one() -> None:
    assert needs_steps(FedNova())
    assert needs_steps(NormClip(1.0, FedNova()))
    assert not needs_steps(NormClip(1.0))
    assert not needs_steps(Mean())
