"""Providers: where a coordinator gets the updates of the nodes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from aumai_fedtrain.models import FederatedNode, GlobalState, LocalUpdate, TrainingConfig


class GivesUpdates(Protocol):
    """What `run_training` needs of a provider."""

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode], /) -> list[LocalUpdate]:
        """Return the nodes' updates of round `round_id` (1, 2, ...), trained from `state`."""


class UpdateProvider:
    """The base class of providers, whose nodes are simulated, called, or live on the bus.

    Only `get_updates` is needed. `run_training` sets `config` to the configuration that it was given, unless the
    provider has a `config` of its own.
    """

    config: TrainingConfig | None = None
    _given: TrainingConfig | None = None  # what run_training has set `config` to

    def take_config(self, config: TrainingConfig) -> None:
        """Set `config`, unless the provider's class or its author has set it."""
        own = type(self).config is not None or self.config is not self._given
        if not own:
            self.config = self._given = config

    def take_rule(self, rule: Mapping[str, Any]) -> None:
        """Note how the coordinator averages: `DiLoCoCoordinator.rule`. By default, do nothing."""

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        """Return the nodes' updates of round `round_id` (1, 2, ...), trained from `state`.

        `state.expects` says what their `gradients` are to hold. An empty list ends the training early. Subclasses
        implement this method; here it raises `NotImplementedError`.
        """
        raise NotImplementedError(f"{type(self).__name__}.get_updates must return the nodes' updates of a round")

    def distribute_state(self, state: GlobalState, nodes: Sequence[FederatedNode]) -> None:
        """Send the state after a round to the nodes. By default, do nothing: `get_updates` gets the state, too."""

    def restore(self, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> GlobalState | None:
        """Return the state to go on from, where the nodes keep one; by default None, to start anew."""
        return None

    @contextmanager
    def training(self, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> Iterator[None]:
        """Open what the provider needs before the first round, and close it after the last. By default, do nothing."""
        yield


class Adapted(UpdateProvider):
    """Makes a provider of any object with `get_updates`; nothing else of the object is called or set."""

    def __init__(self, provider: GivesUpdates) -> None:
        """Wrap the object. Raises `TypeError` for one without `get_updates`."""
        if not callable(getattr(provider, "get_updates", None)):
            raise TypeError(f"update_provider must have get_updates(round_id, state, nodes): {provider!r} has not")
        self._provider = provider

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        """Return what the object returns."""
        return self._provider.get_updates(round_id, state, nodes)
