"""The stage between two rounds: settle the closed round, have its model judged, then open the next, wait or end."""

from __future__ import annotations

from collections.abc import Sequence

from flavor.coordinator.context import RunContext
from flavor.coordinator.round_as_read import CurrentRound
from flavor.coordinator.set_for import not_joined
from flavor.failpoints import reach
from flavor.policy.buffered import carried, given_up, outdated_after
from flavor.policy.closers import EVERY, are_few, most_of, told_most, why_outpaced
from flavor.policy.deadline import missed_after, told_slow
from flavor.policy.decision import Action, Decision
from flavor.policy.mode import Buffered
from flavor.policy.next_step import next_step
from flavor.policy.told_tasks import MOST_OUTDATED, too_old, why_outdated
from flavor.records.round import RoundView
from flavor.view.client_events import ClientOutpaced, ClientTooSlow
from flavor.view.event import Notice
from flavor.view.round_events import RoundClosed, RoundNote, RoundOpened


class BetweenRounds:
    """The `Stage` in which the run has no round yet, or its newest round is closed."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._quickest = ""  # the site that the operator was last warned of because most updates are its own

    def step(self, round_: CurrentRound | None) -> bool:
        """See `Stage`."""
        context = self._context
        if round_:
            self._settle(round_)
        known = context.known(round_.view if round_ else None, {})
        decision = next_step(known)
        evaluation = context.evaluations.next(known.closed, decision)
        if evaluation is not None and evaluation.action is Action.EVALUATE:  # first, as sites work on it
            context.evaluations.act(evaluation)
            return True
        if decision.action is not Action.FAIL:
            context.central.begin(known.closed, ends=decision.action is Action.FINISH)
        if evaluation is None and decision.action is not Action.FAIL:
            if goal := context.evaluations.goal(known.closed) or context.central.goal(known.closed):
                decision = Decision(Action.FINISH, goal, is_met=True)
                evaluation = context.evaluations.next(known.closed, decision)  # this model is the last one by now
                if evaluation is not None and evaluation.action is Action.EVALUATE:
                    context.evaluations.act(evaluation)
                    return True
            if evaluation is None and decision.action is Action.FINISH:
                evaluation = context.central.last(known.closed)
        if (evaluation or decision).waits:
            context.waits.note(evaluation or decision)
            return False
        if evaluation is not None:
            context.evaluations.act(evaluation)
            return True
        if decision.action is Action.OPEN:
            self._open(known.closed + 1, decision.names, decision.reason)
        else:
            context.end(decision)
        return True

    def _settle(self, round_: CurrentRound) -> None:
        """See that the closed round has its manifest, and report its end and what the aggregator noted about it."""
        self._context.history.settle(round_.number, round_.view.manifest)
        if not round_.is_reported:
            round_.is_reported = True
            self._context.observer.hear(RoundClosed(round_.view.reason, round_.number, is_routine=True))
        for note in round_.view.notes[round_.notes :]:
            self._context.observer.hear(RoundNote(note, round_.number))
        round_.notes = max(round_.notes, len(round_.view.notes))
        self._context.client_log.end_round(round_.number)

    def _open(self, number: int, expected: tuple[str, ...], reason: str) -> None:
        context, config = self._context, self._context.config
        mode, before = config.buffered, context.current.round
        since, old = self._carried()
        outdated = outdated_after(before.view, old) if before is not None else {}
        timeout_s, why = context.deadlines.timeout(number)
        missed, told = self._missed()
        expected, reason = tuple(sorted({*expected, *(since or ())})), reason + too_old(number, old, mode)
        reason = "; ".join(filter(None, (reason, why, told)))
        reach("coordinator.opening")
        opened_ms = context.runs.open_round(
            context.lease.token,
            number,
            expected=expected,
            timeout_s=timeout_s,
            reason=reason,
            since=since,
            missed=missed,
            outdated=outdated,
            tells_deadline=mode is None or mode.buffer is None,
        )
        reach("coordinator.opened")
        context.late.refuse_unheard()
        context.current.set_clock(opened_ms)
        deadline_ms = opened_ms + int(timeout_s * 1000)
        context.current.opened(
            RoundView.opened(
                number,
                expected,
                opened_ms=opened_ms,
                deadline_ms=deadline_ms,
                since=since,
                missed=missed,
                outdated=outdated,
            )
        )
        if since:
            context.current.read_updates(since)  # handed in while no round was open
        if since is not None and before is not None and context.current.round is not None:
            context.late.expect_of(given_up(before.view, context.current.round.view))
        context.observer.hear(RoundOpened(reason, number, rounds=config.rounds))
        if mode is not None:
            self._tell_pace(mode, [name for name in old if outdated[name] == MOST_OUTDATED], number - 1, len(expected))
        context.pruning.after(number - 1, context.members.names)
        if number == 1:
            for line in not_joined(config, context.members.names, so_far=True):
                context.observer.hear(Notice(line))

    def _tell_pace(self, mode: Buffered, behind: Sequence[str], closed: int, sites: int) -> None:
        """Tell of the clients `behind`, whose tasks are too old again, and of one that has most of the updates."""
        context = self._context
        if behind:
            rounds = self._last(closed, mode.max_staleness + 1)
            is_outpaced = mode.buffer is not None and are_few(rounds, sites)
            for name in behind:
                event = (
                    ClientOutpaced(why_outpaced(mode, rounds, sites), name)
                    if is_outpaced
                    else ClientTooSlow(why_outdated(mode), name)
                )
                context.client_log.note_once(event)
        if mode.buffer is None or not closed or closed % EVERY:
            return
        rounds = self._last(closed, EVERY)
        quickest, before = most_of(rounds, sites), self._quickest
        self._quickest = quickest
        if quickest and quickest != before:
            told = told_most(mode, rounds, quickest)
            context.runs.log(RoundNote.name, round_=closed, reason=told)
            context.observer.hear(RoundNote(told, closed))

    def _last(self, closed: int, number: int) -> list[RoundView]:
        """Return the last rounds that are closed, as many of them as Redis still has."""
        rounds = range(max(1, closed - number + 1), closed + 1)
        return [view for each in rounds if (view := self._context.runs.read_round(each)) is not None]

    def _missed(self) -> tuple[dict[str, int], str]:
        """Return how many rounds in a row each client has missed the deadline of, and in words who is slow by now.

        Counted where deadlines are learned, and where slow sites run asynchronously.
        """
        context, mode, round_ = self._context, self._context.config.buffered, self._context.current.round
        if round_ is None or not context.deadlines.are_counted:
            return {}, ""
        before = round_.view.missed
        missed = missed_after(round_.view, context.deadlines.gone())
        is_learned = context.deadlines.are_learned
        expected = round_.view.expected
        return missed, told_slow(missed, before, expected, trains_on=mode is not None, is_learned=is_learned)

    def _carried(self) -> tuple[dict[str, int] | None, dict[str, int]]:
        """Return who goes on with an earlier task in an asynchronous run, and whose task is too old for that.

        Both by the round of the task; the first is None in a synchronous run. A task without a global model, of a first
        round, is not gone on with: the change that it makes has no base.
        """
        context, mode = self._context, self._context.config.buffered
        if mode is None:
            return None, {}
        round_ = context.current.round
        if round_ is None:
            return {}, {}
        going, old = carried(round_.view, context.members.clients, mode)
        given = context.runs.given(going)
        return {name: task for name, task in going.items() if name in given}, old
