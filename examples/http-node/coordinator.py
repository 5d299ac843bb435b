"""Train over nodes that are called by HTTP: python coordinator.py young=127.0.0.1:5001 old=127.0.0.1:5002

The provider is the one of docs/fedtrain.md, pattern 3, as it stands there.
"""

from __future__ import annotations

import sys

from aumai_fedtrain import (
    DiLoCoCoordinator,
    FederatedNode,
    GlobalState,
    LocalUpdate,
    TrainingConfig,
    UpdateProvider,
)


class HttpUpdateProvider(UpdateProvider):
    """Collects real gradient updates from live nodes over HTTP."""

    def get_updates(
        self,
        round_id: int,
        state: GlobalState,
        nodes: list[FederatedNode],
    ) -> list[LocalUpdate]:
        import httpx

        updates: list[LocalUpdate] = []
        for node in nodes:
            response = httpx.post(
                f"http://{node.address}/train",
                json={
                    "round_id": round_id,
                    "global_weights": state.global_weights,
                },
                timeout=60.0,
            )
            response.raise_for_status()
            updates.append(LocalUpdate.model_validate(response.json()))
        return updates


def main() -> None:
    pairs = [argument.partition("=") for argument in sys.argv[1:]]
    nodes = [FederatedNode(node_id=name, address=address) for name, _, address in pairs]
    if not nodes or not all(node.address for node in nodes):
        sys.exit("usage: python coordinator.py NODE=HOST:PORT ...")
    config = TrainingConfig(
        model_name="diabetes",
        learning_rate=0.01,
        batch_size=32,
        local_steps=20,
        global_rounds=15,
        num_nodes=len(nodes),
    )
    coordinator = DiLoCoCoordinator(outer_optimizer="nesterov:lr=0.7,momentum=0.9")
    result = coordinator.run_training(
        config,
        nodes,
        HttpUpdateProvider(),
        on_round=lambda state: print(f"round {state.round_id}: loss {state.avg_loss:.4f}"),
    )
    print(f"weights: {dict(result.final_state.global_weights)}")
    for node_id, samples in coordinator.credit_tracker.all_credits().items():
        print(f"{node_id}: {samples} samples")


if __name__ == "__main__":
    main()
