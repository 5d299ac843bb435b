"""Evaluations that somebody asks for: of models of the run, or of some that never came from it.

The one who asks drives it, beside the coordinator of a run that goes on, or without one once the run has ended. It has
a lease of its own, so that the run's coordinator neither opens nor ends it, and only one is asked for at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from flavor.bus.connection import connect
from flavor.bus.jobs import JobQueue
from flavor.bus.lease import Lease
from flavor.bus.runs import RunStore
from flavor.bus.subscription import Subscription
from flavor.config import RunConfig
from flavor.coordinator.asking import give_up_asked
from flavor.coordinator.evaluation_job import EvaluationJob
from flavor.coordinator.members import Members
from flavor.coordinator.old_evaluations import KEPT_ASKED, forget_asked
from flavor.errors import IllegalMove, InvalidSetting, LeaseLost, RunError, RunNotFound, StoreError
from flavor.policy.advice import some
from flavor.policy.decision import Action
from flavor.policy.evaluating import evaluation_step, without_evaluator
from flavor.policy.standing import Client, client_of, is_genuine, is_quarantined
from flavor.records.evaluation import EvaluationView
from flavor.records.model import GlobalModel
from flavor.records.states import EvaluationState
from flavor.records.subject import Subject
from flavor.store.protocol import ObjectStore
from flavor.view.event import Notice
from flavor.view.observer import Observer

OWN_OF_NOW = (
    "; the shared tensors alone are of that model: each site judges them with its own ones of now, as no site keeps "
    "those of earlier rounds"
)
_LOOK_S = 1.0
_COMING_S = 5.0
"""Sites of a run that has ended announce themselves within this time."""
_MOST_REFUSED = 5
"""Sites that are not admitted, in one line."""


@dataclass(frozen=True)
class Asked:
    """What is to be judged, and by whom."""

    subject: Subject
    """Which model it is. No task names it."""
    model: GlobalModel
    clients: Collection[str] = ()
    """The sites that are to judge it; empty for all that can."""
    timeout_s: float = 3600.0
    crossing: bool = False
    """Whether only those sites judge it that allow each other their updates (`flavor-fl --allow-cross`)."""
    command: str = "flavor evaluate"
    """The command that asks, as the log names it."""

    @property
    def round(self) -> int:
        """The round that has made the model; 0 for one that no round of the run has made."""
        return self.subject.made_by

    @property
    def what(self) -> str:
        """What reasons call the model, which the operator reads."""
        return self.subject.named(self.model.model.digest)


class AskedEvaluation:
    """Drives evaluations to their end. `members` admits sites to a run that has ended; None for one that goes on."""

    def __init__(
        self,
        runs: RunStore,
        config: RunConfig,
        *,
        url: str,
        store: ObjectStore,
        lease: Lease,
        jobs: JobQueue,
        observer: Observer,
        members: Members | None = None,
        admitting: str | None = None,
    ) -> None:
        """Use this lease, and these aggregators. `admitting` is the token by which `members` admits sites."""
        self._runs, self._config, self._url, self._store, self._lease = runs, config, url, store, lease
        self._jobs, self._observer, self._members, self._admitting = jobs, observer, members, admitting
        self._told = ""
        self._followed: dict[tuple[int, int], EvaluationJob] = {}
        self._coming_s = 0.0 if members is None else _COMING_S

    def carry_out(self, asked: Asked) -> EvaluationView:
        """Have one model judged, and return the evaluation once it has a result.

        Raises as `carry_out_all`, and `RunError` where the evaluation is given up.
        """
        (view,) = self.carry_out_all([asked])
        if view.state is not EvaluationState.CLOSED:
            what = f"evaluation of {asked.what}"
            raise RunError(f"the {what} has no result: {view.reason.removeprefix(f'{what}: ')}")
        return view

    def carry_out_all(
        self, asked: Sequence[Asked], *, ended: Callable[[int, EvaluationView], None] = lambda number, view: None
    ) -> list[EvaluationView]:
        """Have models judged by the same sites, in this order, and return the evaluations once all are over.

        The first of `asked` says which sites judge. Each model has its `timeout_s` after those before it. `ended` is
        called with the place in `asked` of each evaluation that is over. Raises `RunError` where no site can judge. An
        interruption, or an error of `ended`, gives up what is not over, and the sites are told.
        """
        self._forget_old()
        keys = self._runs.keys
        subscription = Subscription(
            connect(self._url, client_name=f"flavor-evaluate:{self._runs.run}"),
            self._url,
            channels=[keys.state],
            patterns=[*keys.client_patterns, keys.rounds_pattern],
        )
        subscription.open()
        views: list[EvaluationView] = []
        try:
            self._runs.redis.publish(keys.state, "serving")  # every edge answers by announcing itself
            judges, skipped = self._judges(asked[0], subscription)
            waits_s = 0.0
            for each in asked:
                waits_s += each.timeout_s
                views.append(self._opened(each, judges, skipped, timeout_s=waits_s))
            self._follow(asked, views, subscription, ended)
            return views
        except (IllegalMove, LeaseLost) as error:
            if self._runs.find() is not None:
                raise
            raise self._removed() from error
        except BaseException:
            with contextlib.suppress(Exception):  # the next one gives it up
                give_up_asked(self._runs, self._lease.token, "who asked for it has stopped")
            raise
        finally:
            subscription.close()

    def _forget_old(self, but: Collection[EvaluationView] = ()) -> None:
        """Remove the hashes of old evaluations that somebody asked for; `but` are those that are followed."""
        with contextlib.suppress(StoreError, OSError):  # the next one removes them
            forget_asked(self._runs, self._store, but={(view.round, view.number) for view in but})

    def _judges(self, asked: Asked, subscription: Subscription) -> tuple[list[str], list[str]]:
        """Return the sites that judge, and those without an evaluator; the first sites may be a moment late."""
        while True:
            clients = self._clients()
            judges = sorted(
                name
                for name, client in clients.items()
                if client.may_evaluate and (client.allows_cross or not asked.crossing)
            )
            missing = sorted(set(asked.clients) - set(judges))
            if judges and not missing and (asked.clients or self._coming_s <= 0):
                expected = [name for name in judges if not asked.clients or name in asked.clients]
                return expected, without_evaluator(clients)
            if self._coming_s <= 0:
                raise self._no_judges(asked, clients, missing)
            subscription.wait(_LOOK_S)
            self._coming_s -= _LOOK_S

    def _opened(self, asked: Asked, judges: list[str], skipped: list[str], *, timeout_s: float) -> EvaluationView:
        number = self._runs.next_number(asked.round)
        verb = "judges" if len(judges) == 1 else "judge"
        reason = f"{some(judges)} {verb} {asked.what}, because `{asked.command}` asks for it{self._own_of_now(asked)}"
        self._runs.open_evaluation(
            self._lease.token,
            asked.round,
            number,
            expected=judges,
            skipped=skipped,
            timeout_s=timeout_s,
            reason=reason,
            model=asked.model,
            subject=asked.subject,
            by=self._runs.keys.evaluator,
        )
        self._tell(reason)
        view = self._runs.read_evaluation(asked.round, number)
        if view is None:
            raise RunError(f"run {self._runs.run!r}: the evaluation is gone from Redis")
        return view

    def _own_of_now(self, asked: Asked) -> str:
        """Say what sites judge of an earlier model in a run that shares a part of it; '' for the newest one."""
        if not self._config.parts or asked.round == self._runs.closed(self._runs.read())[0]:
            return ""
        return OWN_OF_NOW

    def _no_judges(self, asked: Asked, clients: Mapping[str, Client], missing: list[str]) -> RunError | InvalidSetting:
        if asked.clients and missing:
            known = sorted(name for name, client in clients.items() if client.may_evaluate)
            return InvalidSetting(
                f"--clients: {some(missing)} cannot judge a model now"
                + (f"; those that can: {some(known)}" if known else "")
            )
        there = without_evaluator(clients)
        lack = f"; without one: {some(there)}" if there else ""
        if asked.crossing:
            return RunError(
                f"run {self._runs.run!r} has no site now that has an evaluator and judges what others have trained"
                f"{lack}: start `flavor-fl -e` or `flavor-fv` with --allow-cross at a site"
            )
        if self._members is not None and (refused := self._members.not_admitted):
            said = "; ".join(f"{name} is not admitted: {why}" for name, why in sorted(refused.items())[:_MOST_REFUSED])
            return RunError(f"run {self._runs.run!r} has no site with an evaluator now{lack}; {said}")
        return RunError(
            f"run {self._runs.run!r} has no site with an evaluator now{lack}: start `flavor-fl -e` or `flavor-fv` at a "
            "site"
        )

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

    def _follow(
        self,
        asked: Sequence[Asked],
        views: list[EvaluationView],
        subscription: Subscription,
        ended: Callable[[int, EvaluationView], None],
    ) -> None:
        """Wait for the results and have them merged, until all evaluations are over; `views` is brought up to date."""
        open_, told = list(range(len(views))), 0
        while open_:
            clients, waits = self._clients(), list[str]()
            for place in open_.copy():
                while not views[place].is_over and not (reason := self._step(asked[place], views[place], clients)):
                    views[place] = self._read(asked[place], views[place])
                if views[place].is_over:
                    open_.remove(place)
                    self._followed.pop((views[place].round, views[place].number), None)
                    ended(place, views[place])
                    told += 1
                    if told % KEPT_ASKED == 0:
                        self._forget_old(but=[views[each] for each in open_])
                else:
                    waits.append(reason)
            if waits:
                self._tell(waits[0])
                subscription.wait(_LOOK_S)
                for place in open_:
                    views[place] = self._read(asked[place], views[place])

    def _read(self, asked: Asked, view: EvaluationView) -> EvaluationView:
        """Return the evaluation as it is now. Raises `RunError` where Redis no longer has it.

        A server that came back with older data may have another one of this number, which a later command has opened.
        """
        found = self._runs.read_evaluation(view.round, view.number)
        if found is not None and found.opened_ms == view.opened_ms:
            return found
        if self._runs.find() is None:
            raise self._removed()
        raise RunError(
            f"run {self._runs.run!r}: Redis at {self._runs.where} no longer has the evaluation of {asked.what}: the "
            "server came back with older data. Ask again"
        )

    def _removed(self) -> RunNotFound:
        return RunNotFound(
            f"run {self._runs.run!r} is no longer on Redis at {self._runs.where}: it was removed (`flavor rm`), or the "
            "server has lost it"
        )

    def _step(self, asked: Asked, view: EvaluationView, clients: Mapping[str, Client]) -> str:
        """Take the next step of an evaluation; return for what it waits, and '' where it has moved."""
        handed_in = self._runs.results(view.round, view.number, view.expected)
        now_ms = self._runs.now_ms()
        job = self._followed.setdefault((view.round, view.number), EvaluationJob(self._runs, self._jobs, self._config))
        decision = evaluation_step(
            view,
            dict.fromkeys(handed_in, True),
            clients,
            self._config,
            closed=view.round,
            now_ms=now_ms,
            job=job.look(view, now_ms) if view.state is EvaluationState.MERGING else None,
            what=f"evaluation of {asked.what}",
        )
        assert decision is not None, "it is not over"
        if decision.waits:
            return decision.reason
        token, by = self._lease.token, self._runs.keys.evaluator
        try:
            if decision.action is Action.MERGE:
                job.begin(token, view, by=by)
            else:
                self._runs.give_up_evaluation(token, view, decision.reason, by=by)
        except (IllegalMove, LeaseLost) as error:  # a worker has just closed it, unless it is gone
            if not self._read(asked, view).is_over and isinstance(error, LeaseLost):
                raise
        return ""

    def _tell(self, line: str) -> None:
        if line != self._told:
            self._told = line
            self._observer.hear(Notice(line))
