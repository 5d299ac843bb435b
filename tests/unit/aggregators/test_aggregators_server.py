"""Every server step against the formulas it cites, over several rounds, in float64 and float32."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from aggregators import ServerState, aggregate, run
from aggregators.order_statistics import Median
from aggregators.server import Adagrad, Adam, Momentum, Nesterov, Replace, Yogi
from flavor.errors import AggregationError

STEPS = [Momentum(0.5, 0.8), Nesterov(0.7, 0.9), Adagrad(), Adam(0.2, 0.8, 1e-2, 0.9), Yogi(beta2=0.5)]
ids = [step.name for step in STEPS]


def plain(step, theta, reduced, memory):
    """One scalar step as the paper writes it; `memory` is changed."""
    delta = theta - reduced
    d = -delta
    if isinstance(step, Momentum):
        memory["b"] = delta if "b" not in memory else step.beta * memory["b"] + delta
        return theta - step.lr * memory["b"]
    if isinstance(step, Nesterov):
        memory["b"] = delta if "b" not in memory else step.momentum * memory["b"] + delta
        return theta - step.lr * (delta + step.momentum * memory["b"])
    memory["m"] = step.beta1 * memory.get("m", 0) + (1 - step.beta1) * d
    v = memory.get("v", step.tau**2)
    if isinstance(step, Adagrad):
        v = v + d**2
    elif isinstance(step, Adam):
        v = step.beta2 * v + (1 - step.beta2) * d**2
    else:
        v = v - (1 - step.beta2) * d**2 * float(np.sign(v - d**2))
    memory["v"] = v
    return theta + step.lr * memory["m"] / (math.sqrt(v) + step.tau)


def rounds_of(step, count, dtype=np.float64, size=9, **settings):
    """Yield (global model, result) of `count` rounds in which two clients move at random."""
    rng = np.random.default_rng(7)
    theta, state = {"w": rng.standard_normal(size).astype(dtype)}, None
    for _ in range(count):
        clients = [{"w": (theta["w"] + 0.1 * rng.standard_normal(size)).astype(dtype)} for _ in range(2)]
        result = run(clients, server_step=step, global_model=theta, state=state, **settings)
        yield theta, clients, result
        theta, state = result.model, result.state


@pytest.mark.parametrize("step", STEPS, ids=ids)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-4)])
def test_step_is_its_formula_over_five_rounds(step, dtype, rtol):
    memories = [{} for _ in range(9)]
    for theta, clients, result in rounds_of(step, 5, dtype):
        reduced = (clients[0]["w"].astype(float) + clients[1]["w"].astype(float)) / 2
        wanted = [plain(step, *args) for args in zip(theta["w"].astype(float), reduced, memories, strict=True)]
        np.testing.assert_allclose(result.model["w"], wanted, rtol=rtol, atol=1e-5 if rtol > 1e-6 else 0)
        assert result.model["w"].dtype == dtype


@pytest.mark.parametrize("step", STEPS, ids=ids)
def test_the_global_model_moves_towards_the_clients(step):
    # The sign of the pseudogradient: old minus new, descended.
    old, new = {"w": np.zeros(3)}, {"w": np.array([1.0, -2.0, 0.0])}
    moved = run([new], server_step=step, global_model=old).model["w"]
    np.testing.assert_array_equal(np.sign(moved), [1, -1, 0])


@pytest.mark.parametrize("step", [Momentum(), Nesterov()])
def test_the_first_momentum_is_the_pseudogradient(step):
    old, new = {"w": np.array([3.0, 5.0])}, {"w": np.array([1.0, 9.0])}
    state = run([new], server_step=step, global_model=old).state
    np.testing.assert_array_equal(state.tensors["momentum/w"], [2, -4])
    assert (state.step, state.rounds) == (step.name, 1)


def test_nesterov_without_momentum_at_rate_one_is_fedavg():
    rng = np.random.default_rng(1)
    clients = [{"w": rng.standard_normal(50)} for _ in range(3)]
    theta = {"w": rng.standard_normal(50)}
    got = run(clients, [1, 2, 3], server_step=Nesterov(1, 0), global_model=theta).model["w"]
    np.testing.assert_allclose(got, run(clients, [1, 2, 3]).model["w"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("step", STEPS, ids=ids)
def test_a_run_continues_exactly_from_a_stored_state(step):
    results = [result for _, _, result in rounds_of(step, 4, np.float32)]
    clients_and_theta = list(rounds_of(step, 4, np.float32))
    held = results[1].state
    stored = {key: np.frombuffer(t.tobytes(), t.dtype).reshape(t.shape) for key, t in held.tensors.items()}
    state = ServerState.restore(stored, held.metadata)
    for theta, clients, wanted in clients_and_theta[2:]:
        again = run(clients, server_step=step, global_model=theta, state=state)
        np.testing.assert_array_equal(again.model["w"], wanted.model["w"])
        assert again.state.rounds == wanted.state.rounds
        state = again.state


@pytest.mark.parametrize("step", STEPS, ids=ids)
def test_block_size_and_threads_do_not_show(step):
    wanted = [r for _, _, r in rounds_of(step, 3, np.float32, 9000, threads=1)][-1]
    got = [r for _, _, r in rounds_of(step, 3, np.float32, 9000, threads=3, block_elems=101)][-1]
    np.testing.assert_array_equal(got.model["w"], wanted.model["w"])
    for key, tensor in wanted.state.tensors.items():
        np.testing.assert_array_equal(got.state.tensors[key], tensor)


def test_state_is_float32_for_half_precision_and_leaves_integers_alone():
    old = {"w": np.ones(4, ml_dtypes.bfloat16), "steps": np.array([3])}
    new = {"w": np.full(4, 2, ml_dtypes.bfloat16), "steps": np.array([8])}
    result = run([new], server_step=Adam(), global_model=old)
    assert {key: t.dtype.name for key, t in result.state.tensors.items()} == {
        "m/w": "float32",
        "v/w": "float32",
    }
    assert result.model["w"].dtype == ml_dtypes.bfloat16
    assert result.model["steps"] == 8


def test_a_state_that_is_handed_in_is_not_touched():
    old, new = {"w": np.zeros(3)}, {"w": np.ones(3)}
    first = run([new], server_step=Nesterov(), global_model=old)
    before = first.state.tensors["momentum/w"].copy()
    second, again = (run([new], server_step=Nesterov(), global_model=old, state=first.state) for _ in range(2))
    np.testing.assert_array_equal(first.state.tensors["momentum/w"], before)
    np.testing.assert_array_equal(second.model["w"], again.model["w"])
    np.testing.assert_array_equal(second.state.tensors["momentum/w"], again.state.tensors["momentum/w"])


def test_replace_has_no_state_and_needs_no_global_model():
    only = {"w": np.array([0.1, -0.0])}
    result = run([only], server_step=Replace())
    assert result.state is None
    assert result.model["w"].tobytes() == only["w"].tobytes()


def test_a_missing_global_model_or_a_foreign_state_is_refused():
    model = {"w": np.ones(3, np.float32)}
    with pytest.raises(AggregationError, match="nesterov needs the old global model"):
        run([model], server_step=Nesterov())
    good = run([model], server_step=Nesterov(), global_model=model).state
    b = good.tensors["momentum/w"]
    for state, message in [
        (ServerState("adam", 1, {}), r"state is that of 'adam', the server step is 'nesterov'"),
        (ServerState("nesterov", 1, {}), r"lacks tensor 'momentum/w'"),
        (ServerState("nesterov", 1, {"momentum/w": b, "x": b}), r"has an extra tensor 'x'"),
        (
            ServerState("nesterov", 1, {"momentum/w": b[:2]}),
            r"'momentum/w' is float32 \(2,\), the model needs",
        ),
    ]:
        with pytest.raises(AggregationError, match=message):
            run([model], server_step=Nesterov(), global_model=model, state=state)
    with pytest.raises(AggregationError, match="not a server state"):
        ServerState.restore({}, {"rounds": "1"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Nesterov(lr=0),
        lambda: Nesterov(momentum=1),
        lambda: Momentum(lr=math.inf),
        lambda: Adam(beta2=-0.1),
        lambda: Yogi(tau=0),
        lambda: Adagrad(beta1=math.nan),
    ],
)
def test_values_outside_their_range_are_refused(make):
    with pytest.raises(AggregationError, match=r"needs .*, got"):
        make()


# -- statistics, which are no parameters


def normalised(round_: int, client: int) -> dict[str, np.ndarray]:
    """A batch norm's tensors: variances that fall fast, as they do when a network settles."""
    rng = np.random.default_rng([round_, client])
    return {
        "bn.weight": (1 + 0.1 * rng.standard_normal(5)).astype(np.float32),
        "bn.running_mean": rng.standard_normal(5).astype(np.float32),
        "bn.running_var": (np.array([9.0, 4, 1, 0.5, 0.1]) * 0.3**round_ * rng.uniform(0.5, 1.5, 5)).astype(np.float32),
    }


@pytest.mark.parametrize("step", STEPS, ids=ids)
def test_statistics_are_the_mean_and_parameters_are_stepped(step):
    theta, state, memories = normalised(0, 0), None, [{} for _ in range(5)]
    for round_ in range(1, 7):
        clients = [normalised(round_, client) for client in (1, 2, 3)]
        result = run(clients, [1, 2, 5], server_step=step, global_model=theta, state=state)
        means = {
            name: np.average([c[name].astype(float) for c in clients], axis=0, weights=[1, 2, 5]) for name in theta
        }
        for name in ("bn.running_mean", "bn.running_var"):
            np.testing.assert_allclose(result.model[name], means[name], rtol=1e-6, atol=1e-7)
        wanted = [
            plain(step, *args)
            for args in zip(theta["bn.weight"].astype(float), means["bn.weight"], memories, strict=True)
        ]
        np.testing.assert_allclose(result.model["bn.weight"], wanted, rtol=1e-3, atol=1e-5)
        assert (result.model["bn.running_var"] > 0).all()
        assert result.statistics == ("bn.running_mean", "bn.running_var")
        assert {key.partition("/")[2] for key in result.state.tensors} == {"bn.weight"}
        theta, state = result.model, result.state


def test_a_robust_rule_reduces_statistics_too():
    clients = [{"x.running_var": np.array([v])} for v in (1.0, 2.0, 1e9)]
    result = run(clients, reducer=Median(), server_step=Momentum(), global_model={"x.running_var": np.array([3.0])})
    assert result.model["x.running_var"] == [2.0]


def test_what_counts_as_statistics_can_be_said():
    old, new = {"a.var": np.array([4.0]), "a.running_var": np.array([4.0])}, {}
    new = {name: array - 2 for name, array in old.items()}
    result = run([new], server_step=Momentum(2.0), global_model=old, statistics=["*.var"])
    assert (result.model["a.var"][0], result.model["a.running_var"][0]) == (2.0, 0.0)
    assert result.statistics == ("a.var",)


def test_a_state_from_before_statistics_were_known_goes_on():
    old = {"w": np.array([1.0]), "running_var": np.array([1.0])}
    state = run([old], server_step=Momentum(), global_model=old, statistics=()).state
    assert sorted(state.tensors) == ["momentum/running_var", "momentum/w"]
    after = run([old], server_step=Momentum(), global_model=old, state=state)
    assert list(after.state.tensors) == ["momentum/w"]


@pytest.mark.parametrize("step", STEPS, ids=ids)
def test_no_step_is_taken_with_a_number_of_no_dimensions(step):
    """A learning rate under the weights' key falls as the clients' do, where momentum would carry it below 0."""
    theta, state = {"w": np.ones(1), "opt/lr": np.array(0.5)}, None
    for _ in range(6):
        clients = [{"w": theta["w"] * 0.5, "opt/lr": theta["opt/lr"] * 0.6} for _ in range(2)]
        result = run(clients, server_step=step, global_model=theta, state=state)
        assert result.model["opt/lr"] == theta["opt/lr"] * 0.6
        assert result.model["w"][0] != clients[0]["w"][0], "a tensor of one element is a parameter"
        assert result.statistics == ("opt/lr",)
        theta, state = result.model, result.state
    assert {key.partition("/")[2] for key in state.tensors} == {"w"}


def test_a_state_from_before_numbers_were_left_alone_goes_on():
    old = {"w": np.array([1.0]), "lr": np.array(1.0)}
    state = ServerState("momentum", 3, {"momentum/w": np.array([2.0]), "momentum/lr": np.array(2.0)})
    after = run([old], server_step=Momentum(), global_model=old, state=state)
    assert list(after.state.tensors) == ["momentum/w"]
    assert after.model["lr"] == 1.0


@pytest.mark.parametrize("block_elems", [1, 640 * 1024])
def test_a_tensor_that_the_step_alone_makes_negative_is_named(block_elems):
    old = {"cluster_size": np.full(4, 3.0), "bias": np.array([3.0, 3, 3, -3]), "fine": np.full(4, 3.0)}
    clients = [
        {"cluster_size": np.array([1.0, 2, 2, 2]), "bias": np.ones(4), "fine": np.full(4, 3.0)},
        {"cluster_size": np.array([0.5, 2, 2, 2]), "bias": np.ones(4), "fine": np.full(4, 3.0)},
    ]
    result = run(clients, server_step=Momentum(3.0), global_model=old, block_elems=block_elems)
    assert result.model["cluster_size"][0] < 0
    assert result.negative == ("cluster_size",)
    with pytest.warns(UserWarning, match="'cluster_size': negative values after the server step"):
        aggregate(clients, server_step=Momentum(3.0), global_model=old)
    clients[1]["cluster_size"][3] = -0.1
    assert run(clients, server_step=Momentum(3.0), global_model=old, block_elems=block_elems).negative == ()
