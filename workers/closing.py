"""Close an evaluation on the best model that the run has: another evaluation may have made another model the best."""

from __future__ import annotations

from collections.abc import Callable

from flavor.bus.runs import RunStore
from flavor.errors import FlavorError, IllegalMove
from flavor.records.evaluation import BestModel, EvaluationView
from flavor.records.states import EvaluationState

_TRIES = 5


def is_current(evaluation: EvaluationView | None, attempt: int) -> bool:
    """Return whether this attempt is the one that may close the evaluation."""
    return evaluation is not None and (evaluation.state, evaluation.attempt) == (EvaluationState.MERGING, attempt)


def close_on_best(
    runs: RunStore, evaluation: EvaluationView, best: BestModel | None, close: Callable[[BestModel | None], str]
) -> str:
    """Return what `close(best)` returns, called again with the best model that there is by then if it was refused.

    Raises `IllegalMove` where the evaluation is over or another attempt is current, and `FlavorError` where other
    models have become the best each time.
    """
    for _ in range(_TRIES):
        try:
            return close(best)
        except IllegalMove:
            if not is_current(runs.read_evaluation(evaluation.round, evaluation.number), evaluation.attempt):
                raise
            best = runs.read_own().best
    raise FlavorError(f"another model became the best in each of {_TRIES} attempts to close the evaluation")
