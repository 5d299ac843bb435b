"""The mean of LoRA adapters, against the truncated singular value decomposition of the mean product in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregators import aggregate, parse, run
from aggregators.encoded import EncodedTensor
from aggregators.lora_exact import LoraExact
from aggregators.lora_residual import LoraResidual, lora_residual
from aggregators.low_rank import Products
from aggregators.mean import Mean
from aggregators.rebased import rebased
from aggregators.server import Momentum, Nesterov, Replace
from flavor.cli.serve import check_rule
from flavor.config import RunConfig
from flavor.errors import AggregationError, InvalidSetting

A, B = "base_model.model.h.0.attn.lora_A.weight", "base_model.model.h.0.attn.lora_B.weight"
EMBEDDING_A, EMBEDDING_B = "base_model.model.wte.lora_embedding_A", "base_model.model.wte.lora_embedding_B"


def pair(seed: int, m: int = 12, k: int = 9, r: int = 3, dtype: Any = np.float32, names: Any = (A, B)) -> Any:
    """A site's adapter, near to that of the other sites, and a tensor beside it."""
    start, of = np.random.default_rng(99), np.random.default_rng(seed)
    a = start.uniform(-1, 1, (r, k)) + 0.3 * of.normal(size=(r, k))
    b = 0.2 * start.normal(size=(m, r)) + 0.3 * of.normal(size=(m, r))
    return {names[0]: a.astype(dtype), names[1]: b.astype(dtype), "head": of.normal(size=5).astype(np.float32)}


def product(model: Any, a: str = A, b: str = B) -> Any:
    factor_a, factor_b = (np.asarray(model[name], np.float64) for name in (a, b))
    return factor_b.reshape(factor_b.shape[:2]) @ factor_a.reshape(len(factor_a), -1)


def truncated(matrix: Any, rank: int) -> Any:
    left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank] * sizes[:rank] @ right[:rank]


def mean_product(models: Any, weights: Any) -> Any:
    return sum(w * product(model) for w, model in zip(np.array(weights) / sum(weights), models, strict=True))


def off(one: Any, other: Any) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@settings(max_examples=25)
@given(
    n=st.integers(2, 5),
    m=st.integers(1, 14),
    k=st.integers(1, 14),
    r=st.integers(1, 6),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
def test_the_product_is_the_nearest_of_its_rank(n: int, m: int, k: int, r: int, dtype: Any, seed: int) -> None:
    models = [pair(seed + index, m, k, r, dtype) for index in range(n)]
    weights = [1 + (seed + index) % 7 for index in range(n)]
    made = run(models, weights, reducer=LoraExact()).model
    exact = mean_product(models, weights)
    np.testing.assert_allclose(product(made), truncated(exact, r), atol=1e-9 if dtype is np.float64 else 3e-6)
    assert (made[A].dtype, made[A].shape, made[B].shape) == (dtype, (r, k), (m, r))
    found = lora_residual(models, weights, made)
    assert found is not None
    assert found.relative == pytest.approx(off(product(made), exact), abs=1e-6)


def test_where_all_directions_fit_nothing_is_lost_that_the_plain_mean_loses() -> None:
    """Two sites that train one direction each: the mean has two, and the factors three."""
    models = [pair(seed) for seed in (1, 2)]
    for model, column in zip(models, (0, 1), strict=True):
        model[B][:, [index for index in range(3) if index != column]] = 0
    exact = mean_product(models, [3, 1])
    made = aggregate(models, [3, 1], aggregator="lora-exact")
    plain = aggregate(models, [3, 1])
    assert off(product(made), exact) < 1e-6
    assert off(product(plain), exact) > 0.1
    for model, reducer in ((made, LoraExact()), (plain, Mean())):
        found = lora_residual(models, [3, 1], model)
        assert found is not None, reducer
        assert found.relative == pytest.approx(off(product(model), exact), abs=1e-7)
    # the direction that no site has trained can be trained: A has all three
    np.testing.assert_allclose(made[A] @ made[A].T, np.eye(3) * (made[A][0] @ made[A][0]), atol=1e-5)


def test_all_other_tensors_are_those_of_the_mean() -> None:
    models = [
        pair(seed) | {"steps": np.array(seed), "x.lora_magnitude_vector": np.ones(3) * seed} for seed in (1, 4, 9)
    ]
    made, plain = (aggregate(models, [5, 1, 2], aggregator=rule) for rule in ("lora-exact", "mean"))
    assert isinstance(made, dict)
    assert isinstance(plain, dict)
    for name in ("head", "steps", "x.lora_magnitude_vector"):
        np.testing.assert_array_equal(made[name], plain[name])
    assert not np.array_equal(made[A], plain[A])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_equal_updates_give_that_update_bit_for_bit(n: int) -> None:
    model = pair(3)
    made = run([{name: array.copy() for name, array in model.items()} for _ in range(n)], reducer=LoraExact()).model
    for name, array in model.items():
        np.testing.assert_array_equal(made[name], array)


@pytest.mark.parametrize("frozen", [A, B])
def test_a_factor_that_is_frozen_at_all_sites_stays_bit_for_bit(frozen: str) -> None:
    models = [pair(seed) | {frozen: pair(0)[frozen]} for seed in (1, 2, 3)]
    made = run(models, [1, 2, 3], reducer=LoraExact()).model
    np.testing.assert_array_equal(made[frozen], models[0][frozen])
    assert off(product(made), mean_product(models, [1, 2, 3])) < 1e-6


def test_a_site_of_weight_zero_leaves_no_trace() -> None:
    models = [pair(1), pair(2), pair(3)]
    models[2][A][:] = np.nan
    made = run(models, [1, 2, 0], reducer=LoraExact()).model
    without = run(models[:2], [1, 2], reducer=LoraExact()).model
    for name, array in without.items():
        np.testing.assert_array_equal(made[name], array)


def test_the_order_of_sites_has_no_effect_beyond_rounding() -> None:
    models, weights = [pair(seed) for seed in range(4)], [1, 2, 3, 4]
    first = run(models, weights, reducer=LoraExact()).model
    for order in itertools.islice(itertools.permutations(range(4)), 1, 24, 5):
        made = run([models[i] for i in order], [weights[i] for i in order], reducer=LoraExact()).model
        for name in (A, B):
            np.testing.assert_allclose(made[name], first[name], atol=2e-6)


def test_the_factors_move_as_little_as_the_sites_change_them() -> None:
    """All singular values of the old product are equal, so any turn of its factors would be a decomposition, too."""
    of = np.random.default_rng(0)
    old = pair(0) | {
        A: 0.5 * np.linalg.qr(of.normal(size=(9, 3)))[0].T,
        B: 2 * np.linalg.qr(of.normal(size=(12, 3)))[0],
    }
    sites = [
        {name: (array + 1e-3 * of.normal(size=array.shape)).astype(np.float32) for name, array in old.items()}
        for _ in range(3)
    ]
    made = run(sites, reducer=LoraExact()).model
    for name in (A, B):
        assert off(made[name], old[name]) < 5e-3


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_has_no_effect(threads: int) -> None:
    models = [pair(seed) | pair(seed, 20, 7, 2, names=(EMBEDDING_A, EMBEDDING_B)) for seed in range(3)]
    whole = run(models, [1, 2, 3], reducer=LoraExact(), threads=1).model
    done: list[str] = []
    out = {name: np.empty_like(array) for name, array in models[0].items()}
    cut = run(models, [1, 2, 3], reducer=LoraExact(), threads=threads, block_elems=7, out=out, completed=done.append)
    assert sorted(done) == sorted(models[0])
    for name, array in whole.items():
        np.testing.assert_array_equal(cut.model[name], array)


def test_a_long_factor_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [pair(seed, m=500, k=300, r=4) for seed in range(3)]
    whole = run(models, reducer=LoraExact()).model
    monkeypatch.setattr("aggregators.low_rank._ELEMENTS", 100)
    in_pieces = run(models, reducer=LoraExact()).model
    steps = [rows.stop - rows.start for rows, _ in Products(plan_of(models).terms).b_rows()]
    assert max(steps) == 12, "as many rows as columns"
    np.testing.assert_allclose(product(in_pieces), product(whole), atol=1e-5)


def plan_of(models: Any) -> Any:
    from aggregators.models import Models
    from aggregators.protocols import Weights

    return LoraExact().plan(Models(models, None, 1), Weights.of(None, len(models))).joint[0]


def test_embeddings_adapter_names_nested_names_and_convolutions() -> None:
    """As peft names them in `get_peft_model_state_dict` and in `state_dict`, and as torch checkpoints are flattened."""
    names = [
        (EMBEDDING_A, EMBEDDING_B),
        ("h.1.mlp.lora_A.default.weight", "h.1.mlp.lora_B.default.weight"),
        ("model/lora_A.0.q.lora_A.site.weight", "model/lora_A.0.q.lora_B.site.weight"),
    ]
    sites = [{name: array for pair_ in names for name, array in pair(seed, names=pair_).items()} for seed in range(3)]
    for seed, site in enumerate(sites):
        conv = pair(seed + 50, m=6, k=2 * 9, r=3)
        site |= {"c.lora_A.weight": conv[A].reshape(3, 2, 3, 3), "c.lora_B.weight": conv[B].reshape(6, 3, 1, 1)}
    names.append(("c.lora_A.weight", "c.lora_B.weight"))
    made = run(sites, reducer=LoraExact()).model
    for a, b in names:
        exact = sum(product(site, a, b) for site in sites) / 3
        np.testing.assert_allclose(product(made, a, b), truncated(exact, 3), atol=3e-6)
    assert made["c.lora_A.weight"].shape == (3, 2, 3, 3)
    found = lora_residual(sites, None, made)
    assert found is not None
    assert found.pairs == 4
    assert found.worst in {b for _, b in names}


def test_other_names_by_options() -> None:
    names = ("unet.q.lora_down.weight", "unet.q.lora_up.weight")
    models = [pair(seed, names=names) | {"unet.q.alpha": np.float32(4)} for seed in range(3)]
    made = aggregate(models, aggregator="lora-exact:a=lora_down,b=lora_up")
    exact = sum(product(model, *names) for model in models) / 3
    np.testing.assert_allclose(product(made, *names), truncated(exact, 3), atol=3e-6)
    models[2]["unet.q.alpha"] = np.float32(8)
    with pytest.raises(AggregationError, match=r"'unet.q.alpha' is 4.0 at client 0 and 8.0 at client 2: the products"):
        aggregate(models, aggregator="lora-exact:a=lora_down,b=lora_up")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_types_are_rounded_once(dtype: Any) -> None:
    models = [pair(seed, dtype=dtype) for seed in range(3)]
    made = run(models, reducer=LoraExact()).model
    assert made[A].dtype == dtype
    assert off(product(made), truncated(mean_product(models, [1, 1, 1]), 3)) < 1e-2


def test_compressed_updates_count_as_what_they_decode_to() -> None:
    base = pair(7)
    change = [pair(seed) for seed in range(3)]
    sent = [{n: (base[n] - each[n]).astype(ml_dtypes.bfloat16) for n in base} for each in change]
    encoded: Any = [{n: EncodedTensor(base[n], each[n]) for n in base} for each in sent]
    decoded = [{n: np.asarray(tensor) for n, tensor in each.items()} for each in encoded]
    made, expected = (run(models, [1, 2, 3], reducer=LoraExact()).model for models in (encoded, decoded))
    for name, array in expected.items():
        np.testing.assert_array_equal(made[name], array)


def test_a_stale_change_is_that_of_the_product() -> None:
    """The newest factors are others than those that the site began from: only products can be added."""
    newest, mine, fresh = pair(1), pair(2), pair(3)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    base = newest | {A: (turn.T @ newest[A]).astype(np.float32), B: (newest[B] @ turn).astype(np.float32)}
    moved = rebased(mine, base, newest, 0.5)
    made = run([moved, fresh], [3, 1], reducer=LoraExact(), global_model=newest).model
    exact = 0.75 * (product(newest) + 0.5 * (product(mine) - product(base))) + 0.25 * product(fresh)
    np.testing.assert_allclose(product(made), truncated(exact, 3), atol=3e-6)
    found = lora_residual([moved, fresh], [3, 1], made)
    assert found is not None
    assert found.relative == pytest.approx(off(product(made), exact), abs=1e-6)


def test_a_frozen_pair_stays_in_an_asynchronous_round() -> None:
    frozen = pair(1)
    moved = rebased({**frozen, "head": pair(2)["head"]}, frozen, frozen, 0.5)
    made = run([moved, frozen], reducer=LoraExact(), global_model=frozen).model
    for name in (A, B):
        np.testing.assert_array_equal(made[name], frozen[name])


def untrained(a: float, b: float) -> Any:
    """Three sites with a pair that none trains, so that B is 0, and factors of these sizes in place of the last one."""
    models = [pair(0, dtype=np.float64) for _ in range(3)]
    for model in models:
        model[B][:] = 0
    return [*models[:2], {**models[2], A: models[2][A] * a, B: pair(1, dtype=np.float64)[B] * b}]


@pytest.mark.parametrize(("a", "b"), [(1e-310, 1e-14), (1e-310, 0.01), (1e-310, 1e10), (1e-160, 1.0)])
def test_a_product_without_digits_is_rounding(a: float, b: float) -> None:
    models = untrained(a, b)
    made = run(models, reducer=LoraExact())
    assert made.nonfinite == ()
    assert off(made.model[A], np.mean([model[A] for model in models], axis=0)) < 0.5


def test_values_that_no_decomposition_takes_give_a_model_that_is_named(monkeypatch: Any) -> None:
    """The core of these is finite, and its inverse is not: that reaches the polar decomposition."""
    assert set(run(untrained(1e-310, 1e20), reducer=LoraExact()).nonfinite) == {A, B}

    def fails(*_: Any, **__: Any) -> Any:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", fails)
    assert set(run([pair(0), pair(1)], reducer=LoraExact()).nonfinite) == {A, B}


def test_a_product_of_large_factors_that_no_update_may_have_is_named() -> None:
    """Both factors pass an inspection. The rule gives all rows of A' one length, and what that takes goes into B'."""
    models = [pair(seed, r=9) for seed in (0, 1)]
    models[1][A][1:], models[1][A][0] = 0, 1
    models[1][B][:, 1:], models[1][B][:, 0] = 0, 5e18
    made = run(models, [1, 30], reducer=LoraExact())
    assert (made.huge, made.nonfinite) == ((B,), ())
    assert made.reach is not None
    first, second = made.reach()
    assert second > first


def test_a_model_that_is_not_finite_gives_one_that_is_named() -> None:
    models = [pair(1), pair(2)]
    models[1][B][0, 0] = np.inf
    assert set(run(models, reducer=LoraExact()).nonfinite) == {A, B}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {A: None, B: None},
            r"needs tensors in pairs, called ….lora_A.… and ….lora_B.…, and this model has none: choose",
        ),
        ({B: None}, rf"tensor '{A}' has no partner '{B}'.* fedavg is exact"),
        ({A: None}, rf"tensor '{B}' has no partner '{A}'"),
        ({B: (12, 2)}, rf"'{A}' \(3, 9\) and '{B}' \(12, 2\) are no A \[r, k\] and B \[m, r\] of one rank r$"),
        ({A: (4, 2, 3, 3), B: (6, 2, 1, 1)}, r"are no A \[r, k\] .* of one rank r \(of a convolution in groups\?\)"),
        ({A.replace("_A.", "_E."): (3, 1)}, r"lora_E.weight' stands between '.*' and '.*' \(AdaLoRA\)"),
        (
            {"scaffold_c__x_lora_A": (3, 9)},
            r"'scaffold_c__x_lora_A' is a control variate of SCAFFOLD, .* choose fedavg",
        ),
    ],
)
def test_what_has_no_mean_is_refused_by_name(changed: dict[str, Any], message: str) -> None:
    models = []
    for seed in range(2):
        model = pair(seed)
        for name, shape in changed.items():
            model.pop(name, None)
            if shape is not None:
                model[name] = np.ones(shape, np.float32) * seed
        models.append(model)
    with pytest.raises(AggregationError, match=message) as caught:
        aggregate(models, aggregator="lora-exact")
    assert "\n" not in str(caught.value)


def test_one_rank_at_all_sites() -> None:
    with pytest.raises(AggregationError, match=rf"client 1: tensor '{A}' has shape \(2, 9\); client 0 has \(3, 9\)"):
        aggregate([pair(1), pair(2, r=2)], aggregator="lora-exact")


def test_factors_of_two_types_are_refused() -> None:
    models = [pair(seed) | {A: pair(seed, dtype=np.float64)[A]} for seed in range(2)]
    with pytest.raises(AggregationError, match=rf"'{A}' is float64, and '{B}' is float32: both have to be of one type"):
        aggregate(models, aggregator="lora-exact")


def test_one_factor_alone_cannot_be_kept() -> None:
    models, kept = [pair(1), pair(2)], pair(3)
    with pytest.raises(AggregationError, match=rf"'{A}' is kept as it is, and its partner is not: keep both, or none"):
        run(models, reducer=LoraExact(), held={A: kept[A]})
    made = run(models, reducer=LoraExact(), held={A: kept[A], B: kept[B]}).model
    np.testing.assert_array_equal(made[A], kept[A])


def test_what_goes_with_it_and_what_does_not() -> None:
    assert parse("lora-exact") == parse("lora-exact", "replace")
    for step in ("momentum", "nesterov", "adam"):
        with pytest.raises(InvalidSetting, match=rf"'{step}' with 'lora-exact': lora-exact chooses new factors"):
            parse("lora-exact", step)
    with pytest.raises(InvalidSetting, match=r"'norm_clip:c=1/lora-exact': lora-exact reads A and B together"):
        parse("norm_clip:c=1/lora-exact")
    with pytest.raises(InvalidSetting, match=r"'lora-exact:a=x,b=x': lora-exact needs two different names a and b"):
        parse("lora-exact:a=x,b=x")
    with pytest.raises(
        InvalidSetting, match=r"--server-step: 'adam' with 'lora-exact': lora-exact chooses new factors"
    ):
        check_rule(RunConfig(rounds=1, store="store", aggregator="lora-exact", server_step="adam"))
    base = pair(0)
    for server_step in (Momentum(), Nesterov()):
        with pytest.raises(AggregationError, match=f"{server_step.name}: lora-exact chooses new factors"):
            run([pair(1), pair(2)], reducer=LoraExact(), server_step=server_step, global_model=base)


def test_the_residual_names_the_worst_pair_and_counts_no_control_variates() -> None:
    other = ("y.lora_A.weight", "y.lora_B.weight")
    models = [pair(seed) | pair(0, names=other) for seed in range(3)]
    for model in models:
        model["scaffold_c__y.lora_A.weight"] = model["scaffold_c__y.lora_B.weight"] = np.ones((3, 3), np.float32)
    made = run(models, reducer=Mean(), server_step=Replace()).model
    found = lora_residual(models, None, made)
    assert found is not None
    assert (found.pairs, found.worst) == (2, B)
    assert 0.01 < found.relative < found.most
    assert lora_residual([{"w": np.ones(3)}], None, {"w": np.ones(3)}) is None
    assert isinstance(found, LoraResidual)


def test_the_residual_takes_a_bounded_number_of_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each second pair counts where all are too many, and none where one is too much."""
    pairs = [(f"{index}.lora_A.weight", f"{index}.lora_B.weight") for index in range(4)]
    models = [{name: array for at in pairs for name, array in pair(seed, names=at).items()} for seed in range(2)]
    made = run(models, reducer=Mean(), server_step=Replace()).model
    whole = lora_residual(models, None, made)
    assert whole is not None
    assert (whole.pairs, whole.left_out) == (4, 0)
    a = made[pairs[0][0]]
    one = (a.shape[1] + made[pairs[0][1]].shape[0]) * (3 * a.shape[0]) ** 2
    monkeypatch.setattr("aggregators.lora_residual.MOST_WORK", 3 * one)
    some = lora_residual(models, None, made)
    assert some is not None
    assert (some.pairs, some.left_out) == (2, 2)
    assert 0 < some.relative < 1
    monkeypatch.setattr("aggregators.lora_residual.MOST_COLUMNS", 3 * a.shape[0] - 1)
    none = lora_residual(models, None, made)
    assert none is not None
    assert (none.pairs, none.left_out) == (0, 4)
    assert math.isnan(none.relative)


def test_a_residual_that_is_rounding_is_0_and_of_what_is_not_finite_nan() -> None:
    models = [pair(1)] * 3
    found = lora_residual(models, None, models[0])
    assert found is not None
    assert found.relative == 0
    broken = lora_residual(models, None, models[0] | {A: np.full_like(models[0][A], np.inf)})
    assert broken is not None
    assert math.isnan(broken.relative)
