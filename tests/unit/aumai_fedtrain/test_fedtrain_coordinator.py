"""Rounds: averages without an outer optimizer, real weights with one, and exact continuation from a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from aggregators.server import Nesterov
from aumai_fedtrain import (
    DiLoCoCoordinator,
    FederatedNode,
    GlobalState,
    HashVerifier,
    LocalUpdate,
    Reports,
    SimulatedProvider,
    TrainingConfig,
    UpdateProvider,
)
from tests.lazy import Lazy

torch = Lazy("torch")
functional = Lazy("torch.optim.sgd")
"""What `torch.optim.SGD` calls, whose first use imports a compiler for seconds."""

NODES = [FederatedNode(node_id=name, address="") for name in ("a", "b", "c")]
STEPS = ["replace", "momentum:lr=0.5,beta=0.8", "nesterov:lr=0.7,momentum=0.9", "adagrad", "adam:lr=0.05", "yogi"]


def config(rounds: int = 4) -> TrainingConfig:
    return TrainingConfig(
        model_name="m", learning_rate=0.1, batch_size=8, local_steps=5, global_rounds=rounds, num_nodes=3
    )


def update(node: str, round_: int, **gradients: object) -> LocalUpdate:
    return LocalUpdate(node_id=node, round_id=round_, gradients=gradients, loss=0.5, samples_used=10)


class Noise(UpdateProvider):
    """Vectors that depend on node and round alone; as lists, as arrays, or by turns."""

    def __init__(self, kind: str = "list") -> None:
        self.kind = kind

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        updates = []
        for i, node in enumerate(nodes):
            rng = np.random.default_rng([round_id, *node.node_id.encode()])
            vectors: dict[str, object] = {}
            for name, shape in {"w": (3, 4), "b": (5,), "s": ()}.items():
                array = rng.normal(size=shape) * 10.0 ** rng.integers(-8, 8)
                array32 = self.kind == "array" or (self.kind == "mixed" and i % 2)
                vectors[name] = array.astype(np.float32) if array32 else array.tolist()
            if i == 0 and round_id % 2 and round_id > 1:  # a report of weights, as the first one is, has all of them
                del vectors["b"]
            updates.append(
                LocalUpdate(
                    node_id=node.node_id,
                    round_id=round_id,
                    gradients=vectors,
                    loss=float(rng.random()),
                    samples_used=int(rng.integers(1, 99)),
                )
            )
        return updates


def test_without_an_outer_optimizer_the_averages_are_the_weights() -> None:
    coordinator = DiLoCoCoordinator()
    state = coordinator.initialize(config(), NODES)
    assert (state.round_id, state.global_weights, state.avg_loss) == (0, {}, 0.0)
    assert state.participating_nodes == ["a", "b", "c"]
    new = coordinator.run_round(state, [update("b", 1, w=[1.0, 2.0], b=[3.0]), update("a", 1, w=[3.0, 4.0])])
    assert new.global_weights == {"b": [1.5], "w": [2.0, 3.0]}
    assert list(new.global_weights) == ["b", "w"]
    assert (new.round_id, new.participating_nodes, new.avg_loss) == (1, ["b", "a"], 0.5)  # as they were handed in
    assert (new.expects, new.outer_state) == (Reports.WEIGHTS, None)
    assert state.round_id == 0
    again = coordinator.run_round(new, [update("a", 2, w=[7.0, 7.0])])
    assert again.global_weights == {"w": [7.0, 7.0]}


def test_a_pseudogradient_is_old_minus_new() -> None:
    """With lr 1 and no momentum the outer step is FedAvg: the weights land where the nodes went, not opposite."""
    for optimizer in ("replace", "nesterov:lr=1,momentum=0"):
        coordinator = DiLoCoCoordinator(outer_optimizer=optimizer, initial_weights={"w": [10.0, 20.0]})
        state = coordinator.initialize(config(), NODES)
        assert state.expects is Reports.PSEUDOGRADIENTS
        went_to = {"a": [11.0, 18.0], "b": [13.0, 18.0]}
        updates = [
            update(node, 1, w=[old - new for old, new in zip([10.0, 20.0], weights, strict=True)])
            for node, weights in went_to.items()
        ]
        assert coordinator.run_round(state, updates).global_weights == {"w": [12.0, 18.0]}


def trajectory(
    coordinator: DiLoCoCoordinator, gradients: Callable[[int, str], object], rounds: int
) -> list[list[float]]:
    state = coordinator.initialize(config(rounds), NODES)
    weights = []
    for round_ in range(1, rounds + 1):
        state = coordinator.run_round(
            state, [update(node.node_id, round_, w=gradients(round_, node.node_id)) for node in NODES]
        )
        weights.append(list(state.global_weights["w"]))
    return weights


def gradient(round_: int, node: str) -> list[float]:
    return np.random.default_rng([round_, ord(node)]).normal(size=4).tolist()


@pytest.mark.parametrize("optimizer", ["nesterov:lr=0.7,momentum=0.9", Nesterov(0.7, 0.9)])
def test_nesterov_is_torchs_sgd_on_the_mean_pseudogradient(optimizer: object) -> None:
    start = [1.0, -2.0, 0.5, 3.0]
    coordinator = DiLoCoCoordinator(outer_optimizer=optimizer, initial_weights={"w": start})  # type: ignore[arg-type]
    weights = trajectory(coordinator, gradient, 25)
    parameter, buffers = torch.tensor(start, dtype=torch.float64), [None]
    plain = {"weight_decay": 0, "dampening": 0, "maximize": False}
    for round_, found in enumerate(weights, 1):
        mean = np.mean([gradient(round_, node.node_id) for node in NODES], axis=0)
        functional.sgd([parameter], [torch.tensor(mean)], buffers, lr=0.7, momentum=0.9, nesterov=True, **plain)
        np.testing.assert_allclose(found, parameter.numpy(), rtol=1e-11)


def test_adam_is_the_papers() -> None:
    weights = trajectory(
        DiLoCoCoordinator(outer_optimizer="adam:lr=0.05", initial_weights={"w": [0.0] * 4}), gradient, 10
    )
    theta, m, v = np.zeros(4), np.zeros(4), np.full(4, 1e-6)
    for round_, found in enumerate(weights, 1):
        d = -np.mean([gradient(round_, node.node_id) for node in NODES], axis=0)
        m, v = 0.9 * m + 0.1 * d, 0.99 * v + 0.01 * d**2
        theta = theta + 0.05 * m / (np.sqrt(v) + 1e-3)
        np.testing.assert_allclose(found, theta, rtol=1e-10)


def test_the_first_report_starts_the_run_when_there_are_no_weights() -> None:
    coordinator = DiLoCoCoordinator(outer_optimizer="nesterov")
    state = coordinator.initialize(config(), NODES)
    assert state.expects is Reports.WEIGHTS
    state = coordinator.run_round(state, [update("a", 1, w=[1.0, 3.0]), update("b", 1, w=[3.0, 5.0])])
    assert (state.global_weights, state.outer_state) == ({"w": [2.0, 4.0]}, None)
    assert state.expects is Reports.PSEUDOGRADIENTS
    state = coordinator.run_round(state, [update("a", 2, w=[1.0, 0.0])])
    assert state.global_weights["w"] == pytest.approx([2.0 - 0.7 * 1.9, 4.0])  # the first b is the gradient
    assert state.outer_state is not None
    assert (state.outer_state.step, state.outer_state.rounds) == ("nesterov", 1)
    assert state.outer_state.tensors == {"momentum/w": [1.0, 0.0]}


def test_nodes_may_report_weights_throughout() -> None:
    """The coordinator then takes the difference, and the trajectory is the same."""
    start = {"w": [5.0, -5.0]}
    by_difference = DiLoCoCoordinator(outer_optimizer="nesterov", initial_weights=start)
    by_weights = DiLoCoCoordinator(outer_optimizer="nesterov", initial_weights=start, reports="weights")
    one, other = by_difference.initialize(config(), NODES), by_weights.initialize(config(), NODES)
    assert other.expects is Reports.WEIGHTS
    for round_ in range(1, 8):
        moved = np.array(gradient(round_, "a")[:2])
        one = by_difference.run_round(one, [update("a", round_, w=moved)])
        other = by_weights.run_round(other, [update("a", round_, w=np.array(other.global_weights["w"]) - moved)])
        assert other.expects is Reports.WEIGHTS
        np.testing.assert_allclose(np.array(one.global_weights["w"]), np.array(other.global_weights["w"]), rtol=1e-12)


def test_a_parameter_nobody_reports_stays_but_its_momentum_goes_on() -> None:
    coordinator = DiLoCoCoordinator(
        outer_optimizer="momentum:lr=1,beta=0.5", initial_weights={"w": [0.0], "x": [0.0], "none": []}
    )
    state = coordinator.run_round(coordinator.initialize(config(), NODES), [update("a", 1, w=[-1.0], x=[-1.0])])
    assert state.global_weights == {"none": [], "w": [1.0], "x": [1.0]}
    state = coordinator.run_round(state, [update("a", 2, w=[], x=[-1.0])])
    assert state.global_weights == {"none": [], "w": [1.5], "x": [2.5]}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["list", "array", "mixed"])
@pytest.mark.parametrize("optimizer", [None, *STEPS])
def test_a_run_restored_from_json_after_each_round_is_the_same_bits(
    optimizer: str | None, kind: str, weighted: bool
) -> None:
    rounds = 30
    whole = DiLoCoCoordinator(outer_optimizer=optimizer, weighted=weighted).run_training(
        config(rounds), NODES, Noise(kind)
    )
    state: GlobalState | None = None
    for newest in range(1, rounds + 1):
        coordinator = DiLoCoCoordinator(outer_optimizer=optimizer, weighted=weighted)  # a new process
        result = coordinator.run_training(config(newest), NODES, Noise(kind), state=state)
        state = GlobalState.model_validate_json(json.dumps(result.final_state.model_dump(mode="json"), indent=2))
    assert state is not None
    assert json.dumps(state.model_dump(mode="json")) == json.dumps(whole.final_state.model_dump(mode="json"))
    assert result.total_samples == whole.total_samples
    assert result.rounds_completed == rounds
    assert coordinator.credit_tracker.all_credits() == whole.final_state.credits
    if optimizer is not None:
        assert np.any(np.array(state.global_weights["b"]) != 0)


def test_weights_are_kept_in_float64_whatever_is_reported() -> None:
    coordinator = DiLoCoCoordinator(outer_optimizer="replace", initial_weights={"w": np.float32([1.0])})
    state = coordinator.initialize(config(), NODES)
    for round_ in range(1, 11):
        state = coordinator.run_round(state, [update("a", round_, w=np.float32([2.0**-30]))])
    assert state.global_weights["w"].dtype == np.float64
    assert float(state.global_weights["w"][0]) == 1.0 - 10 * 2.0**-30  # float32 would have lost every step


def test_an_average_loss_counts_those_that_measured_one() -> None:
    def with_loss(node: str, loss: float | None, samples: int) -> LocalUpdate:
        return LocalUpdate(node_id=node, round_id=1, gradients={"w": [1.0]}, loss=loss, samples_used=samples)

    updates = [with_loss("a", 1.0, 30), with_loss("b", 2.0, 10), with_loss("c", None, 500)]
    for weighted, expected in ((False, 1.5), (True, 1.25)):
        coordinator = DiLoCoCoordinator(weighted=weighted)
        assert coordinator.run_round(coordinator.initialize(config(), NODES), updates).avg_loss == expected
    coordinator = DiLoCoCoordinator()
    assert coordinator.run_round(coordinator.initialize(config(), NODES), [updates[2]]).avg_loss is None


class Scripted(UpdateProvider):
    def __init__(self, *rounds: list[LocalUpdate]) -> None:
        self.rounds = rounds
        self.sent: list[int] = []

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        assert self.config is not None
        assert [node.node_id for node in nodes] == ["a", "b", "c"]
        return self.rounds[round_id - 1] if round_id <= len(self.rounds) else []

    def distribute_state(self, state: GlobalState, nodes: object) -> None:
        self.sent.append(state.round_id)


def test_a_training_ends_early_without_updates() -> None:
    provider = Scripted([update("a", 1, w=[1.0])], [update("a", 2, w=[2.0]), update("b", 2, w=[4.0])])
    coordinator, seen = DiLoCoCoordinator(), []
    result = coordinator.run_training(config(9), NODES, provider, on_round=lambda state: seen.append(state.round_id))
    assert (result.rounds_completed, result.total_samples, result.final_loss) == (2, 30, 0.5)
    assert result.final_state.global_weights == {"w": [3.0]}
    assert provider.sent == seen == [1, 2]
    assert coordinator.credit_tracker.all_credits() == result.final_state.credits == {"a": 20, "b": 10}
    nothing = DiLoCoCoordinator().run_training(config(), NODES, Scripted())
    assert (nothing.rounds_completed, nothing.total_samples) == (0, 0)
    assert nothing.final_loss == 0.0
    assert (result.config, nothing.config) == (config(9), config())
    assert result.duration_seconds == round(result.duration_seconds, 4)


class Bare:
    """An object with `get_updates`, and nothing else of a provider."""

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        return [update(node.node_id, round_id, w=[float(round_id)]) for node in nodes]


def test_any_object_with_get_updates_is_a_provider() -> None:
    bare = Bare()
    result = DiLoCoCoordinator().run_training(config(3), NODES, update_provider=bare)
    assert (result.rounds_completed, result.final_state.global_weights) == (3, {"w": [3.0]})
    assert vars(bare) == {}
    with pytest.raises(TypeError, match=r"must have get_updates\(round_id, state, nodes\)"):
        DiLoCoCoordinator().run_training(config(3), NODES, object())  # type: ignore[arg-type]


def test_a_provider_that_does_not_say_how_is_told_so() -> None:
    with pytest.raises(NotImplementedError, match=r"UpdateProvider\.get_updates must return"):
        UpdateProvider().get_updates(1, DiLoCoCoordinator().initialize(config(), NODES), NODES)


def test_a_provider_with_a_config_of_its_own_keeps_it() -> None:
    class Own(Bare, UpdateProvider):
        def __init__(self) -> None:
            self.config = "mine"  # type: ignore[assignment]

    class ReadOnly(Bare, UpdateProvider):
        @property
        def config(self) -> str:  # type: ignore[override]
            return "mine"

    class Borrowing(Bare, UpdateProvider):
        pass

    for provider in (Own(), ReadOnly()):
        assert DiLoCoCoordinator().run_training(config(2), NODES, provider).rounds_completed == 2
        assert provider.config == "mine"
    borrowing = Borrowing()
    for rounds in (2, 3):  # a second training has its own
        DiLoCoCoordinator().run_training(config(rounds), NODES, borrowing)
        assert borrowing.config == config(rounds)


def test_collected_updates_are_a_state_and_are_credited() -> None:
    coordinator = DiLoCoCoordinator()
    state = coordinator.collect_updates(4, [update("b", 4, w=[1.0]), update("a", 4, w=[3.0])])
    assert isinstance(state, GlobalState)
    assert (state.round_id, state.global_weights, state.participating_nodes) == (4, {"w": [2.0]}, ["b", "a"])
    assert coordinator.credit_tracker.all_credits() == state.credits == {"a": 10, "b": 10}
    assert coordinator.credit_tracker.round_credits(4) == {"a": 10, "b": 10}
    assert coordinator.credit_tracker.round_credits(5) == {}
    with_outer = DiLoCoCoordinator(outer_optimizer="nesterov", initial_weights={"w": [1.0]})
    refused("pass state=", lambda: with_outer.collect_updates(1, [update("a", 1, w=[1.0])]))
    assert with_outer.credit_tracker.all_credits() == {}


def test_distributing_a_state_hands_it_to_the_provider() -> None:
    provider, coordinator = Scripted(), DiLoCoCoordinator()
    state = coordinator.initialize(config(), NODES)
    coordinator.distribute_state(state, NODES, provider)
    assert coordinator.distribute_state(state, NODES[:1]) is None  # type: ignore[func-returns-value]
    assert provider.sent == [0]


def test_an_update_with_its_hash_is_verified() -> None:
    coordinator = DiLoCoCoordinator()
    good = update("a", 1, w=[0.1])
    digest = coordinator.hash_verifier.compute_hash(good.gradients)
    assert isinstance(coordinator.hash_verifier, HashVerifier)
    signed = good.model_copy(update={"gradient_hash": digest})
    assert coordinator.collect_updates(1, [signed]).global_weights == {"w": [0.1]}
    tampered = update("a", 1, w=[0.2]).model_copy(update={"gradient_hash": digest})
    with pytest.raises(ValueError, match="Gradient tampering detected from a"):
        coordinator.run_round(coordinator.initialize(config(), NODES), [tampered])
    assert coordinator.credit_tracker.all_credits() == {"a": 10}  # those of the good one alone


def refused(message: str, act: Callable[[], object]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is compared
        act()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_aggregated_is_refused_in_one_line() -> None:
    plain = DiLoCoCoordinator()
    start = plain.initialize(config(), NODES)
    refused("No updates provided for aggregation.", lambda: plain.collect_updates(1, []))
    refused("No updates provided for aggregation.", lambda: plain.run_round(start, []))
    twice = [update("a", 1, w=[1.0]), update("a", 1, w=[2.0])]
    refused("node 'a' has handed in two updates", lambda: plain.run_round(start, twice))
    two = [NODES[0], NODES[0]]
    refused("two nodes are called 'a'", lambda: plain.initialize(config(), two))
    late = Scripted([update("a", 1, w=[1.0])], [update("a", 1, w=[1.0])])
    refused("node 'a' has handed in an update of round 1 in round 2", lambda: plain.run_training(config(), NODES, late))
    foreign = Scripted([{"w": [1.0]}])  # type: ignore[list-item]
    refused("gave a dict, not a LocalUpdate", lambda: plain.run_training(config(), NODES, foreign))

    outer = DiLoCoCoordinator(outer_optimizer="nesterov", initial_weights={"w": [1.0, 2.0]})
    state = outer.initialize(config(), NODES)
    refused("node 'b': 'v' is no parameter", lambda: outer.run_round(state, [update("b", 1, v=[1.0])]))
    refused(
        "node 'b': 'w' has 3 values, the global weights have 2 values",
        lambda: outer.run_round(state, [update("b", 1, w=[1.0, 2.0, 3.0])]),
    )
    refused("the outer step makes 'w' infinite", lambda: outer.run_round(state, [update("b", 1, w=[1.7e308, 0.0])]))
    after = outer.run_round(state, [update("b", 1, w=[1.0, 2.0])])
    other = DiLoCoCoordinator(outer_optimizer="adam")
    refused("'nesterov'", lambda: other.run_round(after, [update("b", 2, w=[1.0, 2.0])]))
    refused("give outer_optimizer=", lambda: plain.run_round(after, [update("b", 2, w=[1.0, 2.0])]))
    assert outer.credit_tracker.all_credits() == {"b": 10}

    refused("unknown server step 'nestorov'", lambda: DiLoCoCoordinator(outer_optimizer="nestorov"))
    refused("must be a server step", lambda: DiLoCoCoordinator(outer_optimizer=0.7))  # type: ignore[arg-type]
    refused("use one of weights, pseudogradients", lambda: DiLoCoCoordinator(reports="gradients"))
    refused("initial_weights: 'w': value 1", lambda: DiLoCoCoordinator(initial_weights={"w": [1.0, float("nan")]}))


def test_the_simulation_decays_as_documented_and_repeats_by_seed() -> None:
    def run(seed: int | None, rounds: int = 5, optimizer: str | None = None) -> tuple[float, dict[str, int]]:
        result = DiLoCoCoordinator(outer_optimizer=optimizer).run_training(
            config(rounds), NODES, SimulatedProvider(seed=seed)
        )
        return result.final_loss, result.final_state.credits

    assert run(1) == run(1) != run(2)
    assert run(None) != run(None)
    for rounds in (1, 2, 5, 8):
        assert run(3, rounds)[0] == pytest.approx(0.8 ** (2 * rounds), rel=0.1)
    assert run(3, optimizer="replace")[0] == pytest.approx(run(3)[0])  # the same steps, reported as differences
    assert run(3, 30, "nesterov:lr=0.7,momentum=0.5")[0] < 0.01
    credits = run(3)[1]
    assert all(5 * 20 <= samples <= 5 * 40 for samples in credits.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"param_names": []}, "none"),
        ({"param_names": ["w", "w"]}, "differ: w, w"),
        ({"param_names": ["w", ""]}, "names must be there"),
        ({"param_size": 0}, "at least one number"),
    ],
)
def test_a_simulation_needs_parameters(options: dict[str, object], message: str) -> None:
    refused(message, lambda: SimulatedProvider(**options))  # type: ignore[arg-type]


def test_a_round_takes_no_update_of_another() -> None:
    coordinator = DiLoCoCoordinator(outer_optimizer="nesterov", initial_weights={"w": [1.0]})
    state = coordinator.initialize(config(), NODES)
    for closed in (
        lambda: coordinator.run_round(state, [update("a", 7, w=[1.0])]),
        lambda: DiLoCoCoordinator().collect_updates(1, [update("a", 1, w=[1.0]), update("b", 7, w=[1.0])]),
    ):
        with pytest.raises(ValueError, match=r"^node '[ab]' has handed in an update of round 7 in round 1$"):
            closed()
    assert coordinator.credit_tracker.all_credits() == {}


def test_a_report_of_weights_has_all_of_them() -> None:
    """What is missing would count as weights of zero."""
    coordinator = DiLoCoCoordinator(
        outer_optimizer="replace", initial_weights={"b": [3.0], "w": [1.0]}, reports="weights"
    )
    state = coordinator.initialize(config(), NODES)
    whole, first = update("a", 1, w=[2.0], b=[3.0]), DiLoCoCoordinator(outer_optimizer="nesterov")
    for lacking in (update("b", 1, w=[2.0]), update("b", 1, w=[2.0], b=[])):
        with pytest.raises(ValueError, match="node 'b': 'b' is missing from its weights"):
            coordinator.run_round(state, [whole, lacking])
        with pytest.raises(ValueError, match="node 'b': 'b' is missing from its weights"):  # their mean starts the run
            first.run_round(first.initialize(config(), NODES), [whole, lacking])
    by_differences = DiLoCoCoordinator(outer_optimizer="replace", initial_weights={"b": [3.0], "w": [1.0]})
    moved = by_differences.run_round(by_differences.initialize(config(), NODES), [update("b", 1, w=[0.5])])
    assert moved.global_weights == {"b": [3.0], "w": [0.5]}  # did not move


def test_no_number_of_samples_is_too_large_to_weigh() -> None:
    def used(node: str, samples: int, w: float) -> LocalUpdate:
        return LocalUpdate(node_id=node, round_id=1, gradients={"w": [w]}, loss=w, samples_used=samples)

    coordinator = DiLoCoCoordinator(weighted=True)
    state = coordinator.collect_updates(1, [used("a", 10**400, 1.0), used("b", 3 * 10**400, 3.0), used("c", 1, 9.0)])
    assert (state.global_weights, state.avg_loss) == ({"w": [2.5]}, 2.5)


@pytest.mark.parametrize("reports", ["pseudogradients", "weights"])
def test_the_outer_step_is_for_parameters_and_statistics_are_the_mean(reports: str) -> None:
    start = {"bn.running_var": [9.0, 4.0, 1.0, 0.5], "w": [0.0]}
    coordinator = DiLoCoCoordinator(outer_optimizer="momentum", initial_weights=start, reports=reports)
    state, b = coordinator.initialize(config(), NODES), 0.0
    for round_ in range(1, 7):
        local = {n: np.array(start["bn.running_var"]) * 0.3**round_ * share for n, share in (("a", 1.0), ("b", 0.5))}
        theta = {name: np.array(value) for name, value in state.global_weights.items()}
        given = [
            update(node, round_, **{"bn.running_var": theta["bn.running_var"] - var, "w": theta["w"] - 1.0})
            if reports == "pseudogradients"
            else update(node, round_, **{"bn.running_var": var, "w": np.ones(1)})
            for node, var in local.items()
        ]
        b = 0.9 * b + (theta["w"][0] - 1.0)
        state = GlobalState.model_validate_json(coordinator.run_round(state, given).model_dump_json())
        mean = (local["a"] + local["b"]) / 2
        np.testing.assert_allclose(state.global_weights["bn.running_var"], mean, rtol=1e-7, atol=1e-15)
        np.testing.assert_allclose(state.global_weights["w"], theta["w"] - b, rtol=1e-7)
        assert list(state.outer_state.tensors) == ["momentum/w"]


def test_a_parameter_that_the_outer_step_alone_makes_negative_is_warned_of() -> None:
    start = {"sizes": [3.0] * 4}
    coordinator = DiLoCoCoordinator(outer_optimizer="momentum:lr=3", initial_weights=start)
    with pytest.warns(UserWarning, match="'sizes': negative values after the server step"):
        coordinator.run_round(coordinator.initialize(config(), NODES), [update("a", 1, sizes=[2.0] * 4)])
    named = DiLoCoCoordinator(outer_optimizer="momentum:lr=3", initial_weights=start, statistics=["sizes"])
    state = named.run_round(named.initialize(config(), NODES), [update("a", 1, sizes=[2.0] * 4)])
    assert state.global_weights == {"sizes": [1.0] * 4}
