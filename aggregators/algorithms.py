"""A reducer with a server step, and the pairs that have a name of their own."""

from __future__ import annotations

from dataclasses import dataclass

from aggregators.mean import Mean
from aggregators.protocols import Reducer, ServerStep
from aggregators.server import Nesterov, Replace


@dataclass(frozen=True)
class Algorithm:
    """A reducer and a server step, ready for `aggregators.run`."""

    reducer: Reducer
    server_step: ServerStep

    @property
    def needs_global(self) -> bool:
        """Whether the first round needs pre-trained weights."""
        return self.reducer.needs_global or self.server_step.needs_global

    def without_global(self) -> Algorithm:
        """Return the algorithm of a first round without pre-trained weights.

        Such a round has no model to step from or to measure a change against. So the reduced model becomes the global
        one. A reducer that needs the old global model is replaced by the result of its method `without_global` (for
        norm_clip: the rule behind it), and by the mean where it has no such method.
        """
        reducer = self.reducer
        while reducer.needs_global:
            instead = getattr(reducer, "without_global", Mean)
            reducer = instead()
        return Algorithm(reducer, Replace())


class FedAvg(Algorithm):
    """Weighted mean that replaces the global model."""

    source = "McMahan et al. 2017, arXiv 1602.05629"
    condition = "n >= 1"

    def __init__(self) -> None:
        super().__init__(Mean(), Replace())


class DiLoCo(Algorithm):
    """Weighted mean, then Nesterov momentum on the pseudogradient (lr 0.7, momentum 0.9)."""

    source = "Douillard et al. 2023, arXiv 2311.08105, Algorithm 1"
    condition = "n >= 1 and an old global model"

    def __init__(self) -> None:
        super().__init__(Mean(), Nesterov())
