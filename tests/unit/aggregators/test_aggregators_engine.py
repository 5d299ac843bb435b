"""What the engine promises whatever the rule: blocks and threads do not show, memory stays flat, nothing overflows."""

from __future__ import annotations

import itertools
import os
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from aggregators import blocks, geometric, run
from aggregators.clip import NormClip
from aggregators.distance import CHUNK, pairwise
from aggregators.geometric import GeometricMedian
from aggregators.krum import Bulyan, Krum, MultiKrum
from aggregators.mean import MAX_SPREAD, Mean
from aggregators.models import Models
from aggregators.normalised import FedNova
from aggregators.order_statistics import Median, TrimmedMean
from aggregators.protocols import Weights
from aggregators.reach import reach_of
from aggregators.server import Adam, Momentum, Nesterov, Yogi
from flavor.checkpoints import is_odd
from flavor.errors import AggregationError

SIZES = (1, CHUNK - 1, CHUNK, CHUNK + 1, 98_303, 98_304, 200_001)
"""Of tensors, on both sides of the borders of chunks and of the blocks of distances."""

RULES = [
    Mean(),
    Median(),
    TrimmedMean(2),
    Krum(1),
    MultiKrum(2),
    Bulyan(1),
    GeometricMedian(3, tol=0),
    NormClip(1.0),
    NormClip("median", MultiKrum(2)),
]


def random_models(n: int, dtype: Any = np.float32, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    rng = np.random.default_rng(n)
    return [{f"t{size}": rng.standard_normal(size).astype(dtype) for size in sizes} for _ in range(n)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 6, 11])
def test_pairwise_distances(n: int, dtype: Any) -> None:
    models = random_models(n, dtype)
    rows = np.array([np.concatenate(list(model.values())) for model in models]).astype(np.float64)
    got = pairwise(Models(models, None, 2))
    wanted = [[np.sum((a - b) ** 2) for b in rows] for a in rows]
    np.testing.assert_allclose(got, wanted, rtol=1e-6 if dtype == np.float32 else 1e-13)
    np.testing.assert_array_equal(got, pairwise(Models(models, None, 1)))
    order = np.random.default_rng(0).permutation(n)
    np.testing.assert_array_equal(
        pairwise(Models([models[i] for i in order], None, 3)), got[np.ix_(order, order)], "the order shows"
    )


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("reducer", RULES, ids=repr)
def test_block_size_and_threads_do_not_show_in_large_models(reducer: Any, dtype: Any) -> None:
    models, (base,) = random_models(7, dtype), random_models(1, dtype)
    for step in (Nesterov(), Yogi()):
        wanted = run(models, range(1, 8), reducer=reducer, server_step=step, global_model=base, threads=1)
        for threads, block_elems in [(2, 1 << 20), (3, 5003)]:
            settings: dict[str, Any] = {"threads": threads, "block_elems": block_elems}
            got = run(models, range(1, 8), reducer=reducer, server_step=step, global_model=base, **settings)
            assert wanted.state is not None
            assert got.state is not None
            for name, tensor in wanted.model.items():
                assert got.model[name].tobytes() == tensor.tobytes()
            for key, tensor in wanted.state.tensors.items():
                assert got.state.tensors[key].tobytes() == tensor.tobytes()


def test_threads_are_started_for_large_models_and_not_for_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "SMALL_ELEMENTS", 1000)
    pools: list[int] = []
    real = blocks.ThreadPoolExecutor
    monkeypatch.setattr(blocks, "ThreadPoolExecutor", lambda n, **named: pools.append(n) or real(n, **named))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for size, expected in ((999 // 3, []), (1000 // 3 + 1, [cores] if cores != 1 else [])):
        pools.clear()
        run([{"w": np.ones(size)}] * 3)
        assert pools == expected, size
    run([{"w": np.ones(3)}] * 3, threads=2)
    assert pools[-1] == 2, "who asks for threads gets them"


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("reducer", RULES, ids=repr)
def test_memory_is_one_model_and_a_constant_for_any_number_of_clients(reducer: Any, dtype: Any) -> None:
    model = {"w": np.ones(2**19, dtype)}  # a few blocks for each thread, of any rule
    size = model["w"].nbytes
    quadratic = isinstance(reducer, Krum | MultiKrum | Bulyan) or reducer == NormClip("median", MultiKrum(2))
    for n in (10, 30 if quadratic else 50):
        tracemalloc.start()
        try:
            run([model] * n, range(1, n + 1), reducer=reducer, global_model=model, threads=2)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1.3 * size + 36 * 2**20, f"{peak / 2**20:.0f} MiB for {n} clients"


HUGE = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 5], [1, 1, 4 * MAX_SPREAD]])
def test_a_mean_is_finite_where_its_sum_is_not(weights: list[float]) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 3000)).astype(np.float32)
    values[:, ::7] = rng.uniform(0.6, 1, (3, 429)) * HUGE
    values[:, 7] = HUGE
    values[0, 100], values[1, 200], values[2, 300] = np.inf, -np.inf, np.nan
    models = [{"w": row} for row in values]
    got = run(models, weights, threads=1).model["w"]
    share = np.array(weights, np.float64) / sum(weights)
    wanted = (values.astype(np.float64) * share[:, None]).sum(axis=0)
    assert got[7] == np.float32(HUGE)
    np.testing.assert_array_equal(got[[100, 200]], [np.inf, -np.inf])
    assert np.isnan(got[300])
    finite = np.isfinite(wanted)
    assert np.isfinite(got[finite]).all()
    np.testing.assert_allclose(got[finite], wanted[finite], rtol=1e-5, atol=1e-5)
    for block_elems in (1, 13, 1000):
        np.testing.assert_array_equal(run(models, weights, threads=2, block_elems=block_elems).model["w"], got)


def spread_models(far: float) -> tuple[list[dict[str, Any]], Any]:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((8, 5000)) * 0.01 + rng.standard_normal(5000)
    rows[6:] += far * rng.standard_normal(5000)
    return [{"w": row.astype(np.float32)} for row in rows], rows.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("far", [0.0, 0.3, 1e6, 1e12])
def test_a_geometric_median_by_pairs_is_the_one_by_passes(far: float, monkeypatch: pytest.MonkeyPatch) -> None:
    models, rows = spread_models(far)
    weights = np.arange(1, 9) / 36
    z = np.median(rows, axis=0)
    for _ in range(12):
        beta = weights / np.maximum(1e-6, np.linalg.norm(rows - z, axis=1))
        z = beta @ rows / beta.sum()
    passes: list[str] = []
    slow = geometric._distances_from_mean
    monkeypatch.setattr(geometric, "_distances_from_mean", lambda *args: passes.append("") or slow(*args))
    by_pairs = run(models, weights, reducer=GeometricMedian(12, tol=0)).model["w"]
    assert (len(passes) > geometric.FIRST_PASSES) == (far > 1e3), (
        "the distances between clients should be enough unless one is far away"
    )
    monkeypatch.setattr(geometric, "MOST_PAIRED", 0)
    by_passes = run(models, weights, reducer=GeometricMedian(12, tol=0)).model["w"]
    for got in (by_pairs, by_passes):
        np.testing.assert_allclose(got, z, rtol=1e-4, atol=1e-4)


def test_a_geometric_median_ends_when_its_own_objective_no_longer_falls() -> None:
    # Where distances are below nu, the plain sum of distances rises while the smoothed one falls.
    rows = np.random.default_rng(31744).standard_normal((4, 40)).astype(np.float64)
    weights = np.random.default_rng(31744).uniform(1, 5, 4)
    models = [{"w": row} for row in rows]
    seen: list[float] = []

    class Watched(GeometricMedian):
        def _objective(self, w: Any, distances: Any) -> float:
            seen.append(super()._objective(w, distances))
            return seen[-1]

    run(models, weights, reducer=Watched(40, nu=5.5, tol=1e-12))
    assert len(seen) > 5
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(seen))
    fall = [1 - later / earlier for earlier, later in itertools.pairwise(seen)]
    assert all(part >= 1e-12 for part in fall[:-1])
    seen.clear()
    run(models, weights, reducer=Watched(40, nu=5.5, tol=0))
    assert len(seen) == 40


def test_a_client_of_weight_zero_leaves_no_trace_in_a_geometric_median() -> None:
    models, _ = spread_models(1.0)
    wanted = run(models[:7], range(1, 8), reducer=GeometricMedian()).model["w"]
    bad = {"w": np.full(5000, np.nan, np.float32)}
    got = run([*models[:7], bad], [*range(1, 8), 0], reducer=GeometricMedian())
    np.testing.assert_array_equal(got.model["w"], wanted)
    assert 7 not in got.clients
    got = run([*models[:7], bad], range(1, 9), reducer=GeometricMedian())  # nor one that is not finite
    np.testing.assert_array_equal(got.model["w"], wanted)
    assert 7 not in got.clients
    with pytest.raises(AggregationError, match="none of the 2 clients is at a finite distance"):
        run([bad, bad], reducer=GeometricMedian())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("far", [1e30, -3.4e38, 1e300])
@pytest.mark.parametrize(
    "reducer", [GeometricMedian(), Median(), TrimmedMean(1), Krum(1), MultiKrum(1), Bulyan(1), NormClip("median")]
)
def test_one_client_that_is_as_far_as_numbers_go_moves_nobody(reducer: Any, far: float, dtype: Any) -> None:
    """In doors 7 `geometric_median` failed the run: "distances of all 7 clients overflow"."""
    rng = np.random.default_rng(7)
    models = [{"w": rng.standard_normal(5000).astype(dtype)} for _ in range(8)]
    base = {"w": np.zeros(5000, dtype)}
    honest = run(models[:7], reducer=reducer, global_model=base)
    with np.errstate(over="ignore"):
        models[7]["w"][::3] = min(abs(far), float(np.finfo(dtype).max)) * np.sign(far)
    got = run(models, reducer=reducer, global_model=base)
    assert got.nonfinite == ()
    assert np.linalg.norm(got.model["w"] - honest.model["w"]) < 40  # of norms of about 70


def test_what_has_no_room_in_its_type_is_named() -> None:
    """An update of weight 1 in 201 left Adam's v infinite, and froze the model for good."""
    theta = {"w": np.zeros(3, np.float32), "b": np.zeros(2, np.float32), "n": np.array([1])}
    bad = {"w": np.array([1, -3.4e38, 1], np.float32), "b": np.ones(2, np.float32), "n": np.array([2])}
    got = run([theta, bad], [200, 1], server_step=Adam(), global_model=theta)
    assert got.nonfinite == ("v/w",)
    assert got.differing == ("n",)
    assert run([theta, theta], server_step=Adam(), global_model=theta).nonfinite == ()
    half = {"w": np.full(3, 6e4, np.float16)}
    step = Nesterov(0.7, 0.9)
    got = run([half], server_step=step, global_model={"w": np.full(3, -6e4, np.float16)})
    assert got.nonfinite == ("w",), "it is finite in float32, and not in float16"
    assert got.state is not None
    assert run([half], global_model=half).nonfinite == ()


@pytest.mark.parametrize("size", [3, 300_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16, np.float16])
def test_a_model_is_huge_as_an_inspection_judges_its_tensors(dtype: Any, size: int) -> None:
    """Also where all squares together have no room, and those of each block that an inspection looks at have."""
    for far in (1.0, 1e14, 2e16, 1e18, 1e19, 1e20, 1e100, 1e152, 1e155):
        if far < float(ml_dtypes.finfo(dtype).max):
            model = {"w": np.full(size, far, dtype), "b": np.full(2, 1e3, dtype), "n": np.array([2**62])}
            for threads in (1, 2):
                got = run([model, model], threads=threads, held={"b": model["b"]})
                assert got.huge == (("w",) if is_odd(model["w"]) else ()), far
                assert got.nonfinite == ()
                assert (got.reach is None) is (not got.huge)


def test_the_reach_of_a_client_is_what_the_rule_makes_of_its_change() -> None:
    """A change that fednova enlarges, or a clip shortens, counts so; a statistic is not divided."""
    theta = {"w": np.zeros(2, np.float32), "running_var": np.zeros(2, np.float32)}
    far = {"w": (3e18, 1e18, 2e18), "running_var": (3e18, 1e18, 2e18)}
    models = [{name: np.float32([0, each[client]]) for name, each in far.items()} for client in range(3)]
    steps = [30.0, 1.0, 30.0]

    def found(reducer: Any, weights: Any = (1, 1, 1), name: str = "w") -> Any:
        source = Models(models, theta, 1)
        source.statistics = frozenset({"running_var"})
        return reach_of(source, reducer.plan(source, Weights.of(weights, 3, steps)), [name])

    np.testing.assert_allclose(found(FedNova()), [3e18, 3e19, 2e18], rtol=1e-6)
    np.testing.assert_allclose(found(FedNova(), name="running_var"), [3e18, 1e18, 2e18], rtol=1e-6)
    np.testing.assert_allclose(found(FedNova(NormClip(1e18)))[1], 1e18, rtol=1e-2)
    np.testing.assert_allclose(found(NormClip(1e18, FedNova()))[1], 30 * 1e18 / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(found(Mean(), (1, 1, 4)), [7.5e17, 2.5e17, 2e18], rtol=1e-6)
    np.testing.assert_allclose(found(Median(), (1, 1, 4)), [3e18, 1e18, 2e18], rtol=1e-6)
    got = run(models, reducer=FedNova(), server_step=Momentum(5.0), global_model=theta, local_steps=steps)
    assert got.huge == ("w",)
    assert got.reach is not None
    np.testing.assert_allclose(got.reach(), [3e18, 3e19, 2e18], rtol=1e-6)


@pytest.mark.parametrize("reducer", RULES, ids=repr)
def test_what_is_held_comes_out_as_given_and_takes_no_part(reducer: Any) -> None:
    models = random_models(7, sizes=(100, 3))
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    plain = run(models, reducer=reducer, server_step=Nesterov(), global_model=models[0])
    held = {"mask": mask, "labels": np.arange(5)}
    with_mask = [{"mask": mask, **model, "labels": np.arange(5) * i} for i, model in enumerate(models)]
    got = run(with_mask, reducer=reducer, server_step=Nesterov(), global_model=with_mask[0], held=held)
    assert got.nonfinite == got.differing == ()
    assert got.clients == plain.clients
    for name in (*models[0], *held):
        np.testing.assert_array_equal(got.model[name], {**plain.model, **held}[name])
    assert got.state is not None
    assert got.state.tensors.keys() == {f"momentum/{name}" for name in models[0]}
