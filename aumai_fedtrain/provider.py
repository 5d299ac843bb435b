"""Where a coordinator's updates come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from aumai_fedtrain.models import FederatedNode, GlobalState, LocalUpdate, TrainingConfig


class GivesUpdates(Protocol):
    """All that `run_training` needs of a provider, whatever its class is."""

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode], /) -> list[LocalUpdate]:
        """The nodes' updates of round `round_id` (1, 2, ...), trained from `state`."""


class UpdateProvider:
    """The nodes, as the coordinator sees them: simulated, called, or live on the bus.

    Only `get_updates` is needed. `run_training` sets `config` to the configuration that it was given, unless the
    provider has a `config` of its own.
    """

    config: TrainingConfig | None = None
    _given: TrainingConfig | None = None  # what run_training has set `config` to

    def take_config(self, config: TrainingConfig) -> None:
        """Set `config`, unless the provider's class or its author has set one: that is left alone."""
        own = type(self).config is not None or self.config is not self._given
        if not own:
            self.config = self._given = config

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        """The nodes' updates of round `round_id` (1, 2, ...), trained from `state`.

        `state.expects` says what their `gradients` are to hold. At least one for each round: the training ends early
        with an empty list. Raises `NotImplementedError` where a provider does not say how.
        """
        raise NotImplementedError(f"{type(self).__name__}.get_updates must return the nodes' updates of a round")

    def distribute_state(self, state: GlobalState, nodes: Sequence[FederatedNode]) -> None:
        """Send the state after a round to the nodes. By default nothing: `get_updates` hands it over, too."""

    def restore(self, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> GlobalState | None:
        """The state to go on from, where the nodes' side remembers one; None to start anew, as by default."""
        return None

    @contextmanager
    def training(self, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> Iterator[None]:
        """Around a whole training: what must be opened before the first round and closed after the last."""
        yield


class Adapted(UpdateProvider):
    """Any object with `get_updates`, as a provider. Nothing else of it is called or set."""

    def __init__(self, provider: GivesUpdates) -> None:
        """`TypeError` for an object without `get_updates`."""
        if not callable(getattr(provider, "get_updates", None)):
            raise TypeError(f"update_provider must have get_updates(round_id, state, nodes): {provider!r} has not")
        self._provider = provider

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        """What the object gives."""
        return self._provider.get_updates(round_id, state, nodes)
