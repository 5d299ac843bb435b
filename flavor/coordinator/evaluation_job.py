"""The work that an evaluation needs of a worker: to merge its results, or to judge a model on the operator's own data.

All who drive an evaluation begin an attempt, follow it and end it here: the coordinator of the run, and a command that
asks for evaluations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from flavor.bus.jobs import JobQueue
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.errors import IllegalMove
from flavor.failpoints import reach
from flavor.policy.evaluation_job import Whereabouts
from flavor.records.evaluation import EvaluationKind, EvaluationView
from flavor.records.states import EvaluationState

ENDED_BEFORE = "the run ended before its result"
"""Why an evaluation that is open at the run's end is skipped."""
_LOOK_S = 1.0
"""Seconds between two looks at where a job is."""


class EvaluationJob:
    """The job of one evaluation's current attempt."""

    def __init__(self, runs: RunStore, jobs: JobQueue, config: RunConfig) -> None:
        self._runs, self._jobs, self._config = runs, jobs, config
        self._attempt: tuple[int, int, int] | None = None
        self._looked_at = self._seen_at = 0.0  # by this process's monotonic clock
        self._found = Whereabouts()

    def begin(self, token: str, view: EvaluationView, *, by: str = "") -> EvaluationView:
        """Begin the next attempt, by the token of the lease `by`, and return the evaluation as it is then.

        Raises `IllegalMove` where the evaluation has gone on since it was read.
        """
        round_, number, attempt = view.round, view.number, view.attempt + 1
        merging_ms = self._runs.begin_merge(token, round_, number, attempt=attempt, by=by)
        reach("coordinator.merging")
        if view.is_central:
            self._jobs.judge(self._runs.run, round_, attempt=attempt)
        else:
            self._jobs.merge(self._runs.run, round_, number, attempt=attempt)
        begun = replace(view, state=EvaluationState.MERGING, attempt=attempt, merging_ms=merging_ms, error="")
        self._follow(begun)
        return begun

    def look(self, view: EvaluationView, now_ms: int, *, anew: bool = False) -> Whereabouts:
        """Return where the job is, as found a second ago at most; `now_ms` is the time of the server."""
        now = time.monotonic()
        if self._attempt != (view.round, view.number, view.attempt):
            self._follow(view)
        elif not anew and now < self._looked_at + _LOOK_S:
            return self._found
        if view.state is not EvaluationState.MERGING or (not anew and now < self._seen_at + _LOOK_S):
            return self._found
        self._looked_at = now
        is_taken = self._runs.is_in_hand(view.round, view.number)
        is_queued = not is_taken and self._jobs.waits_for_worker(
            self._runs.run, view.round, view.number, attempt=view.attempt
        )
        if is_taken or is_queued:
            self._seen_at = now
        self._found = Whereabouts(now - self._seen_at, is_taken)
        is_late = is_queued and now_ms - view.merging_ms > self._config.aggregation_lease_s * 1000
        if not view.is_central and (is_late or self._found.is_lost(self._config)):
            workers = self._jobs.workers()
            self._found = replace(self._found, workers=workers, absence="" if workers else self._jobs.absence())
        return self._found

    def _follow(self, view: EvaluationView) -> None:
        """Begin to follow an attempt, whose job counts as seen: a coordinator before may have just put it there."""
        self._attempt = view.round, view.number, view.attempt
        self._seen_at = self._looked_at = time.monotonic()
        self._found = Whereabouts()


def give_up(
    runs: RunStore, token: str, view: EvaluationView, reason: str, *, by: str = "", is_skipped: bool = False
) -> bool:
    """End an evaluation without a result; False where it is over by now: a worker has just closed it."""
    try:
        runs.give_up_evaluation(token, view, reason, by=by, is_skipped=is_skipped)
    except IllegalMove:
        return False
    return True


def give_up_open(
    runs: RunStore,
    token: str,
    kind: EvaluationKind,
    why: Callable[[EvaluationView], str],
    *,
    by: str = "",
    read: Callable[[int, int], EvaluationView | None] | None = None,
) -> None:
    """End all evaluations of a kind that are not over: their results are not needed any more.

    `read` returns one of them as it is by now, and may wait for its result.
    """
    for round_, number in runs.evaluating():
        if EvaluationKind.of(number) is kind:
            view = (read or runs.read_evaluation)(round_, number)
            if view is not None and not view.is_over:
                give_up(runs, token, view, why(view), by=by, is_skipped=True)


def cut_off_open(runs: RunStore, token: str) -> None:
    """End the coordinator's own evaluations of a run that has ended, where no coordinator is left to do that.

    `token` is that of the coordinator's lease.
    """
    for kind in (EvaluationKind.SITES, EvaluationKind.CENTRAL):
        give_up_open(runs, token, kind, lambda _: ENDED_BEFORE)
