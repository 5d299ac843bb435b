"""Decides what a run does next from what is known of it. The coordinator acts on the decision; the views show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flavor.config import RunConfig
from flavor.deadline_settings import learned_of
from flavor.policy.deadline import not_awaited
from flavor.policy.decision import Action, Decision, close_round, next_round, reopened
from flavor.policy.standing import Client, Standing
from flavor.policy.supervision import supervise
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import RoundState


@dataclass(frozen=True)
class Known:
    """All that a decision depends on. What is inspected and queued is known to the coordinator alone."""

    run: RunView
    round: RoundView | None
    """The newest round; None before the first."""
    standings: Mapping[str, tuple[Standing, str]]
    """Where each client that is expected in the round stands in it, and why."""
    clients: Mapping[str, Client]
    config: RunConfig
    now_ms: int
    """The time of the server's clock, in milliseconds."""
    uninspected: str = ""
    """Why no update is inspected for now; '' while inspections go well."""
    uninspected_ms: int | None = None
    """Since when no update is inspected, in milliseconds of the server's clock; None for just now."""
    enqueued_ms: int | None = None
    """When the aggregation was put into the queue, in milliseconds of the server's clock; None for just now."""
    workers: int | None = None
    """The number of aggregators on the queue; None where they were not counted."""
    absence: str = ""
    """Why no aggregator takes the aggregation; '' where that is not known."""
    is_lenient: bool = False
    """Whether clients are given time to come back, after what cut them off from the run."""
    is_served: bool = True
    """Whether a coordinator serves the run."""

    @property
    def closes_early(self) -> bool:
        """Whether an open round closes with the first updates that it needs."""
        mode = self.config.buffered
        return mode is not None and mode.buffer is not None and self.run.global_model is not None

    @property
    def closed(self) -> int:
        """The number of the newest closed round, where the newest round is closed; 0 before the first."""
        return self.round.round if self.round is not None else max(0, self.run.round - 1)

    @property
    def is_overdue(self) -> bool:
        """Whether the aggregation has been in the queue for longer than an aggregator's lease."""
        return self.enqueued_ms is not None and self.now_ms - self.enqueued_ms > self.config.aggregation_lease_s * 1000


def next_step(known: Known) -> Decision:
    """Return what the run does next, and why."""
    round_ = known.round
    if round_ is None or round_.state is RoundState.CLOSED:
        return _between_rounds(known)
    decision = _open_round(known, round_) if round_.state is RoundState.OPEN else _aggregation(known, round_)
    return replace(decision, round=round_.round)


def _between_rounds(known: Known) -> Decision:
    closed, config = known.closed, known.config
    anew = _begins_anew(known.run, closed)
    decision = next_round(known.run.run, closed, known.clients, config, anew=anew)
    ends = decision.action in (Action.FAIL, Action.FINISH) and closed < config.rounds
    is_too_early = (known.is_lenient and decision.action is Action.FAIL) or (ends and _is_just_resumed(known))
    return decision.put_off() if is_too_early else decision


def _begins_anew(run: RunView, closed: int) -> bool:
    """Return whether the run was rebuilt from the store or resumed, and has closed no round since."""
    return (bool(run.recovered_ms) and closed == run.recovered_round) or closed == run.resumed_round


def _is_just_resumed(known: Known) -> bool:
    """Return whether sites may still be joining again after a resume.

    That is until the time of one round has passed, or a round was closed after the one that was open at the resume.
    """
    run = known.run
    if run.resumed_round is None or known.closed > run.resumed_round + 1:
        return False
    return known.now_ms < run.resumed_ms + known.config.longest_round_s * 1000


def _open_round(known: Known, round_: RoundView) -> Decision:
    mode = known.config.buffered
    decision = close_round(
        known.run.run,
        known.now_ms,
        round_,
        known.standings,
        known.config,
        without_store=[name for name, client in known.clients.items() if client.awaits_store],
        is_served=known.is_served,
        # the change that an update of a first round makes has no base: no site goes on with its task then
        is_early=known.closes_early,
        slow=not_awaited(
            round_.missed, round_.expected, is_learned=learned_of(known.config.round_timeout_s) is not None
        )
        if mode is not None and known.run.global_model is not None
        else (),
    )
    if decision.action is Action.WAIT:
        if known.uninspected:
            return Decision(Action.WAIT, known.uninspected, since_ms=known.uninspected_ms)
        return replace(decision, is_usual=True)
    is_lenient = known.is_lenient and known.now_ms < round_.deadline_ms  # after it, nothing is too early
    if is_lenient and decision.action in (Action.FAIL, Action.REOPEN):
        return decision.put_off()
    if decision.action is Action.REOPEN:
        again = reopened(round_, known.standings, known.clients, known.config)
        return replace(again, reason=f"{decision.reason}; {again.reason}")
    return decision


def _aggregation(known: Known, round_: RoundView) -> Decision:
    enqueued_ms = known.now_ms if known.enqueued_ms is None else known.enqueued_ms
    workers, config = known.workers, known.config
    decision = supervise(known.now_ms, round_, enqueued_ms=enqueued_ms, workers=workers, config=config)
    if decision.action is not Action.WAIT:
        return decision
    if workers == 0 and known.absence:
        return replace(decision, reason=known.absence, since_ms=known.enqueued_ms)
    return replace(decision, is_usual=not known.is_overdue)
