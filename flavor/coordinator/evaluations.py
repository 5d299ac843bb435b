"""The evaluation between two rounds: opened for the sites that have an evaluator, merged by an aggregator, given up.

Its results may be merged beside the next round. It is over before the model of that round is judged, so that the models
of a run are judged in the order of their rounds. Nothing that goes wrong in an evaluation ends the run or a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

from flavor.bus.jobs import JobQueue
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.coordinator_lease import CoordinatorLease
from flavor.coordinator.current_run import CurrentRun
from flavor.coordinator.evaluation_job import ENDED_BEFORE, EvaluationJob, give_up, give_up_open
from flavor.coordinator.members import Members
from flavor.coordinator.summaries import Summaries
from flavor.coordinator.told_evaluation import told_as_closed
from flavor.evaluation_settings import OFF, mode_of, rules_of
from flavor.failpoints import reach
from flavor.policy.buffered import carried
from flavor.policy.decision import Action, Decision
from flavor.policy.evaluating import (
    awaits_sites,
    evaluation_step,
    is_due,
    is_merged_beside,
    left_out,
    may_open,
    newly_not_counted,
    without_evaluator,
)
from flavor.policy.selection import not_counted, stops
from flavor.records.evaluation import AUTOMATIC, EvaluationKind, EvaluationSummary, EvaluationView
from flavor.records.own_evaluations import own_evaluations
from flavor.records.states import EvaluationState
from flavor.view.evaluation_events import EvaluationFailed, EvaluationOpened, EvaluationSkipped
from flavor.view.event import Notice
from flavor.view.observer import Observer

_MERGING_S = 15.0
"""How long the end of a run waits for results that are being merged, which takes a moment."""
_LOOK_S = 1.0
"""An aggregator that has died publishes nothing: so often it is asked for where nothing is heard."""


class SiteEvaluations:
    """The evaluation of the newest closed round's model, or the one before as long as that is not over, as read."""

    def __init__(
        self,
        runs: RunStore,
        config: RunConfig,
        current: CurrentRun,
        *,
        members: Members,
        jobs: JobQueue,
        lease: CoordinatorLease,
        observer: Observer,
    ) -> None:
        self._runs, self._config, self._current = runs, config, current
        self._members, self._jobs, self._lease, self._observer = members, jobs, lease, observer
        self._summaries, self._job = Summaries(runs), EvaluationJob(runs, jobs, config)
        self._round = 0  # the round whose evaluation was read
        self._view: EvaluationView | None = None
        self._handed_in: dict[str, bool] = {}
        self._unfinished: set[int] = set()  # rounds whose evaluations are not known to be over
        self._busy: Collection[str] = ()  # the sites that train on, as far as that keeps them from judging the model
        self._told: Mapping[str, str] = {}  # why a rule does not count, as it was told last
        self._goal: str | None = None  # why the goal is reached, '' if it is not; None before that was worked out

    def look(self) -> None:
        """Go on with an evaluation whose results are merged beside the round that is open."""
        round_ = self._current.round
        if round_ is None or round_.is_closed:  # then `next` does it
            return
        self._look_back(round_.number)
        decision = self._earlier(round_.number)
        if decision is not None and not decision.waits:
            self.act(decision)

    def next(self, closed: int, then: Decision) -> Decision | None:
        """Return what to do about the evaluation before `then` is done, which follows the round; None for nothing."""
        if then.action is Action.FAIL:
            return None
        self._look_back(closed)
        if (earlier := self._earlier(closed)) is not None:
            return earlier
        if closed not in self._unfinished and not is_due(self._config, closed, ends=then.action is Action.FINISH):
            return None
        if self._round != closed:
            self._read(closed)
        ends = then.action is Action.FINISH
        decision = self._step(ends=ends)
        if decision is not None and ends and self._current.view.resumed_round == closed:
            decision = awaits_sites(decision, self._members.clients, closed)
        if decision is None:
            self._unfinished.discard(closed)
        if decision is not None and decision.action is Action.EVALUATE and not may_open(then):
            return None
        if decision is not None and decision.action is Action.WAIT and is_merged_beside(self._view, self._config, then):
            return None
        return decision

    def goal(self, closed: int) -> str:
        """Return why the run has reached its goal with the model of this round; '' where it has not."""
        select, when, after = rules_of(self._config, central=False)
        if not (when or after) or self._round != closed or self._view is None:
            return ""
        if self._view.state is not EvaluationState.CLOSED:
            return ""
        if self._goal is None:
            own = [each for each in own_evaluations(self._summaries.read()) if each.round <= closed]
            self._goal = stops(own, when=when, after=after, select=select)
            if not self._goal and own:  # a coordinator that takes over has not heard of its result
                self._tell_not_counted(own[-1])
        return self._goal

    def act(self, decision: Decision) -> None:
        """Do what `next` has decided."""
        if decision.action is Action.EVALUATE:
            self._open(decision)
        elif decision.action is Action.MERGE:
            self._merge()
        else:
            self._give_up(decision.reason)

    def give_up_open(self, hear: Callable[[float], object]) -> None:
        """End what is open once the run has ended: its sites end with it. Results that are handed in are merged yet.

        `hear` waits so many seconds for a publication of the run, as `Subscription.wait`.
        """
        token = self._lease.token
        read = partial(self._merged, hear)
        give_up_open(self._runs, token, EvaluationKind.SITES, lambda _: ENDED_BEFORE, read=read)

    def _merged(self, hear: Callable[[float], object], round_: int, number: int) -> EvaluationView | None:
        """Return an evaluation; one whose results are being merged once that is done, if it takes no longer than usual.

        Nothing is waited for where no aggregator is there, and of an attempt that has failed no other one begins.
        """
        until = time.monotonic() + min(self._config.aggregation_lease_s, _MERGING_S)
        while True:
            view = self._runs.read_evaluation(round_, number)
            is_merging = view is not None and view.state is EvaluationState.MERGING and not view.error
            left_s = until - time.monotonic()
            if not is_merging or left_s <= 0 or not self._jobs.workers():
                break
            hear(min(left_s, _LOOK_S))
        if view is not None and view.state is EvaluationState.CLOSED:
            self._tell_closed(view)
        return view

    @property
    def _is_merging(self) -> bool:
        return self._view is not None and self._view.state is EvaluationState.MERGING

    def _look_back(self, round_: int) -> None:
        """Find the evaluations that are not over, where a coordinator before may have left some.

        What is open is driven to its end, also where other settings would not have it opened now.
        """
        if not self._current.is_evaluation_unknown:
            return
        self._unfinished = {each for each, number in self._runs.evaluating() if number == AUTOMATIC and each <= round_}
        if self._round:
            self._read(self._round)
        self._current.is_evaluation_unknown = False

    def _earlier(self, round_: int) -> Decision | None:
        """Return what to do about the oldest evaluation of an earlier round that is not over; None where all are."""
        for earlier in sorted(each for each in self._unfinished if each < round_):
            if self._round != earlier:
                self._read(earlier)
            if self._view is not None and (decision := self._step()) is not None:
                return decision
            self._unfinished.discard(earlier)
        return None

    def _step(self, *, ends: bool = False) -> Decision | None:
        """Return what to do about the evaluation; None once it is over. No site is waited for with --evaluate off.

        `ends` says that no round follows.
        """
        decision = self._decided(ends)
        is_awaited = self._view is not None and self._view.state is EvaluationState.OPEN
        if decision is None or not (is_awaited and decision.waits and mode_of(self._config) == OFF):
            return decision
        self._give_up("no model is judged any more (--evaluate off)", is_skipped=True)
        return None

    def _decided(self, ends: bool) -> Decision | None:
        is_open = self._view is not None and self._view.state is EvaluationState.OPEN  # moved by this coordinator alone
        if self._current.has_result_news if is_open else self._current.has_evaluation_news:
            self._read(self._round)
        now_ms = self._current.now_ms()
        self._busy = self._train_on() if self._view is None and not ends else ()
        return evaluation_step(
            self._view,
            self._handed_in,
            self._members.clients,
            self._config,
            closed=self._round,
            now_ms=now_ms,
            judged=self._judged_before() if self._view is None else (),
            busy=self._busy,
            job=self._job.look(self._view, now_ms) if self._view is not None and self._is_merging else None,
        )

    def _train_on(self) -> Collection[str]:
        """Return the sites that train on in an asynchronous run. They judge the last model after their training."""
        round_, mode = self._current.round, self._config.buffered
        return carried(round_.view, self._members.clients, mode)[0] if round_ is not None and mode is not None else ()

    def _judged_before(self) -> Collection[str]:
        """Return the sites with a result of the newest evaluation before; where all are back, who is not ready yet.

        Where there was none, as with `--evaluate final`, those with an evaluator that have not come back, or have and
        are not ready. A run that was rebuilt does not know those members that only judge.
        """
        members, run = self._members, self._current.view
        is_resumed = run.resumed_round == self._round
        came = [name for name, client in members.clients.items() if client.judges_soon and is_resumed]
        are_back = all(name in members.clients and not members.clients[name].ended_with_run for name in members.names)
        if are_back and not run.recovered_ms:
            return came
        for before in reversed(own_evaluations(self._summaries.read())):
            view = self._runs.read_evaluation(before.round, AUTOMATIC)
            return view.accepted if view is not None else ()
        away = [name for name, client in members.clients.items() if client.ended_with_run and client.evaluates]
        return [*away, *came]

    def _read(self, closed: int) -> None:
        before = self._view if self._round == closed else None
        self._current.has_evaluation_news = self._current.has_result_news = False
        self._goal = None
        is_moved_here = before is not None and before.state is EvaluationState.OPEN  # by this coordinator alone
        if not is_moved_here or self._current.is_evaluation_unknown:
            self._round, self._view = closed, self._runs.read_evaluation(closed, AUTOMATIC)
        view = self._view
        self._current.is_evaluation_unknown = False
        if view is None:
            self._handed_in = {}
        elif view.state is EvaluationState.OPEN:
            self._handed_in = dict.fromkeys(self._runs.results(closed, AUTOMATIC, view.expected), True)
        elif view.state is EvaluationState.CLOSED and before is not None and not before.is_over:
            self._tell_closed(view)

    def _tell_closed(self, view: EvaluationView) -> None:
        """Tell the result of an evaluation, and then why a rule does not count that would end the run by it."""
        when = rules_of(self._config, central=False).when
        own = own_evaluations(self._summaries.read()) if when else []
        found = next((each for each in reversed(own) if each.round == view.round), None)
        apart = not_counted(when, found) if found is not None else ()
        self._observer.hear(told_as_closed(self._runs, view, apart=apart))
        if found is not None:
            self._tell_not_counted(found)

    def _tell_not_counted(self, summary: EvaluationSummary) -> None:
        """Tell why a rule does not count, once as long as it is for the same reason."""
        when = rules_of(self._config, central=False).when
        lines, self._told = newly_not_counted(when, summary, self._told)
        for line in lines:
            self._observer.hear(Notice(line))

    def _open(self, decision: Decision) -> None:
        reach("coordinator.evaluating")
        opened_ms = self._runs.open_evaluation(
            self._lease.token,
            self._round,
            AUTOMATIC,
            expected=decision.names,
            skipped=without_evaluator(self._members.clients),
            training=left_out(self._members.clients, self._busy),
            timeout_s=self._config.evaluation_timeout_s,
            reason=decision.reason,
        )
        reach("coordinator.evaluation_opened")
        self._current.set_clock(opened_ms)
        self._view, self._handed_in = self._runs.read_evaluation(self._round, AUTOMATIC), {}
        self._unfinished.add(self._round)
        self._observer.hear(EvaluationOpened(decision.reason, self._round, AUTOMATIC))

    def _merge(self) -> None:
        assert self._view is not None
        self._current.has_evaluation_news = False  # of what this coordinator has done itself
        self._view = self._job.begin(self._lease.token, self._view)

    def _give_up(self, reason: str, *, is_skipped: bool = False) -> None:
        assert self._view is not None
        if not give_up(self._runs, self._lease.token, self._view, reason, is_skipped=is_skipped):
            self._current.has_evaluation_news = True  # it has its result
            return
        self._view = replace(self._view, state=EvaluationState.FAILED, reason=reason)
        kind = EvaluationSkipped if is_skipped else EvaluationFailed
        self._observer.hear(kind(reason, self._round, AUTOMATIC))
