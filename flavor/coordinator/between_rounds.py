"""The stage between two rounds: settle the closed round, then open the next, wait for clients or end the run."""

from __future__ import annotations

from flavor.coordinator.context import RunContext
from flavor.coordinator.current_round import CurrentRound
from flavor.failpoints import reach
from flavor.policy.decision import Action, begins_anew
from flavor.policy.standing import with_absent
from flavor.records.round import RoundView
from flavor.records.states import RunState
from flavor.view.round_events import RoundClosed, RoundNote, RoundOpened


class BetweenRounds:
    """The `Stage` in which the run has no round yet, or its newest round is closed."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def step(self, round_: CurrentRound | None) -> bool:
        """See `Stage`."""
        context, current, config = self._context, self._context.current, self._context.config
        closed = round_.number if round_ else 0
        if round_:
            self._settle(round_)
        anew = begins_anew(current.view, closed)
        clients = with_absent(context.members.names, context.members.clients)
        action, reason, expected = context.policy.next_round(context.runs.run, closed, clients, config, anew=anew)
        ends = action in (Action.FAIL, Action.FINISH) and closed < config.rounds
        if action is Action.WAIT or context.is_too_early(action) or (ends and self._is_just_resumed(closed)):
            context.waits.unusual(None, reason)
            return False
        if action is Action.OPEN:
            self._open(closed + 1, expected, reason)
        else:
            context.end(RunState.FINISHED if action is Action.FINISH else RunState.FAILED, reason)
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

    def _is_just_resumed(self, closed: int) -> bool:
        """Whether sites may still be joining again: the run was resumed and closed no more than the round then open."""
        run = self._context.current.view
        if run.resumed_round is None or closed > run.resumed_round + 1:
            return False
        return self._context.current.now_ms() < run.resumed_ms + self._context.config.round_timeout_s * 1000

    def _open(self, number: int, expected: tuple[str, ...], reason: str) -> None:
        context, config = self._context, self._context.config
        reach("coordinator.opening")
        opened_ms = context.runs.open_round(
            context.lease.token, number, expected=expected, timeout_s=config.round_timeout_s, reason=reason
        )
        reach("coordinator.opened")
        context.late.refuse_unheard()
        context.current.set_clock(opened_ms)
        deadline_ms = opened_ms + int(config.round_timeout_s * 1000)
        context.current.opened(RoundView.opened(number, expected, opened_ms=opened_ms, deadline_ms=deadline_ms))
        context.observer.hear(RoundOpened(reason, number, rounds=config.rounds))
        context.pruning.after(number - 1, context.members.names)
