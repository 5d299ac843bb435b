"""What a run waits for and since when: the same sentence in the log, in `flavor status` and in the live view.

The coordinator writes each sentence into the run's log, as `run.waiting` or `round.waiting`. `wait_of` returns the
newest sentence in the log, as long as a coordinator serves the run and the run has not moved since. Otherwise it asks
the policy, as the coordinator would: in the first seconds of a usual wait, and of each change of it, which the log has
only once it has lasted; and without a coordinator, where it says what the next one does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from flavor.config import RunConfig
from flavor.durations import shown_duration
from flavor.policy.decision import Action, Decision
from flavor.policy.next_step import Known, next_step
from flavor.policy.standing import Client, Standing
from flavor.records.evaluation import EvaluationKind
from flavor.records.names import count
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.view.evaluation_events import (
    EvaluationClosed,
    EvaluationEvent,
    EvaluationFailed,
    EvaluationOpened,
    EvaluationSkipped,
)
from flavor.view.events import KINDS, event_of
from flavor.view.facts import LOOKED_BACK, Entry, time_of
from flavor.view.round_events import (
    AggregationBegun,
    RoundClosed,
    RoundOpened,
    RoundReopened,
    RoundReturned,
    RoundWaiting,
    RunCreated,
    RunEnded,
    RunRecovered,
    RunResumed,
    RunWaiting,
)

SETTLED_S = 2.0
"""A usual wait is written into the log once it has lasted so many seconds, and at most once in this time."""
_MOVES = (
    *(RunCreated, RunResumed, RunRecovered, RunEnded),
    *(RoundOpened, RoundReopened, RoundReturned, AggregationBegun, RoundClosed),
    *(EvaluationClosed, EvaluationFailed, EvaluationSkipped),
)
"""Events that end every wait that the log has before them."""
_BESIDE = (EvaluationKind.CENTRAL, EvaluationKind.ASKED)
"""Evaluations that no round waits for."""
_TELLING = (*_MOVES, RunWaiting, RoundWaiting, EvaluationOpened)


@dataclass(frozen=True)
class Wait:
    """What a run, or its current round, waits for."""

    reason: str
    """The sentence, as the log has it."""
    round: int | None = None
    """The round that waits; None for the run itself, between rounds."""
    since_ms: int | None = None
    """Since when, in milliseconds of the server's clock; None while the log does not have it."""
    is_held: bool = False
    """Whether the run cannot go on by itself."""
    missing: int = 0
    """How many more clients have to be ready before the next round can open."""

    @property
    def sentence(self) -> str:
        """The sentence with the number of the round."""
        return self.reason if self.round is None else f"round {self.round}: {self.reason}"

    def lasts_s(self, now_ms: int) -> float | None:
        """For how many seconds the wait has lasted; None where that is not known."""
        return None if self.since_ms is None else max(0.0, (now_ms - self.since_ms) / 1000)

    def line(self, now_ms: int) -> str:
        """The sentence, and for how long the wait has lasted."""
        lasts_s = self.lasts_s(now_ms)
        return self.sentence if lasts_s is None else f"{self.sentence}, for {shown_duration(lasts_s)}"


def wait_of(
    log: Iterable[Entry],
    view: RunView,
    round_: RoundView | None,
    standing: Mapping[str, tuple[Standing, str]],
    clients: Mapping[str, Client],
    now_ms: int,
    *,
    is_served: bool,
) -> Wait | None:
    """Return what the run waits for; None for a run that has ended. `log` has its newest entries, newest first."""
    if view.state.ended:
        return None
    config = RunConfig.known(view.config)
    known = Known(view, round_, standing, clients, config, now_ms, is_lenient=not is_served)  # as the next one begins
    decision = next_step(replace(known, is_served=is_served))
    reason = _shown(decision, is_served=is_served)
    worked_out = Wait(reason, decision.round, is_held=decision.is_held, missing=decision.missing)
    logged = logged_wait(log, decision.round)
    if logged is None or not (is_served or logged.reason == next_step(known).reason):
        return worked_out
    if not is_served:
        return replace(worked_out, since_ms=logged.since_ms)
    if decision.is_usual and not logged.is_held and logged.reason != reason:  # the log will say so, if it lasts
        return worked_out
    return replace(logged, is_held=worked_out.is_held or logged.is_held, missing=worked_out.missing)


def logged_wait(log: Iterable[Entry], round_: int | None) -> Wait | None:
    """Return what the log says that the run, or this round, waits for; None where the run has moved since."""
    for identity, fields in itertools.islice(log, LOOKED_BACK):
        if (kind := KINDS.get(fields.get("event", ""))) is None or not issubclass(kind, _TELLING):
            continue
        event = event_of(fields)
        if isinstance(event, EvaluationEvent) and (round_ is not None or event.kind in _BESIDE):
            continue  # beside what is waited for
        if isinstance(event, _MOVES):
            return None
        if isinstance(event, EvaluationOpened):
            what = f"round {event.round}: {event.reason}"
            return Wait(what, None, time_of(identity)) if round_ is None else None
        if isinstance(event, RunWaiting | RoundWaiting):
            is_of_it = getattr(event, "round", None) == round_
            since_ms = count(fields.get("since_ms")) or time_of(identity)
            return Wait(event.reason, round_, since_ms, is_held=bool(fields.get("held"))) if is_of_it else None
    return None


_TO_COME = {
    Action.OPEN: "opens the next round",
    Action.AGGREGATE: "has the round aggregated",
    Action.REOPEN: "opens the round again",
    Action.RETURN: "opens the round again",
    Action.RETRY: "begins another attempt to aggregate the round",
    Action.REQUEUE: "puts the aggregation into the queue again",
    Action.FINISH: "finishes the run",
    Action.FAIL: "fails the run",
}


def _shown(decision: Decision, *, is_served: bool) -> str:
    """Return the reason of a decision; without a coordinator, also what the next one does."""
    action = decision.postponed or decision.action
    if is_served or action not in _TO_COME:
        return decision.reason
    unless = "unless clients come back in time, " if decision.postponed else ""
    return f"{unless}the next coordinator {_TO_COME[action]}: {decision.reason}"
