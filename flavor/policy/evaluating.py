"""Decides when a global model is judged by the sites, and when an evaluation has its result. Pure functions.

An evaluation stands between two rounds: sites judge the model of round r before they train round r + 1, and the last
model before the run ends, so that the last one can be the best. It never ends a run. Their results are merged beside
round r + 1, unless a rule needs the merged result to say whether that round is opened.

After a run was rebuilt or resumed, its sites come back one after another. So that the first of them does not decide
alone which model is the best, or whether the run has reached its goal, an evaluation is opened when the next round can
be, and is also for the sites that have judged the model before and are still to come back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum

from flavor.config import RunConfig
from flavor.counted import counted
from flavor.evaluation_settings import EVERY, FINAL, OFF, mode_of, rules_of
from flavor.policy.advice import some
from flavor.policy.decision import Action, Decision
from flavor.policy.evaluation_job import Whereabouts
from flavor.policy.selection import StopWhen
from flavor.policy.standing import Client
from flavor.records.evaluation import EvaluationSummary, EvaluationView
from flavor.records.states import ClientState, EvaluationState

COMING_S = 60.0
"""How long an evaluation waits for a site that is to come back after the run was rebuilt or resumed."""
LONG_S = 60.0
"""An evaluation that waits for so long, or for half of its time, is worth telling the operator of."""


class Answer(StrEnum):
    """Where a site that is to judge a model stands."""

    AWAITED = "awaited"
    TO_COME = "to come"
    """It has not come back since the run was rebuilt or resumed."""
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


def may_open(then: Decision) -> bool:
    """Return whether an evaluation can be opened now; `then` follows the round.

    While too few sites are ready for the next round, the run waits for more of them, which may have an evaluator.
    """
    return then.action in (Action.OPEN, Action.FINISH)


def evaluation_step(
    known: EvaluationView | None,
    handed_in: Mapping[str, bool],
    clients: Mapping[str, Client],
    config: RunConfig,
    *,
    closed: int,
    now_ms: int,
    judged: Collection[str] = (),
    busy: Collection[str] = (),
    job: Whereabouts | None = None,
    what: str = "",
) -> Decision | None:
    """Return what to do about the evaluation of round `closed`; None when there is nothing (more) to do.

    `handed_in` has the sites of which a result is there, `judged` those with a result of the evaluation before that may
    still be coming back, and `busy` those that train on in an asynchronous run, for which all others would wait.
    `job` is where the job is that merges the results, once that has begun. `what` names the evaluation, where it is not
    of a round's model.
    """
    if known is None:
        return _opening(clients, judged, busy, config.evaluation_timeout_s)
    if known.is_over:
        return None
    where = what or f"evaluation of the model of round {closed}"
    if known.state is EvaluationState.MERGING:
        return _merging(known, config, where, job or Whereabouts())
    answers = {name: answer_of(name, handed_in, clients) for name in known.expected}
    have = [name for name, answer in answers.items() if answer is Answer.HANDED_IN]
    awaited = [name for name, answer in answers.items() if answer is Answer.AWAITED]
    to_come = [name for name, answer in answers.items() if answer is Answer.TO_COME]
    if now_ms >= known.opened_ms + COMING_S * 1000:
        to_come = []
    if (awaited or to_come) and now_ms < known.deadline_ms:
        handed = f"{where}: {len(have)} of {counted(len(known.expected), 'result')} handed in"
        waits = [some(awaited)] if awaited else []
        time_s = (known.deadline_ms - known.opened_ms) / 1000
        waits += [_coming(to_come, time_s)] if to_come else []
        is_long = now_ms >= known.opened_ms + min(LONG_S, time_s / 2) * 1000
        reason = f"{handed}, waiting for {' and for '.join(waits)}"
        return Decision(Action.WAIT, reason, is_usual=not to_come, is_long=is_long)
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


def newly_not_counted(
    when: Iterable[StopWhen], summary: EvaluationSummary, told: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return which goals do not count, for a reason that was not told before, and what is told by then.

    `told` has the reason that was told last of each rule. A rule that counts again, or for another reason does not, is
    told anew.
    """
    lines, by_then = list[str](), dict[str, str]()
    for rule in when:
        why, line = rule.incomplete(summary), rule.not_counted(summary)
        is_told = bool(why) and told.get(rule.text) == why
        if line and not is_told:
            lines.append(line)
        if line or is_told:
            by_then[rule.text] = why
    return lines, by_then


def without_evaluator(clients: Mapping[str, Client]) -> list[str]:
    """Return the sites that are there and judge no models, sorted."""
    return sorted(name for name, client in clients.items() if client.alive and not client.evaluates)


def left_out(clients: Mapping[str, Client], busy: Collection[str]) -> list[str]:
    """Return those of the `busy` sites that could judge a model if they did not train, sorted."""
    return sorted(name for name in busy if name in clients and clients[name].may_evaluate)


def answer_of(name: str, handed_in: Mapping[str, bool], clients: Mapping[str, Client]) -> Answer:
    """Return where a site stands: one that is gone comes back with its next task."""
    if handed_in.get(name):
        return Answer.HANDED_IN
    client = clients.get(name)
    if client is None:
        return Answer.TO_COME
    if client.quarantined or client.state is ClientState.REVOKED:
        return Answer.GONE
    if client.alive:
        return Answer.AWAITED if client.evaluates else Answer.GONE
    return Answer.TO_COME if client.ended_with_run else Answer.GONE


def _opening(
    clients: Mapping[str, Client], judged: Collection[str], busy: Collection[str], time_s: float
) -> Decision | None:
    there = {name for name, client in clients.items() if client.may_evaluate and name not in busy}
    there |= {name for name in judged if name in clients and clients[name].judges_soon}
    to_come = {name for name in judged if answer_of(name, {}, clients) is Answer.TO_COME and name not in busy}
    if not (there or to_come):
        return None
    reason = f"its global model is judged by {some(sorted(there | to_come))}"
    reason += f"; waiting for {_coming(sorted(to_come), time_s)}" if to_come else ""
    train_on = left_out(clients, busy)
    reason += f"; not asked, because they train on: {some(train_on)}" if train_on else ""
    lacking = without_evaluator(clients)
    reason += f"; without an evaluator: {some(lacking)}" if lacking else ""
    return Decision(Action.EVALUATE, reason, tuple(sorted(there | to_come)))


def awaits_sites(decision: Decision, clients: Mapping[str, Client], closed: int) -> Decision:
    """Return what to do in place of opening the last evaluation of a run that was resumed for it: wait for a site."""
    if decision.action is not Action.EVALUATE or any(
        each.may_evaluate or each.judges_soon for each in clients.values()
    ):
        return decision
    again = f"start `flavor-fl` or `flavor-fv` again at {some(decision.names)}"
    return Decision(Action.WAIT, f"the model of round {closed} is to be judged, and no site has come back yet: {again}")


def _coming(names: list[str], time_s: float) -> str:
    judge, have = ("judges", "has") if len(names) == 1 else ("judge", "have")
    most_s = min(COMING_S, time_s)
    return f"{some(names)}, which {judge} the model and {have} not come back yet, for {most_s:g} s at most"


def _merging(known: EvaluationView, config: RunConfig, where: str, job: Whereabouts) -> Decision:
    is_lost = job.is_lost(config)
    if not known.error and job.workers == 0:
        reason = job.absence or f"no aggregator listens on queue {config.queue!r}: start one with `flavor-agg`"
        return Decision(Action.HOLD, f"{where}: {reason}", since_ms=known.merging_ms)
    if not known.error and not is_lost and job.workers is not None:
        busy = f"no aggregator on queue {config.queue!r} has taken its results yet: they have other work"
        return Decision(Action.WAIT, f"{where}: {busy}")
    if not known.error and not is_lost:
        return Decision(Action.WAIT, f"{where}: an aggregator merges the results", is_usual=True)
    if known.is_hopeless:
        return Decision(Action.GIVE_UP, f"{where}: {known.error}")
    problem = known.error or "the aggregator that merged its results stopped without a word"
    if known.attempt >= config.aggregation_attempts:
        return Decision(Action.GIVE_UP, f"{where}: {counted(known.attempt, 'attempt')} failed: {problem}")
    return Decision(Action.MERGE, f"{where}: again, because: {problem}")
