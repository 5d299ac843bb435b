"""Begins an attempt to aggregate a round, with the updates that count."""

from __future__ import annotations

from dataclasses import replace

from flavor.coordinator.context import RunContext
from flavor.coordinator.round_as_read import CurrentRound
from flavor.failpoints import reach
from flavor.records.round import RoundView
from flavor.records.verdict import Refusal
from flavor.view.round_events import AggregationBegun


def begin_attempt(
    context: RunContext,
    round_: CurrentRound,
    attempt: int,
    contributors: list[str],
    reason: str,
    *,
    worth_telling: bool,
) -> None:
    """Fix the contributors of this attempt, and put the attempt into the aggregators' queue.

    With `worth_telling`, terminals show the `reason`, too.
    """
    number = round_.number
    reach("coordinator.closing")
    context.runs.begin_aggregation(
        context.lease.token,
        number,
        attempt=attempt,
        contributors=contributors,
        reason=reason,
        refused=refusals_of_spoiled(round_.view),
        since=round_.view.since,
    )
    reach("coordinator.aggregating")
    context.jobs.aggregate(context.runs.run, number, attempt=attempt)
    reach("coordinator.enqueued")
    context.waits.has_moved()
    round_.enqueued_ms = context.current.now_ms()
    context.current.read_round_view(round_)
    context.observer.hear(AggregationBegun(reason, number, is_routine=not worth_telling))


def refusals_of_spoiled(view: RoundView) -> list[Refusal]:
    """Return the refusals of the updates that the last attempt found spoiled."""
    changed = "its object was changed or removed in the store after it was accepted"
    refusals = []
    for client in view.spoiled:
        if (verdict := view.verdicts.get(client)) is not None:
            blameless = client in view.blameless
            reason = view.blameless[client] if blameless else view.unfit.get(client, changed)
            refused = replace(verdict, accepted=False, reason=reason, blameless=blameless)
            refusals.append(Refusal(client, refused, client in view.unfit))
    return refusals
