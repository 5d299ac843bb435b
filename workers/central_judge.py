"""The part of a worker that judges models on the operator's own data, with `flavor-agg -e`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from flavor.programs.own_evaluator import OwnEvaluator
from flavor.signals import asked_to_end


@dataclass(frozen=True)
class CentralJudge:
    """The operator's evaluator, and whether this worker still takes part."""

    evaluator: OwnEvaluator
    tell: Callable[[str], None]
    """Tells the worker's operator of an evaluator's end: what it printed stays on this machine."""
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def ends(self) -> bool:
        """Whether the worker ends, so that the job is left to another one."""
        return self.over.is_set() or asked_to_end()
