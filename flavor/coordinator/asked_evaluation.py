"""An evaluation that somebody asks for: of a model of the run, or of one that never came from it.

The one who asks drives it, beside the coordinator of a run that goes on, or without one once the run has ended. It has
a lease of its own, so that the run's coordinator neither opens nor ends it, and only one is asked for at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from flavor.bus.connection import connect, translated
from flavor.bus.jobs import JobQueue
from flavor.bus.lease import Lease, held
from flavor.bus.runs import RunStore
from flavor.bus.subscription import Subscription
from flavor.config import RunConfig
from flavor.coordinator.members import Members
from flavor.errors import InvalidSetting, RunError
from flavor.policy.advice import some
from flavor.policy.decision import Action
from flavor.policy.evaluating import evaluation_step, without_evaluator
from flavor.policy.standing import Client, client_of, is_genuine, is_quarantined
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationView
from flavor.records.model import GlobalModel
from flavor.records.states import EvaluationState
from flavor.view.event import Notice
from flavor.view.observer import Observer

_LEASE_S = 15.0
"""Lifetime of the lease: for so long a killed command keeps the next one waiting."""
_LOOK_S = 1.0
_COMING_S = 5.0
"""Sites of a run that has ended announce themselves within this time."""


@dataclass(frozen=True)
class Asked:
    """What is to be judged, and by whom."""

    round: int
    """The round that has made the model; 0 for one that no round of the run has made."""
    model: GlobalModel
    owner: str = ""
    """The site whose update the model is; '' for any other model. Sites are not told."""
    clients: Collection[str] = ()
    """The sites that are to judge it; empty for all that can."""
    timeout_s: float = 3600.0


@contextlib.contextmanager
def asking(runs: RunStore, tell: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the right to ask for evaluations of a run. Raises `LeaseHeld` while another process has it."""
    lease = Lease(runs.redis, runs.keys.evaluator, ttl_s=_LEASE_S, what=f"an evaluation of run {runs.run!r}")
    with translated(runs.where):
        lease.acquire(told=tell)
    with held(lease):
        yield lease


class AskedEvaluation:
    """Drives one evaluation to its end. `members` admits sites to a run that has ended; None for one that goes on."""

    def __init__(
        self,
        runs: RunStore,
        config: RunConfig,
        *,
        url: str,
        lease: Lease,
        jobs: JobQueue,
        observer: Observer,
        members: Members | None = None,
        admitting: str | None = None,
    ) -> None:
        """Use this lease, and these aggregators. `admitting` is the token by which `members` admits sites."""
        self._runs, self._config, self._url, self._lease = runs, config, url, lease
        self._jobs, self._observer, self._members, self._admitting = jobs, observer, members, admitting
        self._told = ""

    def carry_out(self, asked: Asked) -> EvaluationView:
        """Have the model judged, and return the evaluation once it has a result.

        Raises `RunError` where no site can judge it, or it is given up. An interruption gives it up, and the sites are
        told.
        """
        self._give_up_abandoned()
        keys = self._runs.keys
        subscription = Subscription(
            connect(self._url, client_name=f"flavor-evaluate:{self._runs.run}"),
            self._url,
            channels=[keys.state],
            patterns=[*keys.client_patterns, keys.rounds_pattern],
        )
        subscription.open()
        view: EvaluationView | None = None
        try:
            self._runs.redis.publish(keys.state, "serving")  # every edge answers by announcing itself
            view = self._opened(asked, subscription)
            return self._followed(view, subscription)
        except BaseException:
            if view is not None:
                with contextlib.suppress(Exception):  # the next one gives it up
                    why = "who asked for it has stopped"
                    self._runs.give_up_evaluation(self._lease.token, view, why, by=keys.evaluator, is_skipped=True)
            raise
        finally:
            subscription.close()

    def _give_up_abandoned(self) -> None:
        """End what a process that died has asked for: only the holder of the lease is here."""
        for round_, number in self._runs.evaluating():
            view = self._runs.read_evaluation(round_, number) if number not in (AUTOMATIC, CENTRAL) else None
            if view is not None and not view.is_over:
                why = "the process that asked for it has ended"
                by = self._runs.keys.evaluator
                self._runs.give_up_evaluation(self._lease.token, view, why, by=by, is_skipped=True)

    def _opened(self, asked: Asked, subscription: Subscription) -> EvaluationView:
        """Open it for the sites that can judge; those of a run that has ended may be a moment late."""
        left_s = 0.0 if self._members is None else _COMING_S
        while True:
            clients = self._clients()
            judges = sorted(name for name, client in clients.items() if client.may_evaluate)
            missing = sorted(set(asked.clients) - set(judges))
            if judges and not missing and (asked.clients or left_s <= 0):
                break
            if left_s <= 0:
                raise self._no_judges(asked, clients, missing)
            subscription.wait(_LOOK_S)
            left_s -= _LOOK_S
        expected = [name for name in judges if not asked.clients or name in asked.clients]
        number = self._next_number(asked.round)
        verb = "judges" if len(expected) == 1 else "judge"
        reason = f"{some(expected)} {verb} {_what(asked.round)}, because somebody asked for it"
        self._runs.open_evaluation(
            self._lease.token,
            asked.round,
            number,
            expected=expected,
            skipped=without_evaluator(clients),
            timeout_s=asked.timeout_s,
            reason=reason,
            model=asked.model,
            owner=asked.owner,
            by=self._runs.keys.evaluator,
        )
        self._tell(reason)
        view = self._runs.read_evaluation(asked.round, number)
        if view is None:
            raise RunError(f"run {self._runs.run!r}: the evaluation is gone from Redis")
        return view

    def _no_judges(self, asked: Asked, clients: Mapping[str, Client], missing: list[str]) -> RunError | InvalidSetting:
        if asked.clients and missing:
            known = sorted(name for name, client in clients.items() if client.may_evaluate)
            return InvalidSetting(
                f"--clients: {some(missing)} cannot judge a model now"
                + (f"; those that can: {some(known)}" if known else "")
            )
        there = without_evaluator(clients)
        lack = f"; without one: {some(there)}" if there else ""
        return RunError(
            f"run {self._runs.run!r} has no site with an evaluator now{lack}: start `flavor-fl -e` or `flavor-fv` at a "
            "site"
        )

    def _next_number(self, round_: int) -> int:
        """Return the number of the next evaluation of this round's model; 0 is the coordinator's own."""
        number = 1
        while self._runs.read_evaluation(round_, number) is not None:
            number += 1
        return number

    def _clients(self) -> dict[str, Client]:
        if self._members is not None:
            self._members.read_all(token=self._admitting, lenient=lambda: False)
            return self._members.clients
        refusals, lease_s = self._runs.refusals(), self._config.heartbeat_timeout_s
        found = {}
        for name, (status, left_ms) in self._runs.clients(self._runs.members()).items():
            if (state := status.known_state) is not None:
                shut = is_quarantined(refusals.get(name, 0), self._config.quarantine_after)
                found[name] = client_of(status, state, is_there=is_genuine(left_ms, lease_s), is_quarantined=shut)
        return found

    def _followed(self, view: EvaluationView, subscription: Subscription) -> EvaluationView:
        """Wait for the results, and have them merged."""
        while True:
            handed_in = self._runs.results(view.round, view.number, view.expected)
            now_ms = self._runs.now_ms()
            is_overdue = (
                view.state is EvaluationState.MERGING
                and now_ms - view.merging_ms > self._config.aggregation_lease_s * 1000
            )
            workers = self._jobs.workers() if is_overdue else None
            decision = evaluation_step(
                view,
                dict.fromkeys(handed_in, True),
                self._clients(),
                self._config,
                closed=view.round,
                now_ms=now_ms,
                workers=workers,
                absence=self._jobs.absence() if workers == 0 else "",
                what=f"evaluation of {_what(view.round)}",
            )
            if decision is None:
                if view.state is EvaluationState.CLOSED:
                    return view
                raise RunError(f"the evaluation of {_what(view.round)} has no result: {view.reason}")
            if decision.waits:
                self._tell(decision.reason)
                subscription.wait(_LOOK_S)
            elif decision.action is Action.MERGE:
                view = self._merging(view)
            else:
                self._runs.give_up_evaluation(self._lease.token, view, decision.reason, by=self._runs.keys.evaluator)
            view = self._runs.read_evaluation(view.round, view.number) or view

    def _merging(self, view: EvaluationView) -> EvaluationView:
        attempt = view.attempt + 1
        by = self._runs.keys.evaluator
        merging_ms = self._runs.begin_merge(self._lease.token, view.round, view.number, attempt=attempt, by=by)
        self._jobs.merge(self._runs.run, view.round, view.number, attempt=attempt)
        return replace(view, state=EvaluationState.MERGING, attempt=attempt, merging_ms=merging_ms, error="")

    def _tell(self, line: str) -> None:
        if line != self._told:
            self._told = line
            self._observer.hear(Notice(line))


def _what(round_: int) -> str:
    return f"the model of round {round_}" if round_ else "a model that no round has made"
