"""Decides what to do about the evaluation of a model on the operator's own data, beside the rounds. Pure functions.

No round waits for it. When the worker falls behind, the newest model takes the place of those that no worker has begun
to judge. The end of the run waits for what is left of the last one's time.
"""

from __future__ import annotations

from flavor.config import RunConfig
from flavor.counted import counted
from flavor.policy.decision import Action, Decision
from flavor.policy.evaluation_job import Whereabouts
from flavor.records.evaluation import EvaluationView
from flavor.records.states import EvaluationState

LACKING_S = 60.0
"""How long the end of a run waits where no worker judges models: one that is restarted is back by then."""


def where_of(round_: int) -> str:
    """Return what is done, as the beginning of a sentence."""
    return f"the model of round {round_} on the operator's own data"


def central_step(
    known: EvaluationView,
    job: Whereabouts,
    config: RunConfig,
    *,
    ends: bool,
    now_ms: int,
    lacking_s: float | None = None,
) -> Decision | None:
    """Return what to do about an evaluation that is not over; None to let it go on.

    `ends` says that no round follows, so that the run waits for it. `lacking_s` is for how long no worker has been
    there then that could judge the model; None where one is.
    """
    where = where_of(known.round)
    if known.state is EvaluationState.OPEN:  # by a coordinator that has died
        return Decision(Action.MERGE, where)
    why = known.error or ("the worker that judged it is gone" if job.is_lost(config) else "")
    if known.is_hopeless:
        return Decision(Action.GIVE_UP, f"{where}: {why}")
    if why and known.attempt >= config.aggregation_attempts:
        return Decision(Action.GIVE_UP, f"{where}: {counted(known.attempt, 'attempt')} failed: {why}")
    if why:
        return Decision(Action.MERGE, f"{where}: again, because: {why}")
    if not ends:
        return None
    return _at_the_end(known, lacking_s, config, where, now_ms=now_ms)


def _at_the_end(
    known: EvaluationView, lacking_s: float | None, config: RunConfig, where: str, *, now_ms: int
) -> Decision:
    if now_ms >= known.deadline_ms:
        limit = f"{config.evaluation_timeout_s:g} s (--evaluation-timeout-s)"
        return Decision(Action.GIVE_UP, f"{where}: there was no result after {limit}")
    if lacking_s is None:
        return Decision(Action.WAIT, f"an aggregator judges {where}", is_usual=True)
    if lacking_s >= LACKING_S:
        gone = f"for {LACKING_S:g} s there was no worker that judges models (flavor-agg -e)"
        return Decision(Action.GIVE_UP, f"{where}: {gone}")
    lacking = f"no worker on queue {config.queue!r} judges models: start one with `flavor-agg -e`"
    return Decision(Action.WAIT, f"{where}: {lacking}. The run ends without its result after {LACKING_S:g} s")


def skipped(known: EvaluationView, newest: int) -> str:
    """Return why an evaluation that no worker has begun is left out."""
    return (
        f"{where_of(known.round)}: skipped, because the worker that judges models is behind: "
        f"that of round {newest} is judged in its place"
    )
