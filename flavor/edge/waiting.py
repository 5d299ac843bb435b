"""Says what a site waits for, for the site's user."""

from __future__ import annotations

import shlex

from flavor.counted import counted
from flavor.edge.part import Part, Phase
from flavor.records.verdict import OfModel


def quarantine(run: str, client: str, refused: int) -> str:
    """That so many updates in a row were refused, and the run gives this site no tasks before its pardon."""
    return (
        f"quarantined after {counted(refused, 'refused update')} in a row: it gets no new task, and no update of it "
        f"counts, until the run's operator ends that (flavor pardon {shlex.quote(run)} {shlex.quote(client)}); mend "
        "the cause, and ask the operator for that"
    )


def goes_on_unmended(refused: int) -> str:
    """What follows the end of a quarantine in a later round than that of the refused update."""
    return (
        f"it gets the run's next task by itself; if what its update of round {refused} was refused for is not "
        "mended yet, end this (Ctrl-C), mend that and start this again"
    )


def trains_again(round_: int, *, is_buffered: bool) -> str:
    """What follows where this site's edge is started again after its update of this task's round was refused."""
    if is_buffered:  # the run is in a later round, or soon will be, and that has another task for this site
        return "it trains the newest task that the run has for it"
    return f"it trains round {round_} again while that is open"


def other_try(round_: int, of_model: OfModel, *, is_buffered: bool) -> str:
    """What another try of this round would do, after a refusal that is no fault of this site's."""
    again = f"start this again, and {trains_again(round_, is_buffered=is_buffered)}"
    if of_model is OfModel.UNREADABLE:
        return f"once the run's operator has put that model back, {again}"
    if of_model is OfModel.LIKELY:
        return f"if updates of other sites are accepted, the cause is here: mend it and {again}"
    return "another try of this round would not help"


def awaited(part: Part, *, is_buffered: bool = False, quarantined: str = "") -> str:
    """What this site waits for; '' while it has something to do.

    `is_buffered` in an asynchronous run; `quarantined` is what `quarantine` returns, where the site is.
    """
    if part.stalled:
        return (
            f"TrainFinished of round {part.stalled}: the trainer called WaitEvent('TrainStarted') again before it: "
            "call WaitEvent once in each round, and SetEvent('TrainFinished') at its end, once both files are saved"
        )
    if part.phase is not Phase.IDLE:
        return ""
    if quarantined:
        return f"the run's operator: this site is {quarantined}"
    if not part.behind:
        return "the run's first round here: its coordinator opens it once enough sites are ready"
    if part.unjudged:
        return f"an aggregator to inspect its update of round {part.unjudged}, or the end of that round"
    of = f"its update of the task of round {part.behind}" if is_buffered else f"its update of round {part.behind}"
    if part.blameless == part.behind:
        tried = other_try(part.blameless, part.of_model, is_buffered=is_buffered)
        return f"the run's next round, or its operator: {of} was refused; {tried}"
    if part.refused == part.behind:
        return (
            f"the run's next round, while the run may wait for this site: {of} was refused; mend that, then end this "
            f"(Ctrl-C) and start it again, and {trains_again(part.refused, is_buffered=is_buffered)}"
        )
    return f"the run's next round: this site's part in round {part.behind} is done"
