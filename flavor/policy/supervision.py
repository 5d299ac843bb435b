"""Decides about a round that is aggregated: wait, begin another attempt, put it into the queue again, or fail."""

from __future__ import annotations

from flavor.config import RunConfig
from flavor.counted import are, counted
from flavor.policy.advice import Reason, some
from flavor.policy.decision import Action, Decision, counted_kinds
from flavor.records.round import RoundView

_LONGEST_WAIT_MS = 15_000
"""After a problem that passes by itself, the next attempt begins within this time."""


def supervise(now_ms: int, round_: RoundView, *, enqueued_ms: int, workers: int | None, config: RunConfig) -> Decision:
    """In an aggregating round: wait, start another attempt, put the same one into the queue again, or fail.

    `workers` is the number of aggregators on the queue, or None when it was not counted.
    """
    lease_ms = config.aggregation_lease_s * 1000
    problem = None
    if round_.error is not None:
        problem = round_.error
    elif round_.lease_ms is not None and now_ms > round_.lease_ms:
        problem = "its aggregator stopped without a word"
    if problem is not None:
        return _attempt_failed(now_ms, round_, problem, config)
    if round_.lease_ms is None and now_ms - enqueued_ms > lease_ms:
        if workers == 0:
            return Decision(
                Action.WAIT, f"no aggregator listens on queue {config.queue!r}: start one with `flavor-agg`"
            )
        return Decision(Action.REQUEUE, "no aggregator has taken it yet")
    return Decision(Action.WAIT, "being aggregated" if round_.lease_ms is not None else "waiting for an aggregator")


def _attempt_failed(now_ms: int, round_: RoundView, problem: str, config: RunConfig) -> Decision:
    """After a failed attempt: begin another, at once or after a wait, open the round again, or fail."""
    if round_.spoiled:
        left = len(round_.contributors) - len(round_.spoiled)
        needed = config.needed_of(len(round_.expected))
        if left < needed:
            short = f"{counted(needed, 'update')} {are(needed)} needed and {left} {are(left)} left"
            unfit, blameless = len(round_.unfit), len(round_.blameless)
            kinds = ["changed or removed in the store"] * (len(round_.spoiled) - unfit - blameless)
            kinds += ["not usable with the others"] * unfit
            changed = counted_kinds([*kinds, *["trained from a model that cannot be read"] * blameless])
            action = Action.FAIL if config.on_quorum_lost == "fail" else Action.RETURN
            return Decision(action, Reason(f"{short}: {problem}", f"{short}: {changed}"))
        return Decision(Action.RETRY, f"without {some(round_.spoiled)}, because: {problem}")
    if round_.passing_ms is not None:
        if now_ms < round_.passing_ms + min(config.aggregation_lease_s * 1000, _LONGEST_WAIT_MS):
            return Decision(Action.HOLD, f"waiting, because: {problem}")
        return Decision(Action.RETRY, f"again, because: {problem}")
    number = round_.attempt - round_.waits
    times = f"attempt {number} of {config.aggregation_attempts}"
    if round_.is_hopeless or number >= config.aggregation_attempts:
        known = f"{times} to aggregate it failed; the aggregator's log says why"
        return Decision(Action.FAIL, Reason(f"{times}: {problem}", known))
    return Decision(Action.RETRY, f"attempt {number + 1} of {config.aggregation_attempts}, because: {problem}")
