"""Says what a site waits for, for the site's user."""

from __future__ import annotations

from flavor.edge.part import Part, Phase


def awaited(part: Part) -> str:
    """What this site waits for; '' while it has something to do."""
    if part.stalled:
        return (
            f"TrainFinished of round {part.stalled}: the trainer called WaitEvent('TrainStarted') again before it: "
            "call WaitEvent once in each round, and SetEvent('TrainFinished') at its end, once both files are saved"
        )
    if part.phase is not Phase.IDLE:
        return ""
    if not part.behind:
        return "the run's first round here: its coordinator opens it once enough sites are ready"
    if part.unjudged:
        return f"an aggregator to inspect its update of round {part.unjudged}, or the end of that round"
    if part.refused == part.behind:
        return (
            f"the run's next round, while the run may wait for this site: its update of round {part.refused} was "
            "refused; mend that, then end this (Ctrl-C) and start it again, and it trains that round again"
        )
    return f"the run's next round: this site's part in round {part.behind} is done"
