"""Every rule over models of any shapes, types, numbers of clients and weights, against its definition in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aggregators import ServerState, run
from aggregators.clip import NormClip
from aggregators.geometric import GeometricMedian
from aggregators.krum import Bulyan, Krum, MultiKrum
from aggregators.mean import Mean
from aggregators.order_statistics import Median, TrimmedMean
from aggregators.server import Adagrad, Adam, Momentum, Nesterov, Replace, Yogi
from tests.lazy import Lazy

torch = Lazy("torch")
functional = Lazy("torch.optim.sgd")
"""What `torch.optim.SGD` calls, whose first use imports a compiler for seconds."""

Model = dict[str, Any]
FLOATS = [np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]
WHOLE = [np.dtype(t) for t in (np.int8, np.uint8, np.int32, np.int64, np.bool_)]

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
layouts = st.lists(st.tuples(shapes, st.sampled_from([*FLOATS, *FLOATS, *WHOLE])), min_size=1, max_size=5)
"""Shapes and types of a model's tensors: scalars and empty ones too, floats more often than not."""


@dataclass
class Case:
    """Some clients, their weights, and an old global model."""

    models: list[Model]
    weights: list[int]
    base: Model

    def floats(self, model: Model) -> Any:
        """All float tensors of a model as one float64 vector."""
        chosen = [np.asarray(t, np.float64).reshape(-1) for t in model.values() if t.dtype in FLOATS]
        return np.concatenate([np.empty(0), *chosen])

    @property
    def rows(self) -> Any:
        return np.array([self.floats(model) for model in self.models])


@st.composite
def cases(draw: st.DrawFn, least: int = 1, most: int = 11) -> Case:
    layout, n = draw(layouts), draw(st.integers(least, most))
    rng = np.random.default_rng(draw(seeds))
    spread = draw(st.sampled_from([1e-3, 1.0, 100.0]))

    def tensor(shape: tuple[int, ...], dtype: np.dtype[Any], around: Any) -> Any:
        if dtype.kind == "b":
            return rng.random(shape) > 0.5
        if dtype.kind in "iu":
            ends = np.iinfo(dtype)
            return rng.integers(max(ends.min, -1000), min(ends.max, 1000), shape, dtype, endpoint=True)
        return np.asarray(around + spread * rng.standard_normal(shape)).astype(dtype)

    base = {f"t{i}": tensor(shape, dtype, 1.0) for i, (shape, dtype) in enumerate(layout)}
    models = [
        {f"t{i}": tensor(shape, dtype, base[f"t{i}"].astype(np.float64)) for i, (shape, dtype) in enumerate(layout)}
        for _ in range(n)
    ]
    return Case(models, draw(st.lists(st.integers(1, 10_000), min_size=n, max_size=n)), base)


def check(
    case: Case,
    got: Model,
    wanted: Any,
    votes: Sequence[float],
    *,
    slack: float = 1,
    norms: bool = False,
    cut: float = 0,
) -> None:
    """`got` holds the float64 vector `wanted` as far as its types can, and integers as `check_whole` has them.

    `norms`: the rule measures whole models, so the coarsest type's error is in all tensors.
    """
    assert list(got) == list(case.models[0])
    at = 0
    coarse = norms and any(t.dtype in FLOATS and t.dtype != np.float64 for t in case.models[0].values())
    for name, tensor in got.items():
        like = case.models[0][name]
        assert (tensor.shape, tensor.dtype) == (like.shape, like.dtype), name
        if like.dtype not in FLOATS:
            check_whole([model[name] for model in case.models], votes, tensor, cut)
            continue
        part = wanted[at : at + tensor.size].reshape(tensor.shape)
        at += tensor.size
        scale = max([1e-30, *(np.abs(m[name].astype(np.float64)).max(initial=0) for m in [*case.models, case.base])])
        computed = 2.0**-52 if like.dtype == np.float64 and not coarse else 2.0**-23
        own = float(ml_dtypes.finfo(like.dtype).eps)
        room = slack * (20 + 4 * len(case.models)) * computed * scale + own * (np.abs(part) + scale * 1e-3)
        assert np.all(np.abs(tensor.astype(np.float64) - part) <= room), name


def check_whole(tensors: Sequence[Any], votes: Sequence[float], got: Any, cut: float = 0) -> None:
    """The mean by `votes`; without the share `cut` of the values at either end, half of which leaves the median."""
    exact = [Fraction(vote) for vote in votes]
    for index in np.ndindex(got.shape):
        values = sorted((int(t[index]), vote) for vote, t in zip(exact, tensors, strict=True) if vote)
        mean = sum(vote * value for value, vote in values) / sum(exact)
        if got.dtype == np.bool_:
            assert got[index] == (mean > Fraction(1, 2))
            continue
        ends = (len(values) - 1) // 2 if cut == 0.5 else int(cut)
        middle = values[ends : len(values) - ends]
        assert got[index] == round(sum(vote * value for value, vote in middle) / sum(vote for _, vote in middle))


MEDIAN = 0.5


def mean(rows: Any, weights: Any) -> Any:
    weights = np.asarray(weights, np.float64)
    return (rows * (weights / math.fsum(weights))[:, None]).sum(axis=0)


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_mean(case: Case) -> None:
    result = run(case.models, case.weights)
    check(case, result.model, mean(case.rows, case.weights), case.weights)


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_median(case: Case) -> None:
    got = run(case.models, case.weights, reducer=Median()).model
    check(case, got, np.median(case.rows, axis=0), [1] * len(case.models), cut=MEDIAN)


@settings(max_examples=150, deadline=None)
@given(case=cases(), data=st.data())
def test_trimmed_mean(case: Case, data: st.DataObject) -> None:
    n = len(case.models)
    f = data.draw(st.integers(0, (n - 1) // 2))
    wanted = np.sort(case.rows, axis=0)[f : n - f].mean(axis=0)
    check(case, run(case.models, case.weights, reducer=TrimmedMean(f)).model, wanted, [1] * n, cut=f)


def scores(rows: Any, f: int) -> Any:
    """Krum's scores: Σ of the n − f − 2 least squared distances to others."""
    n = len(rows)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    others = np.sort(squared[~np.eye(n, dtype=bool)].reshape(n, n - 1), axis=1)
    return others[:, : n - f - 2].sum(axis=1)


def is_decided(rows: Any, f: int, count: int) -> bool:
    """Whether no step of iterated Krum has to choose between different clients that are equally good."""
    left = list(range(len(rows)))
    while len(left) > 1 and len(rows) - len(left) < count:
        squared = ((rows[left][:, None] - rows[left][None]) ** 2).sum(axis=2)
        n = len(left)
        others = np.sort(squared[~np.eye(n, dtype=bool)].reshape(n, n - 1), axis=1)
        keys = np.stack([others[:, : max(1, n - f - 2)].sum(axis=1), others.sum(axis=1)], axis=1)
        best, *rest = sorted(range(n), key=lambda i: tuple(keys[i]))
        if any(np.allclose(keys[best], keys[i], rtol=1e-4, atol=0) and squared[best, i] > 0 for i in rest):
            return False
        del left[best]
    return True


@settings(max_examples=200, deadline=None)
@given(case=cases(least=3), data=st.data())
def test_krum_and_multi_krum(case: Case, data: st.DataObject) -> None:
    n = len(case.models)
    f = data.draw(st.integers(0, (n - 3) // 2))
    m = data.draw(st.one_of(st.none(), st.integers(1, n - f)))
    size = 1 if (is_krum := data.draw(st.booleans())) else n - f if m is None else m
    result = run(case.models, case.weights, reducer=Krum(f) if is_krum else MultiKrum(f, m))
    assert len(result.clients) == size
    score = scores(case.rows, f)
    left = [i for i in range(n) if i not in result.clients]
    # Up to the rounding of the types that it is computed in: nobody better was left out.
    worst = max(score[i] for i in result.clients)
    assert all(worst <= score[i] * (1 + 1e-4) + 1e-30 for i in left)
    votes = [float(i in result.clients) for i in range(n)]
    check(case, result.model, mean(case.rows, votes), votes, cut=MEDIAN)
    if size == 1:
        for name, tensor in case.models[result.clients[0]].items():
            assert result.model[name].tobytes() == tensor.tobytes()


@settings(max_examples=100, deadline=None)
@given(case=cases(least=3, most=15), data=st.data())
def test_bulyan(case: Case, data: st.DataObject) -> None:
    n = len(case.models)
    f = data.draw(st.integers(0, (n - 3) // 4))
    result = run(case.models, case.weights, reducer=Bulyan(f))
    assert len(result.clients) == n - 2 * f
    columns = case.rows[list(result.clients)].T
    # The mean of the n − 4f nearest the median is that of a window of the sorted values; which, rounding may decide.
    kept = n - 4 * f
    wanted = np.empty(len(columns))
    for i, column in enumerate(columns):
        from_median = np.abs(column - np.median(column))
        wanted[i] = np.mean(column[np.lexsort((column, from_median))][:kept])
    votes = [float(i in result.clients) for i in range(n)]
    check(case, result.model, wanted, votes, cut=MEDIAN)


@settings(max_examples=100, deadline=None)
@given(case=cases(most=20), rounds=st.integers(1, 4), nu=st.sampled_from([1e-4, 1.0, 50.0]))
def test_geometric_median(case: Case, rounds: int, nu: float) -> None:
    weights = np.array(case.weights, np.float64)
    z = np.median(case.rows, axis=0)
    for _ in range(rounds):
        beta = weights / np.maximum(nu, np.linalg.norm(case.rows - z, axis=1))
        z = mean(case.rows, beta)
    result = run(case.models, case.weights, reducer=GeometricMedian(rounds, nu, 0))
    floats = {name: tensor for name, tensor in result.model.items() if tensor.dtype in FLOATS}
    case.models = [{name: model[name] for name in floats} for model in case.models]  # others are tested below
    check(case, floats, z, [], slack=50, norms=True)


@settings(max_examples=100, deadline=None)
@given(case=cases(), c=st.one_of(st.just("median"), st.floats(0.01, 100)), medians=st.booleans())
def test_norm_clip(case: Case, c: Any, medians: bool) -> None:
    rows, base = case.rows, case.floats(case.base)
    norms = np.linalg.norm(base - rows, axis=1)
    bound = np.median(norms) if c == "median" else c
    clipped = base - (base - rows) * np.minimum(1, bound / np.maximum(norms, 1e-300))[:, None]
    wanted = np.median(clipped, axis=0) if medians else mean(clipped, case.weights)
    reducer = NormClip(c, Median() if medians else Mean())
    got = run(case.models, case.weights, reducer=reducer, global_model=case.base).model
    votes = [1] * len(case.models) if medians else case.weights
    check(case, got, wanted, votes, slack=4, norms=True, cut=MEDIAN if medians else 0)


STEPS: list[Callable[[], Any]] = [
    Replace,
    lambda: Momentum(0.5, 0.8),
    lambda: Nesterov(0.7, 0.9),
    Adagrad,
    lambda: Adam(0.2, 0.8, 1e-2, 0.9),
    lambda: Yogi(beta2=0.5),
]


@pytest.mark.parametrize("make", STEPS, ids=[type(make()).__name__ for make in STEPS])
@settings(max_examples=40, deadline=None)
@given(case=cases(most=4), data=st.data())
def test_any_server_step_after_any_reducer_over_three_rounds(make: Any, case: Case, data: st.DataObject) -> None:
    step, reducer = make(), data.draw(st.sampled_from([Mean(), Median(), TrimmedMean(0), NormClip(1.0)]))
    theta, state, memory = case.base, None, {}
    for _ in range(3):
        reduced = case.floats(run(case.models, case.weights, reducer=reducer, global_model=theta).model)
        arguments = {"reducer": reducer, "server_step": step, "global_model": theta, "state": state}
        result = run(case.models, case.weights, **arguments)
        wanted, memory = stepped(step, case.floats(theta), reduced, memory)
        widest = Case([*case.models, theta], case.weights, case.base)
        # `reduced` came back in the tensors' own type, and was not rounded to it within the run.
        at = 0
        for name, tensor in result.model.items():
            if tensor.dtype in FLOATS:
                # No step is taken with a number of no dimensions.
                part = (wanted if tensor.ndim else reduced)[at : at + tensor.size].reshape(tensor.shape)
                at += tensor.size
                own = float(ml_dtypes.finfo(tensor.dtype).eps)
                scale = max([1e-30, *(np.abs(m[name].astype(np.float64)).max(initial=0) for m in widest.models)])
                room = 200 * max(own, 2.0**-46) * scale + (0 if isinstance(step, Replace | Momentum | Nesterov) else 1)
                assert np.all(np.abs(tensor.astype(np.float64) - part) <= room), name
            else:
                ordered = isinstance(reducer, Median | TrimmedMean)
                votes = [1] * len(case.models) if ordered else case.weights
                cut = MEDIAN if isinstance(reducer, Median) else 0
                check_whole([model[name] for model in case.models], votes, tensor, cut)
        theta, state = result.model, result.state
    assert (state is None) == isinstance(step, Replace)


def stepped(step: Any, theta: Any, reduced: Any, memory: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """One step as the table of the papers has it."""
    delta = theta - reduced
    if isinstance(step, Replace):
        return reduced, memory
    if isinstance(step, Momentum):
        b = step.beta * memory.get("b", 0) + delta
        return theta - step.lr * b, {"b": b}
    if isinstance(step, Nesterov):
        b = step.momentum * memory.get("b", 0) + delta
        return theta - step.lr * (delta + step.momentum * b), {"b": b}
    m = step.beta1 * memory.get("m", 0) - (1 - step.beta1) * delta
    v = memory.get("v", step.tau**2)
    if isinstance(step, Adagrad):
        v = v + delta**2
    elif isinstance(step, Adam):
        v = step.beta2 * v + (1 - step.beta2) * delta**2
    else:
        v = v - (1 - step.beta2) * delta**2 * np.sign(v - delta**2)
    return theta + step.lr * m / (np.sqrt(v) + step.tau), {"m": m, "v": v}


PLAIN: dict[str, Any] = {"weight_decay": 0, "dampening": 0, "maximize": False}


def assert_near(got: Any, wanted: Any, rtol: float, atol: float, round_: int) -> None:
    """What `np.testing.assert_allclose` asks for, in a tenth of its time."""
    assert got.shape == wanted.shape
    assert np.all(np.abs(got - wanted) <= atol + rtol * np.abs(wanted)), f"round {round_}: {got} is not {wanted}"


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(np.float64, 1e-12, 1e-13), (np.float32, 2e-5, 2e-6)])
@settings(max_examples=20, deadline=None)
@given(seed=seeds, lr=st.floats(0.05, 1), momentum=st.floats(0.1, 0.95))
def test_nesterov_is_torchs_over_sixty_rounds(
    dtype: Any, rtol: float, atol: float, seed: int, lr: float, momentum: float
) -> None:
    rng = np.random.default_rng(seed)
    theta: Model = {"w": rng.standard_normal((4, 3)).astype(dtype), "b": rng.standard_normal(5).astype(dtype)}
    parameters = {name: torch.from_numpy(tensor.copy()) for name, tensor in theta.items()}
    buffers: list[torch.Tensor | None] = [None for _ in parameters]
    state: ServerState | None = None
    for round_ in range(60):
        pull = {name: rng.standard_normal(tensor.shape) for name, tensor in theta.items()}
        centre = {name: 0.9 * tensor + 0.1 * pull[name] for name, tensor in theta.items()}
        clients = [
            {k: (t + 0.01 * rng.standard_normal(t.shape)).astype(dtype) for k, t in centre.items()} for _ in "abc"
        ]
        weights = [1, 2, 3]
        gradients = []
        for name, parameter in parameters.items():  # the mean of the clients' pseudogradients is the gradient
            local = np.tensordot(np.array(weights) / 6, np.stack([c[name].astype(np.float64) for c in clients]), 1)
            gradients.append((parameter.double() - torch.from_numpy(local)).to(parameter.dtype))
        functional.sgd(list(parameters.values()), gradients, buffers, lr=lr, momentum=momentum, nesterov=True, **PLAIN)
        result = run(clients, weights, server_step=Nesterov(lr, momentum), global_model=theta, state=state)
        theta, state = result.model, result.state
        assert state is not None
        for (name, parameter), buffer in zip(parameters.items(), buffers, strict=True):
            assert buffer is not None
            assert_near(theta[name], parameter.numpy(), rtol, atol, round_)
            assert_near(state.tensors[f"momentum/{name}"], buffer.numpy(), rtol, 10 * atol, round_)


ALONE = [Mean(), Median(), TrimmedMean(0), GeometricMedian(), NormClip("median"), NormClip("median", Median())]


@pytest.mark.parametrize("reducer", ALONE, ids=repr)
@settings(max_examples=40, deadline=None)
@given(case=cases(most=1))
def test_one_client_with_replace_is_that_client(reducer: Any, case: Case) -> None:
    got = run(case.models, case.weights, reducer=reducer, server_step=Replace(), global_model=case.base).model
    for name, tensor in case.models[0].items():
        assert got[name].tobytes() == tensor.tobytes()


@settings(max_examples=60, deadline=None)
@given(case=cases(most=6))
def test_nesterov_without_momentum_at_rate_one_is_fedavg(case: Case) -> None:
    got = run(case.models, case.weights, server_step=Nesterov(1, 0), global_model=case.base).model
    check(case, got, mean(case.rows, case.weights), case.weights)


EVERY = [
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


@pytest.mark.parametrize("reducer", EVERY, ids=repr)
@settings(max_examples=25, deadline=None)
@given(case=cases(least=1, most=1), weights=st.lists(st.integers(1, 100), min_size=7, max_size=7))
def test_equal_updates_give_that_update(reducer: Any, case: Case, weights: list[int]) -> None:
    case.models, only = case.models * 7, case.models[0]
    got = run(case.models, weights, reducer=reducer, global_model=case.base)
    if isinstance(reducer, NormClip) and reducer.c != "median":
        delta = case.floats(case.base) - case.floats(only)
        scale = min(1.0, reducer.c / max(float(np.linalg.norm(delta)), 1e-300))
        wanted = case.floats(case.base) - scale * delta
    else:
        wanted = case.floats(only)
    check(case, got.model, wanted, [1] * 7, slack=4, norms=True)


@pytest.mark.parametrize("reducer", EVERY, ids=repr)
@settings(max_examples=25, deadline=None)
@given(case=cases(least=7, most=9), order=st.randoms(use_true_random=False))
def test_the_order_of_the_clients_does_not_matter(reducer: Any, case: Case, order: Any) -> None:
    case.models[5] = case.models[2]
    # Two clients may be equal; where different ones are equally good by accident, their order does decide.
    assume(len(set(scores(case.rows, 1))) == len(case.models) - 1)
    if "Bulyan" in repr(reducer):
        assume(is_decided(case.rows, 1, len(case.models) - 2))
    numbers = list(range(len(case.models)))
    order.shuffle(numbers)
    one = run(case.models, case.weights, reducer=reducer, global_model=case.base).model
    models, weights = [case.models[i] for i in numbers], [case.weights[i] for i in numbers]
    other = run(models, weights, reducer=reducer, global_model=case.base).model
    floats = {name: tensor for name, tensor in other.items() if tensor.dtype in FLOATS}
    if isinstance(reducer, Median | TrimmedMean | Krum | Bulyan):
        assert all(one[name].tobytes() == tensor.tobytes() for name, tensor in floats.items())
    for name, tensor in other.items():
        # Not where β is not exact, nor where clipping made clients equal, of which one is chosen with its integers.
        if tensor.dtype not in FLOATS and reducer != NormClip("median", Bulyan(1)) and reducer != GeometricMedian():
            np.testing.assert_array_equal(tensor, one[name])
    case.models = [{name: model[name] for name in floats} for model in case.models]
    check(case, floats, case.floats({name: one[name] for name in floats}), [], slack=50, norms=True)
