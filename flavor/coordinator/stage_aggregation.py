"""The stage of a round that is aggregated: supervise the attempt, begin another, reopen the round or end the run."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from flavor.coordinator.attempts import begin_attempt, refusals_of_spoiled
from flavor.coordinator.context import RunContext
from flavor.coordinator.round_as_read import CurrentRound
from flavor.errors import IllegalMove, LocalFault, StoreUnavailable
from flavor.policy.decision import Action
from flavor.policy.next_step import next_step
from flavor.records.round import RoundView
from flavor.view.round_events import RoundReturned


class Aggregation:
    """The `Stage` in which an aggregator makes the model of a round."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def step(self, round_: CurrentRound | None) -> bool:
        """See `Stage`."""
        assert round_ is not None
        context, current = self._context, self._context.current
        known = context.known(round_.view, {}, enqueued_ms=round_.enqueued_ms)
        if known.is_overdue:
            current.read_round_view(round_)
            if round_.is_closed:
                current.read_run()
                return True
            workers = context.jobs.workers() if round_.view.lease_ms is None else None
            absence = context.jobs.absence() if workers == 0 else ""
            known = replace(known, round=round_.view, workers=workers, absence=absence)
        decision = next_step(known)
        action, reason = decision.action, decision.reason
        if decision.waits:
            context.waits.note(decision)
        elif action is Action.RETRY:
            spoiled = round_.view.spoiled
            contributors = [client for client in round_.view.contributors if client not in spoiled]
            begin_attempt(context, round_, round_.view.attempt + 1, contributors, reason, worth_telling=True)
        elif action is Action.RETURN:
            self._return(round_.view, reason)
            return True
        elif action is Action.REQUEUE:
            context.jobs.aggregate(context.runs.run, round_.number, attempt=round_.view.attempt)
            round_.enqueued_ms = known.now_ms
        elif action is Action.FAIL:
            context.end(decision)
            return True
        return False

    def _return(self, view: RoundView, reason: str) -> None:
        """Open the round again without the updates that were spoiled; the quorum then decides how it goes on."""
        context, refused = self._context, refusals_of_spoiled(view)
        self._check_unchanged(view)  # else updates that were handed in again since then would be removed
        with contextlib.suppress(StoreUnavailable, LocalFault):  # an aggregator refuses what is left there
            context.store.delete([path for _, verdict, _ in refused for path in verdict.inspected.paths])
        context.runs.return_round(
            context.lease.token, view.round, attempt=view.attempt, refused=refused, reason=reason, since=view.since
        )
        context.observer.hear(RoundReturned(reason, view.round))
        context.current.reload_round()

    def _check_unchanged(self, seen: RoundView) -> None:
        """Raise `LeaseLost` or `IllegalMove` unless this coordinator has the lease, and the round is as it was `seen`.

        Objects are removed by no script of Redis, which would check that itself: this process may have been paused
        while another coordinator took over and ended.
        """
        runs = self._context.runs
        self._context.lease.keep()
        now = runs.read_round(seen.round)
        if now is None or (now.state, now.attempt, now.error) != (seen.state, seen.attempt, seen.error):
            raise IllegalMove(f"run {runs.run!r}: round {seen.round} has gone on since it was looked at")
