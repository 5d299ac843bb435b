"""The outer optimizer: what makes the averaged pseudogradient move real weights (DiLoCo, arXiv 2311.08105)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aggregators import parse_server_step, run
from aggregators.protocols import ServerStep
from aggregators.quantities import turned_negative
from aumai_fedtrain.averager import shaped
from aumai_fedtrain.models import LocalUpdate, OuterState
from aumai_fedtrain.vectors import Array, as_array, is_finite, like
from flavor.errors import AggregationError, InvalidSetting
from flavor.patterns import STATISTICS


class OuterOptimizer:
    """A server step of the engine on weights that are kept in float64.

    In float64 for every type that the nodes report, so that weights and memory that went through JSON are the same
    bits as those that did not.
    """

    def __init__(self, step: ServerStep | str, statistics: Iterable[str] = STATISTICS) -> None:
        """`step` is a server step, or one by name: `"nesterov:lr=0.7,momentum=0.9"`; raises `InvalidSetting`.

        What a pattern of `statistics` matches is no parameter, as a batch norm's variances: the nodes' mean takes its
        place, without a step.
        """
        self.statistics = tuple(statistics)
        self.step = parse_server_step(step) if isinstance(step, str) else step
        self._text = step if isinstance(step, str) else re.sub(r" at 0x[0-9a-f]+", "", repr(step))
        if not isinstance(self.step, ServerStep):
            raise InvalidSetting(
                f"outer_optimizer must be a server step or its name, not {type(step).__name__}: "
                'write "nesterov:lr=0.7,momentum=0.9"'
            )

    @property
    def text(self) -> str:
        """The step in words that are the same in each process: as the user wrote it, else its class and parameters."""
        return self._text

    def apply(
        self, weights: Mapping[str, Any], reduced: Mapping[str, Any], state: OuterState | None, *, pseudogradients: bool
    ) -> tuple[dict[str, Any], OuterState | None]:
        """The weights after one outer step, and what the optimizer remembers.

        `reduced` holds for each of the `weights` (a parameter that is absent or empty: zeros) the mean pseudogradient
        Δ = mean(θ_global − θ_local), and the step is taken from θ to θ − Δ; or else the nodes' mean θ_local itself.
        Raises `AggregationError` when the state is another optimizer's or the result is not finite; warns
        (`UserWarning`) of a parameter that the step alone made negative.
        """
        names = sorted(weights)
        old = {name: as_array(weights[name]).astype(np.float64, copy=False) for name in names}
        new = {name: _target(old[name], reduced.get(name, ()), pseudogradients) for name in names}
        result = run(
            [new],
            server_step=self.step,
            global_model=old,
            state=state.restored() if state is not None and self.step.slots else None,
            threads=1,
            statistics=self.statistics,
        )
        if result.negative:
            warnings.warn(turned_negative(result.negative), UserWarning, stacklevel=2)
        examples: dict[str, Sequence[Any]] = {name: [weights[name], reduced.get(name)] for name in names}
        for name, array in result.model.items():
            if not is_finite(array):
                raise AggregationError(
                    f"the outer step makes {name!r} infinite or NaN: lower the learning rates, outer or inner"
                )
        stepped = {name: like(result.model[name], examples[name]) for name in names}
        after = None if result.state is None else OuterState.of(result.state, stepped)
        return stepped, after


def _target(old: Array, reduced: Any, pseudogradients: bool) -> Array:
    """Where the nodes would have the weights: θ − Δ, or their own mean."""
    given = as_array(reduced)
    if pseudogradients:
        return old - given if given.size else old
    return given.astype(np.float64, copy=False) if given.size else np.zeros_like(old)


def check_against(weights: Mapping[str, Any], updates: Sequence[LocalUpdate]) -> None:
    """Raise `AggregationError`, naming node and parameter, where an update does not fit the global weights."""
    for update in updates:
        for name, value in update.gradients.items():
            if name not in weights:
                raise AggregationError(f"node {update.node_id!r}: {name!r} is no parameter of the global weights")
            array, expected = as_array(value), as_array(weights[name])
            if array.size and array.shape != expected.shape:
                raise AggregationError(
                    f"node {update.node_id!r}: {name!r} has {shaped(array.shape)}, "
                    f"the global weights have {shaped(expected.shape)}"
                )


def check_whole(weights: Mapping[str, Any], updates: Sequence[LocalUpdate]) -> None:
    """Raise `AggregationError`, naming node and parameter, where an update of a node's own weights lacks some.

    They must have all of the global `weights`; before there are any, all that other nodes have.
    """
    known = dict(weights) or {
        name: value for update in updates for name, value in update.gradients.items() if as_array(value).size
    }
    for update in updates:
        for name, value in known.items():
            if as_array(value).size and not as_array(update.gradients.get(name, ())).size:
                raise AggregationError(
                    f"node {update.node_id!r}: {name!r} is missing from its weights: a node that reports weights "
                    "reports all of them"
                )
