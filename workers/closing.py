"""Close an evaluation: store what its results merge to, with a signed record, and name the best model that the run has.

Another evaluation may make another model the best at the same time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flavor.bus.runs import RunStore
from flavor.errors import FlavorError, IllegalMove
from flavor.failpoints import reach
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.evaluation import EvaluationManifest, JudgedSubject, put_manifest
from flavor.policy.selection import Choice
from flavor.records.evaluation import BestModel, EvaluationSummary, EvaluationView, ResultVerdict
from flavor.records.info import Info
from flavor.records.run import RunView
from flavor.records.states import EvaluationState
from flavor.store.paths import evaluation_prefix, named
from flavor.store.trouble import StoreHealth
from workers.context import WorkerContext

_TRIES = 5


@dataclass(frozen=True)
class Outcome:
    """What one attempt to end an evaluation has found."""

    merged: Info
    """The merged information."""
    record: Mapping[str, Any]
    """The fields of the `EvaluationManifest` that say who has judged the model."""
    verdicts: Mapping[str, ResultVerdict] = field(default_factory=dict)
    reported: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """See `RunStore.commit_evaluation`."""


@dataclass(frozen=True)
class Ending:
    """What depends on which model was the best before."""

    choice: Choice
    summary: EvaluationSummary
    reason: str
    """The reason in the log."""


def is_current(evaluation: EvaluationView | None, attempt: int) -> bool:
    """Return whether this attempt is the one that may close the evaluation."""
    return evaluation is not None and (evaluation.state, evaluation.attempt) == (EvaluationState.MERGING, attempt)


def record_and_close(
    context: WorkerContext,
    runs: RunStore,
    view: RunView,
    evaluation: EvaluationView,
    outcome: Outcome,
    end: Callable[[BestModel | None], Ending],
    *,
    best: BestModel | None,
    failpoint: str,
) -> str:
    """Store what was merged and the signed record, and close the evaluation; return the reason in the log.

    `end` is called with the best model before this evaluation: first with `best`. Tests stop the worker at `failpoint`,
    where the record is stored and the evaluation is not closed. Raises as `close_on_best`, and `StoreError`.
    """
    archive, health = Archive(context.store, view.run), StoreHealth(context.store, view.run, view.run_id)
    data = json.dumps(outcome.merged, allow_nan=False).encode()
    prefix = evaluation_prefix(view.run, evaluation.round, evaluation.number)
    with health.mounted(whose=True):
        info = archive.put(named(prefix, "merged", sha256(data), ".json"), data)

    def close(before: BestModel | None) -> str:
        ending, model = end(before), evaluation.model.model
        now_best = ending.choice.best
        manifest = EvaluationManifest(
            run=view.run,
            run_id=view.run_id,
            round=evaluation.round,
            evaluation=evaluation.number,
            subject=JudgedSubject.of(evaluation.subject),
            model_path=model.path,
            model_digest=model.digest,
            opened_ms=evaluation.opened_ms,
            closed_ms=runs.now_ms(),
            best_round=now_best.round if now_best else 0,
            merged_path=info.path,
            merged_digest=info.digest,
            **outcome.record,
        )
        with health.mounted(whose=True):
            recorded = put_manifest(archive, manifest.signed(context.key))
        reach(failpoint)
        runs.commit_evaluation(
            evaluation.round,
            evaluation.number,
            attempt=evaluation.attempt,
            verdicts=outcome.verdicts,
            info=info,
            manifest=recorded,
            summary=ending.summary,
            reason=ending.reason,
            before=before,
            best=now_best,
            best_reason=ending.choice.reason,
            reported=outcome.reported,
        )
        return ending.reason

    return close_on_best(runs, evaluation, best, close)


def _require_current(runs: RunStore, evaluation: EvaluationView) -> None:
    if not is_current(runs.read_evaluation(evaluation.round, evaluation.number), evaluation.attempt):
        raise IllegalMove(f"run {runs.run!r}: evaluation {evaluation.number} of round {evaluation.round} has gone on")


def close_on_best(
    runs: RunStore, evaluation: EvaluationView, best: BestModel | None, close: Callable[[BestModel | None], str]
) -> str:
    """Return what `close(best)` returns, called again with the best model that there is by then if it was refused.

    Raises `IllegalMove` where the evaluation is over or another attempt is current, and `FlavorError` where other
    models have become the best each time.
    """
    for _ in range(_TRIES):
        try:
            _require_current(runs, evaluation)  # before its record is put: a later one would count after a recovery
            return close(best)
        except IllegalMove:
            if not is_current(runs.read_evaluation(evaluation.round, evaluation.number), evaluation.attempt):
                raise
            best = runs.read_own().best
    raise FlavorError(f"another model became the best in each of {_TRIES} attempts to close the evaluation")
