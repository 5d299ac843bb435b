"""DiLoCo's outer loop: collect the nodes' updates, average, step, distribute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aggregators.protocols import ServerStep
from aumai_fedtrain.averager import GradientAverager
from aumai_fedtrain.credit import CreditTracker
from aumai_fedtrain.models import (
    FederatedNode,
    GlobalState,
    LocalUpdate,
    OuterState,
    Reports,
    TrainingConfig,
    TrainingResult,
)
from aumai_fedtrain.outer import OuterOptimizer, check_against, check_whole
from aumai_fedtrain.provider import Adapted, GivesUpdates, UpdateProvider
from aumai_fedtrain.vectors import checked
from aumai_fedtrain.verifier import HashVerifier
from flavor.errors import AggregationError, InvalidSetting
from flavor.patterns import STATISTICS


class DiLoCoCoordinator:
    """Runs rounds over nodes that train locally and report rarely (Douillard et al. 2023, arXiv 2311.08105).

    Without an outer optimizer `global_weights` are the averages of the reported vectors. With one they are the
    model's weights: the old ones minus the outer step on the mean pseudogradient Δ = θ_global − θ_local.
    `LocalUpdate.gradients` says what a node reports in each mode, `GlobalState.expects` what it is to report next.

    A round is a function of state and updates alone: all that is needed to go on, the optimizer's memory included, is
    in the `GlobalState`. So a state that was saved and restored goes on bit for bit.
    """

    def __init__(
        self,
        *,
        outer_optimizer: ServerStep | str | None = None,
        initial_weights: Mapping[str, Any] | None = None,
        weighted: bool = False,
        reports: Reports | str = Reports.PSEUDOGRADIENTS,
        statistics: Sequence[str] = STATISTICS,
    ) -> None:
        """Make a coordinator.

        Args:
            outer_optimizer: a server step of `aggregators`, as an object or by name:
                `"nesterov:lr=0.7,momentum=0.9"` is DiLoCo's; `flavor aggregators` lists all.
            initial_weights: what the first round starts from, parameter to list or array; by default the average of
                the nodes' first report.
            weighted: whether nodes count by their `samples_used` in averages, those of losses too.
            reports: with an outer optimizer, what nodes report once there are weights: pseudogradients, or their
                own weights, from which the coordinator takes the difference itself.
            statistics: patterns of the names of what is no parameter, by default those that a batch norm's means and
                variances have: the outer optimizer leaves them alone, and they become the nodes' mean.

        Raises `InvalidSetting`, a `ValueError`.

        """
        self._outer = None if outer_optimizer is None else OuterOptimizer(outer_optimizer, statistics)
        self._weighted = weighted
        try:
            self._reports = Reports(reports)
        except ValueError:
            raise InvalidSetting(f"reports={reports!r}: use one of {', '.join(Reports)}") from None
        self._initial: dict[str, Any] = {}
        for name, value in sorted((initial_weights or {}).items()):
            try:
                self._initial[name] = checked(value)
            except ValueError as error:
                raise InvalidSetting(f"initial_weights: {name!r}: {error}") from None
        self._credit_tracker, self._hash_verifier = CreditTracker(), HashVerifier()

    @property
    def credit_tracker(self) -> CreditTracker:
        """The samples of each node in all rounds that this coordinator has run."""
        return self._credit_tracker

    @property
    def hash_verifier(self) -> HashVerifier:
        """The verifier of updates that carry a `gradient_hash`."""
        return self._hash_verifier

    @property
    def rule(self) -> dict[str, Any]:
        """How this coordinator makes the weights of a round, as settings of a run of live nodes, whose record has them.

        `server_step` is the outer optimizer, `weights` says by what nodes are weighed, and `statistics` are the
        patterns of what the outer optimizer leaves alone. A training goes on under the same rule alone.
        """
        return {
            "server_step": None if self._outer is None else self._outer.text,
            "weights": "datasetSize" if self._weighted else "equal",
            "statistics": STATISTICS if self._outer is None else self._outer.statistics,
        }

    def initialize(self, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> GlobalState:
        """Return the state before the first round: round 0, the initial weights, a loss of 0.0, and all nodes.

        Raises `InvalidSetting` when two nodes have the same `node_id`.
        """
        names = [node.node_id for node in nodes]
        if twice := _first_twice(names):
            raise InvalidSetting(f"two nodes are called {twice!r}: give each a node_id of its own")
        return GlobalState(
            round_id=0,
            global_weights=self._initial,
            participating_nodes=names,
            avg_loss=0.0,
            expects=self._expected(self._initial),
        )

    def collect_updates(
        self, round_id: int, updates: Sequence[LocalUpdate], *, state: GlobalState | None = None
    ) -> GlobalState:
        """Return the state after round `round_id`, to which these updates belong, and record the nodes' credits.

        Args:
            round_id: the round that the updates close.
            updates: of different nodes; `participating_nodes` has their order.
            state: what they were trained from. An outer optimizer steps from it; the credits of earlier rounds stand
                in it. Without one the state is that of averages alone.

        Raises:
            AggregationError: (a `ValueError`) no updates, two of one node, one of another round, vectors that do not
                fit together, an update whose gradients are not those of its `gradient_hash`; with an outer optimizer
                also: no `state`, a parameter or a shape that is not that of the global weights, a node that
                reports weights and lacks some, or the state of another optimizer. Nothing is recorded then.

        """
        _check_round(updates, round_id)
        averages = self._averages(updates)
        if state is None and self._outer is not None:
            raise AggregationError(
                "an outer optimizer steps from the weights of a state: pass state=..., or use run_round"
            )
        weights, outer_state = (averages, None) if state is None else self._stepped(state, averages, updates)
        credits = {} if state is None else dict(state.credits)
        for update in updates:
            self._credit_tracker.record_contribution(update.node_id, update.samples_used, round_id)
            credits[update.node_id] = credits.get(update.node_id, 0) + update.samples_used
        return GlobalState(
            round_id=round_id,
            global_weights=weights,
            participating_nodes=[update.node_id for update in updates],
            avg_loss=self._mean_loss(updates),
            expects=self._expected(weights),
            outer_state=outer_state,
            credits=dict(sorted(credits.items())),
        )

    def _averages(self, updates: Sequence[LocalUpdate]) -> dict[str, Any]:
        """Average each parameter over the updates of one round, sorted by name; see `GradientAverager.average`."""
        if not updates:
            raise AggregationError("No updates provided for aggregation.")
        if twice := _first_twice([update.node_id for update in updates]):
            raise AggregationError(f"node {twice!r} has handed in two updates of one round")
        for update in updates:
            if update.gradient_hash is not None and not self._hash_verifier.verify(update, update.gradient_hash):
                raise AggregationError(
                    f"Gradient tampering detected from {update.node_id}: the gradients are not those of its hash"
                )
        return GradientAverager.average(updates, weighted=self._weighted)

    def run_round(self, state: GlobalState, updates: Sequence[LocalUpdate]) -> GlobalState:
        """Return the state after one more round, from `updates` that were trained from `state`; `state` is not changed.

        Records the nodes' credits. Raises `AggregationError`, a `ValueError`, as `collect_updates`; nothing is recorded
        then. Nodes may join at any round, so an update of any node counts: leave out those that you do not know.
        """
        return self.collect_updates(state.round_id + 1, updates, state=state)

    def distribute_state(
        self, state: GlobalState, nodes: Sequence[FederatedNode], provider: UpdateProvider | None = None
    ) -> None:
        """Send `state` to the nodes through `provider`; without one, do nothing: `get_updates` gets the state."""
        if provider is not None:
            provider.distribute_state(state, list(nodes))

    def run_training(
        self,
        config: TrainingConfig,
        nodes: Sequence[FederatedNode],
        update_provider: UpdateProvider | GivesUpdates,
        *,
        state: GlobalState | None = None,
        on_round: Callable[[GlobalState], None] | None = None,
    ) -> TrainingResult:
        """Run rounds until `config.global_rounds` are closed, or the provider returns no updates for a round.

        Args:
            config: what to train; a provider finds it as `self.config`, unless it has a `config` of its own.
            nodes: who takes part.
            update_provider: where updates come from: an `UpdateProvider`, or any object with its `get_updates`.
            state: a saved state to go on from; by default what the provider remembers (live nodes), else a new one.
            on_round: called with the state after each round, to save it, say.

        Returns:
            The result, with the newest state. A restored run gives what the uninterrupted one would have given.

        Raises:
            AggregationError: (a `ValueError`) as `run_round`; or what the provider gives is no `LocalUpdate`.
            TypeError: `update_provider` has no `get_updates`.

        """
        began = time.perf_counter()
        nodes = list(nodes)
        provider = update_provider if isinstance(update_provider, UpdateProvider) else Adapted(update_provider)
        provider.take_config(config)
        provider.take_rule(self.rule)
        with provider.training(config, nodes):
            current = state or provider.restore(config, nodes) or self.initialize(config, nodes)
            if current.round_id == 0:  # weights alone: what the nodes report from them is this coordinator's to say
                current = current.model_copy(update={"expects": self._expected(current.global_weights)})
            if not self._credit_tracker.all_credits():  # what a restored run has earned before
                for node_id, samples in current.credits.items():
                    self._credit_tracker.record_contribution(node_id, samples)
            while current.round_id < config.global_rounds:
                round_id = current.round_id + 1
                updates = provider.get_updates(round_id, current, nodes)
                if not updates:
                    break
                _check_kind(updates)
                current = self.run_round(current, updates)
                self.distribute_state(current, nodes, provider)
                if on_round is not None:
                    on_round(current)
        return TrainingResult(
            config=config,
            rounds_completed=current.round_id,
            total_samples=sum(current.credits.values()),
            final_loss=_final_loss(current),
            duration_seconds=round(time.perf_counter() - began, 4),
            final_state=current,
        )

    def _stepped(
        self, state: GlobalState, averages: dict[str, Any], updates: Sequence[LocalUpdate]
    ) -> tuple[dict[str, Any], OuterState | None]:
        """Return the weights after a round, and the outer optimizer's memory."""
        pseudogradients = state.expects is Reports.PSEUDOGRADIENTS
        if self._outer is None:
            if pseudogradients or state.outer_state is not None:
                raise AggregationError(
                    "the state is that of a run with an outer optimizer: give outer_optimizer=... to go on with it"
                )
            return averages, None
        if not pseudogradients:
            check_whole(state.global_weights, updates)
        if not state.global_weights or not (pseudogradients or self._reports is Reports.WEIGHTS):
            return averages, None  # the nodes' first report is what the run starts from
        check_against(state.global_weights, updates)
        return self._outer.apply(state.global_weights, averages, state.outer_state, pseudogradients=pseudogradients)

    def _expected(self, weights: Mapping[str, Any]) -> Reports:
        """Return what nodes are to report when the global weights are these."""
        return self._reports if self._outer is not None and weights else Reports.WEIGHTS

    def _mean_loss(self, updates: Sequence[LocalUpdate]) -> float | None:
        reported = [(update.loss, update.samples_used) for update in updates if update.loss is not None]
        if not reported:
            return None
        total = sum(samples for _, samples in reported) if self._weighted else 0
        if not total:
            return math.fsum(loss / len(reported) for loss, _ in reported)
        return math.fsum(loss * (samples / total) for loss, samples in reported)


def _final_loss(state: GlobalState) -> float:
    if state.round_id == 0:
        return 0.0
    return math.nan if state.avg_loss is None else state.avg_loss


def _first_twice(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _check_kind(updates: Sequence[LocalUpdate]) -> None:
    for update in updates:
        if not isinstance(update, LocalUpdate):
            raise AggregationError(f"get_updates gave a {type(update).__name__}, not a LocalUpdate")


def _check_round(updates: Sequence[LocalUpdate], round_id: int) -> None:
    for update in updates:
        if update.round_id != round_id:
            raise AggregationError(
                f"node {update.node_id!r} has handed in an update of round {update.round_id} in round {round_id}"
            )
