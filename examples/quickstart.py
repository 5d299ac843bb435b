"""aumai_fedtrain in one file: a training, rounds by hand, verification, credits. Run it: python examples/quickstart.py

Three nodes fit one line, y = 2x + 1, each on points of its own. Nothing else has to run, and only numpy is used.
"""

from __future__ import annotations

import numpy as np

from aumai_fedtrain import (
    DiLoCoCoordinator,
    FederatedNode,
    GlobalState,
    HashVerifier,
    LocalUpdate,
    TrainingConfig,
    UpdateProvider,
)

CONFIG = TrainingConfig(
    model_name="line", learning_rate=0.1, batch_size=16, local_steps=20, global_rounds=10, num_nodes=3
)
NODES = [FederatedNode(node_id=f"node-{i}", address=f"10.0.0.{i}:5000") for i in range(CONFIG.num_nodes)]


def train(node: FederatedNode, round_id: int, state: GlobalState) -> LocalUpdate:
    """One node's part in a round: gradient descent on its own points, from the global weights."""
    rng = np.random.default_rng([round_id, *node.node_id.encode()])
    slope = np.array(state.global_weights.get("slope", [0.0]))
    intercept = np.array(state.global_weights.get("intercept", [0.0]))
    error = np.zeros(CONFIG.batch_size)
    for _ in range(CONFIG.local_steps):
        x = rng.uniform(-1, 1, CONFIG.batch_size)
        error = slope * x + intercept - (2 * x + 1)
        slope = slope - CONFIG.learning_rate * 2 * np.mean(error * x)
        intercept = intercept - CONFIG.learning_rate * 2 * np.mean(error)
    return LocalUpdate(
        node_id=node.node_id,
        round_id=round_id,
        gradients={"slope": slope.tolist(), "intercept": intercept.tolist()},  # the node's own weights
        loss=float(np.mean(error**2)),
        samples_used=CONFIG.local_steps * CONFIG.batch_size,
    )


class Nodes(UpdateProvider):
    """Where the coordinator gets its updates: here by calling the nodes."""

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        """Every node trains."""
        return [train(node, round_id, state) for node in nodes]


def programmatic_training() -> None:
    """All rounds in one call."""
    coordinator = DiLoCoCoordinator()
    result = coordinator.run_training(CONFIG, NODES, Nodes())
    weights = result.final_state.global_weights
    print(f"{result.rounds_completed} rounds, final loss {result.final_loss:.6f}")
    print(f"y = {weights['slope'][0]:.3f} x + {weights['intercept'][0]:.3f}")
    for node_id, samples in coordinator.credit_tracker.all_credits().items():
        print(f"  {node_id}: {samples} samples")


def manual_rounds() -> None:
    """The same, round by round, with the nodes' state in your hands."""
    coordinator = DiLoCoCoordinator()
    state = coordinator.initialize(CONFIG, NODES)
    for round_id in (1, 2, 3):
        updates = []
        for node in NODES:
            node.status = "training"
            updates.append(train(node, round_id, state))
            node.status = "idle"
        state = coordinator.run_round(state, updates)
        print(f"round {state.round_id}: loss {state.avg_loss:.6f} from {', '.join(state.participating_nodes)}")
        coordinator.distribute_state(state, NODES)
    print(f"round 2 alone: {coordinator.credit_tracker.round_credits(2)}")


def verification() -> None:
    """What was changed on its way is found by its hash."""
    update = train(NODES[0], 1, DiLoCoCoordinator().initialize(CONFIG, NODES))
    digest = HashVerifier.compute_hash(update.gradients)
    changed = update.model_copy(update={"gradients": {**update.gradients, "slope": [1000.0]}})
    print(f"as sent: {HashVerifier.verify(update, digest)}, changed: {HashVerifier.verify(changed, digest)}")


if __name__ == "__main__":
    programmatic_training()
    manual_rounds()
    verification()
