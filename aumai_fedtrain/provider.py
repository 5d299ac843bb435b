"""Where a coordinator's updates come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aumai_fedtrain.models import FederatedNode, GlobalState, LocalUpdate, TrainingConfig


class UpdateProvider(ABC):
    """The nodes, as the coordinator sees them: simulated, called, or live on the bus.

    Only `get_updates` is needed. During `run_training` the attribute `config` is the configuration that it was given.
    """

    config: TrainingConfig | None = None

    @abstractmethod
    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        """The nodes' updates of round `round_id` (1, 2, ...), trained from `state`.

        `state.expects` says what their `gradients` are to hold. At least one for each round: the training ends early
        with an empty list.
        """

    def distribute_state(self, state: GlobalState, nodes: Sequence[FederatedNode]) -> None:  # noqa: B027 - optional
        """Send the state after a round to the nodes. By default nothing: `get_updates` hands it over, too."""

    def restore(self, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> GlobalState | None:
        """The state to go on from, where the nodes' side remembers one; None to start anew, as by default."""
        return None

    @contextmanager
    def training(self, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> Iterator[None]:
        """Around a whole training: what must be opened before the first round and closed after the last."""
        yield
