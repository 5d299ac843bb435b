"""What a coordinator says of an evaluation that has its result."""

from __future__ import annotations

from collections.abc import Iterable

from flavor.bus.runs import RunStore
from flavor.records.evaluation import EvaluationView
from flavor.results.best_when_judged import best_by, summary_in
from flavor.view.evaluation_events import EvaluationClosed


def told_as_closed(runs: RunStore, view: EvaluationView, *, apart: Iterable[str] = ()) -> EvaluationClosed:
    """Return the event of an evaluation that is closed, with what was measured, and whether its model was the best.

    It leaves out the notes `apart`, which its coordinator tells by themselves and less often. The log has them.
    """
    reason = view.reason
    for note in apart:
        reason = reason.replace(f"; {note}", "", 1)
    summary = summary_in(runs, view.round, view.number)
    select = best_by(runs, summary) if summary is not None else None
    best = f"; the best so far (--select {select})" if select is not None else ""
    return EvaluationClosed(f"{reason}{best}", view.round, view.number)
