"""Simulated nodes: a quadratic problem whose loss falls by a fixed factor in each round."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from aumai_fedtrain.models import FederatedNode, GlobalState, LocalUpdate, Reports
from aumai_fedtrain.provider import UpdateProvider
from aumai_fedtrain.vectors import as_array
from flavor.errors import InvalidSetting

APPROACH = 0.2
"""Share of the way to its optimum that a node goes in a round. It does not depend on the learning rate."""
SPREAD = 0.05
"""Distance of the nodes' optima from each other, as a share of their distance from the start."""


class SimulatedProvider(UpdateProvider):
    """Simulated nodes, each with an optimum of its own near a common one.

    In a round a node goes from the global weights a fixed share of the way to its optimum, with a jitter that falls
    with its samples, and reports the mean squared distance that remains, 1.0 being that of the start: so without an
    outer optimizer the loss falls by (1 − APPROACH)², to about 0.11 in five rounds. It draws its samples between half
    and all of local_steps · batch_size. Nothing depends on the learning rate.
    """

    def __init__(
        self, *, param_names: Sequence[str] = ("weight", "bias"), param_size: int = 8, seed: int | None = None
    ) -> None:
        """`param_names` parameters of `param_size` numbers each; the same `seed` gives the same run."""
        if not param_names or not all(param_names) or len(set(param_names)) < len(param_names):
            raise InvalidSetting(f"the parameters' names must be there, and differ: {', '.join(param_names) or 'none'}")
        if param_size < 1:
            raise InvalidSetting(f"a parameter needs at least one number, not {param_size}")
        self._names, self._size = tuple(param_names), param_size
        self._seed = random.SystemRandom().randrange(2**32) if seed is None else seed
        optimum = self._rng("optimum").normal(size=(len(self._names), param_size))
        self._optimum = optimum / np.sqrt(np.mean(optimum**2))

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        """Return one update of each node."""
        start = self._weights(state)
        return [self._update(round_id, state.expects, start, node.node_id) for node in nodes]

    def _weights(self, state: GlobalState) -> np.ndarray[Any, Any]:
        """Return the global weights, a row for each parameter; zeros before there are any."""
        return np.stack([as_array(state.global_weights.get(name, [0.0] * self._size)) for name in self._names])

    def _update(self, round_id: int, expects: Reports, start: np.ndarray[Any, Any], node_id: str) -> LocalUpdate:
        rng = self._rng(f"{node_id}/{round_id}")
        most = self.config.batch_size * self.config.local_steps if self.config else 256
        samples = int(rng.integers(max(1, most // 2), most, endpoint=True))
        optimum = self._optimum + SPREAD * self._rng(node_id).normal(size=start.shape)
        local = start + APPROACH * (optimum - start)
        local += rng.normal(size=start.shape) * SPREAD / np.sqrt(samples)
        reported = start - local if expects is Reports.PSEUDOGRADIENTS else local
        return LocalUpdate(
            node_id=node_id,
            round_id=round_id,
            gradients={name: row.tolist() for name, row in zip(self._names, reported, strict=True)},
            loss=float(np.mean((local - optimum) ** 2)),
            samples_used=samples,
        )

    def _rng(self, what: str) -> np.random.Generator:
        """Return a generator for one purpose, so that a restored training draws the same numbers."""
        return np.random.default_rng([self._seed % 2**64, *what.encode()])
