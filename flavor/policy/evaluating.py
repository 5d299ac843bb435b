"""Decides when a global model is judged by the sites, and when an evaluation has its result. Pure functions.

An evaluation stands between two rounds: sites judge the model of round r before they train round r + 1, and the last
model before the run ends, so that the last one can be the best. It never ends a run. Their results are merged beside
round r + 1, unless a rule needs the merged result to say whether that round is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from flavor.config import RunConfig
from flavor.counted import counted
from flavor.evaluation_settings import EVERY, FINAL, OFF, mode_of, rules_of
from flavor.policy.advice import some
from flavor.policy.decision import Action, Decision
from flavor.policy.standing import Client
from flavor.records.evaluation import EvaluationView
from flavor.records.states import EvaluationState


class Answer(StrEnum):
    """Where a site that is to judge a model stands."""

    AWAITED = "awaited"
    HANDED_IN = "handed in"
    GONE = "gone"


def is_due(config: RunConfig, closed: int, *, ends: bool) -> bool:
    """Return whether the model of the newest closed round is to be judged. `ends` says that no round follows."""
    mode = mode_of(config)
    if mode == OFF or not closed:
        return False
    if ends or mode == EVERY:
        return True
    return mode != FINAL and closed % int(mode) == 0


def evaluation_step(
    known: EvaluationView | None,
    handed_in: Mapping[str, bool],
    clients: Mapping[str, Client],
    config: RunConfig,
    *,
    closed: int,
    now_ms: int,
    workers: int | None = None,
    absence: str = "",
    what: str = "",
) -> Decision | None:
    """Return what to do about the evaluation of round `closed`; None when there is nothing (more) to do.

    `handed_in` has the sites of which a result is there. `workers` is the number of aggregators, or None where they
    were not counted; `absence` says why there is none. `what` names the evaluation, where it is not of a round's model.
    """
    if known is None:
        judges = tuple(sorted(name for name, client in clients.items() if client.may_evaluate))
        if not judges:
            return None
        lacking = without_evaluator(clients)
        without = f"; without an evaluator: {some(lacking)}" if lacking else ""
        return Decision(Action.EVALUATE, f"its global model is judged by {some(list(judges))}{without}", judges)
    if known.is_over:
        return None
    where = what or f"evaluation of the model of round {closed}"
    if known.state is EvaluationState.MERGING:
        return _merging(known, config, where, now_ms=now_ms, workers=workers, absence=absence)
    awaited = [name for name in known.expected if answer_of(name, handed_in, clients) is Answer.AWAITED]
    have = [name for name in known.expected if handed_in.get(name)]
    if awaited and now_ms < known.deadline_ms:
        return Decision(
            Action.WAIT,
            f"{where}: {len(have)} of {counted(len(known.expected), 'result')} handed in, waiting for {some(awaited)}",
            is_usual=True,
        )
    if not have:
        why = f"its deadline passed without a result of {some(awaited)}" if awaited else "its sites are gone"
        return Decision(Action.GIVE_UP, f"{where}: {why}")
    return Decision(Action.MERGE, where)


def is_merged_beside(known: EvaluationView | None, config: RunConfig, then: Decision) -> bool:
    """Return whether `then`, which follows the round, is done while the results of its model are merged."""
    if known is None or known.state is not EvaluationState.MERGING or then.action is not Action.OPEN:
        return False
    rules = rules_of(config, central=False)
    return not (rules.when or rules.after)


def without_evaluator(clients: Mapping[str, Client]) -> list[str]:
    """Return the sites that are there and judge no models, sorted."""
    return sorted(name for name, client in clients.items() if client.alive and not client.evaluates)


def answer_of(name: str, handed_in: Mapping[str, bool], clients: Mapping[str, Client]) -> Answer:
    """Return where a site stands: one that is gone comes back with its next task."""
    if handed_in.get(name):
        return Answer.HANDED_IN
    client = clients.get(name)
    return Answer.GONE if client is None or not client.alive or client.quarantined else Answer.AWAITED


def _merging(
    known: EvaluationView, config: RunConfig, where: str, *, now_ms: int, workers: int | None, absence: str
) -> Decision:
    waits_ms = config.aggregation_lease_s * 1000
    is_overdue = now_ms - known.merging_ms > waits_ms
    if not known.error and not is_overdue:
        return Decision(Action.WAIT, f"{where}: an aggregator merges the results", is_usual=True)
    if not known.error and workers == 0:
        reason = absence or f"no aggregator listens on queue {config.queue!r}: start one with `flavor-agg`"
        return Decision(Action.HOLD, f"{where}: {reason}", since_ms=known.merging_ms)
    if known.is_hopeless:
        return Decision(Action.GIVE_UP, f"{where}: {known.error}")
    problem = known.error or "no aggregator has merged its results in time"
    if known.attempt >= config.aggregation_attempts:
        return Decision(Action.GIVE_UP, f"{where}: {counted(known.attempt, 'attempt')} failed: {problem}")
    return Decision(Action.MERGE, f"{where}: again, because: {problem}")
