"""Has the global models judged on the operator's own data, by workers that can (`flavor-agg -e`), beside the rounds.

Without such a worker nothing is done, said or waited for, but for the last model of a run that has had one, or that has
a rule on these metrics. Nothing that goes wrong here ends the run or a round.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from flavor.bus.jobs import JobQueue
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.coordinator_lease import CoordinatorLease
from flavor.coordinator.current_run import CurrentRun
from flavor.coordinator.evaluation_job import ENDED_BEFORE, EvaluationJob, give_up, give_up_open
from flavor.coordinator.summaries import Summaries
from flavor.coordinator.told_evaluation import told_as_closed
from flavor.evaluation_settings import rules_of
from flavor.failpoints import reach
from flavor.policy.central import central_step, skipped, where_of
from flavor.policy.decision import Action, Decision
from flavor.policy.evaluating import is_due
from flavor.policy.selection import reached
from flavor.records.evaluation import CENTRAL, EvaluationKind, EvaluationSummary, EvaluationView
from flavor.records.own_evaluations import own_evaluations
from flavor.records.states import EvaluationState
from flavor.view.evaluation_events import EvaluationFailed, EvaluationOpened, EvaluationSkipped
from flavor.view.event import Notice
from flavor.view.observer import Observer

_LOOK_S = 1.0
"""Seconds between two looks at where the jobs are."""


@dataclass
class _Pending:
    """An evaluation that is not over, as this coordinator has read it."""

    view: EvaluationView
    job: EvaluationJob
    lacking_since: float | None = None
    """Since when no worker could judge it, at the end of the run; None where one can."""


class CentralEvaluations:
    """The evaluations on the operator's own data that are not over, by the round that has made the model."""

    def __init__(
        self,
        runs: RunStore,
        config: RunConfig,
        current: CurrentRun,
        *,
        jobs: JobQueue,
        lease: CoordinatorLease,
        observer: Observer,
    ) -> None:
        self._runs, self._config, self._current = runs, config, current
        self._jobs, self._lease, self._observer = jobs, lease, observer
        self._rules = rules_of(config, central=True)
        self._summaries = Summaries(runs)
        self._pending: dict[int, _Pending] = {}
        self._asked = self._ended = 0  # the newest rounds of which it is settled whether the model is judged
        self._looked_at = 0.0
        self._has_results = True  # whether there may be results that the goal was not worked out for
        self._judged: int | None = None  # how many results it was worked out for
        self._first = 0  # the first of these that may have reached it
        self._goal = ""
        self._told = False  # whether it was told that no worker can judge models

    def begin(self, closed: int, *, ends: bool) -> None:
        """Have the model of the newest closed round judged, if that is due and a worker can."""
        if closed <= (self._ended if ends else self._asked):
            return
        self._asked = closed
        if ends:
            self._ended = closed
        if not is_due(self._config, closed, ends=ends):
            return
        if not self._jobs.judges() and not (ends and self._is_expected()):
            self._tell_lacking()
        elif self._runs.read_evaluation(closed, CENTRAL) is None:
            self._open(closed)

    def look(self) -> None:
        """Take up what has changed, and have done again what a dead worker has left undone."""
        if self._current.has_central_news:
            self._read()
        elif not self._pending or time.monotonic() < self._looked_at + _LOOK_S:
            return
        self._looked_at = time.monotonic()
        for each in list(self._pending.values()):
            self._act(each, ends=False)

    def last(self, closed: int) -> Decision | None:
        """Return the decision to wait for what is not over before the run ends; None where nothing is."""
        self.begin(closed, ends=True)
        waiting = None
        for each in list(self._pending.values()):
            decision = self._act(each, ends=True)
            if each.view.round in self._pending and decision is not None:  # an attempt that begins anew is waited for
                waiting = replace(decision, action=Action.WAIT)
        return waiting

    def goal(self, closed: int) -> str:
        """Return why the run has reached its goal by the results that there are now; '' where it has not."""
        _, when, after = self._rules
        if not (when or after) or not self._has_results:
            return self._goal
        self._has_results = False
        own = [each for each in self._own() if each.round <= closed]
        if not self._goal:  # the last model is judged after it is reached, and the reason says what came of that
            self._first = len(own) if self._judged is None else self._judged + 1
        self._judged = len(own)
        self._goal = reached(own, first=self._first, when=when, after=after, select=self._rules.select)
        return self._goal

    def give_up_open(self) -> None:
        """End what is open once the run has ended."""
        give_up_open(self._runs, self._lease.token, EvaluationKind.CENTRAL, lambda _: ENDED_BEFORE)

    def _is_expected(self) -> bool:
        """Whether a worker that judges models is to come back: a rule needs it, or it has judged models of this run."""
        return bool(self._rules.select or self._rules.when or self._own())

    def _own(self) -> list[EvaluationSummary]:
        return own_evaluations(self._summaries.read(), EvaluationKind.CENTRAL)

    def _tell_lacking(self) -> None:
        if self._told or not (self._rules.select or self._rules.when):
            return
        self._told = True
        named = self._rules.select.name if self._rules.select else self._rules.when[0].name
        self._observer.hear(
            Notice(f"{named!r} is missing: no worker on queue {self._config.queue!r} judges models (flavor-agg -e)")
        )

    def _read(self) -> None:
        """Read which evaluations are not over, and hear of those that are."""
        self._current.has_central_news = False
        known = {round_ for round_, number in self._runs.evaluating() if number == CENTRAL}
        for round_ in sorted(known | self._pending.keys()):
            view, before = self._runs.read_evaluation(round_, CENTRAL), self._pending.get(round_)
            if view is not None and not view.is_over:
                if before is None:
                    self._pending[round_] = self._followed(view)
                else:
                    before.view = view
                continue
            self._pending.pop(round_, None)
            self._has_results = True
            if view is not None and before is not None and view.state is EvaluationState.CLOSED:
                self._observer.hear(told_as_closed(self._runs, view))

    def _followed(self, view: EvaluationView) -> _Pending:
        return _Pending(view, EvaluationJob(self._runs, self._jobs, self._config))

    def _act(self, each: _Pending, *, ends: bool) -> Decision | None:
        """Do what is to be done about an evaluation; returns the decision."""
        now, now_ms = time.monotonic(), self._current.now_ms()
        job = each.job.look(each.view, now_ms)
        if ends:
            is_lacking = not job.is_taken and not self._jobs.judges()
            each.lacking_since = (each.lacking_since or now) if is_lacking else None
        lacking_s = None if each.lacking_since is None else now - each.lacking_since
        decision = central_step(each.view, job, self._config, ends=ends, now_ms=now_ms, lacking_s=lacking_s)
        if decision is not None and decision.action is Action.MERGE:
            each.view = each.job.begin(self._lease.token, each.view)
        elif decision is not None and decision.action is Action.GIVE_UP:
            self._give_up(each, decision.reason)
        return decision

    def _open(self, round_: int) -> None:
        for each in list(self._pending.values()):
            if not each.job.look(each.view, self._current.now_ms(), anew=True).is_taken:
                self._give_up(each, skipped(each.view, round_), is_skipped=True)
        reach("coordinator.judging")
        reason = f"{where_of(round_)} is judged by an aggregator"
        self._runs.open_evaluation(
            self._lease.token,
            round_,
            CENTRAL,
            expected=(),
            skipped=(),
            timeout_s=self._config.evaluation_timeout_s,
            reason=reason,
        )
        reach("coordinator.judging_opened")
        self._observer.hear(EvaluationOpened(reason, round_, CENTRAL))
        view = self._runs.read_evaluation(round_, CENTRAL)
        if view is not None:
            each = self._pending[round_] = self._followed(view)
            each.view = each.job.begin(self._lease.token, view)

    def _give_up(self, each: _Pending, reason: str, *, is_skipped: bool = False) -> None:
        if not give_up(self._runs, self._lease.token, each.view, reason, is_skipped=is_skipped):
            self._read()  # it has its result by now
            return
        del self._pending[each.view.round]
        kind = EvaluationSkipped if is_skipped else EvaluationFailed
        self._observer.hear(kind(reason, each.view.round, CENTRAL))
