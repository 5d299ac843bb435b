"""What a coordinator says of an evaluation that has its result."""

from __future__ import annotations

from flavor.bus.runs import RunStore
from flavor.records.evaluation import EvaluationView
from flavor.results.selected import best_by
from flavor.view.evaluation_events import EvaluationClosed


def told_as_closed(runs: RunStore, view: EvaluationView) -> EvaluationClosed:
    """Return the event of an evaluation that is closed, with what was measured, and whether its model is the best."""
    select = best_by(runs.read(), view.round, central=view.is_central)
    best = f"; the best so far (--select {select})" if select is not None else ""
    return EvaluationClosed(f"{view.reason}{best}", view.round, view.number)
