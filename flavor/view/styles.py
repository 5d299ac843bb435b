"""Colours of events and phases on a terminal. The words say all that a colour says."""

from __future__ import annotations

from collections.abc import Mapping

from flavor.view.snapshot import Phase

BAD, WAITS, GOOD, NEWS, QUIET = "red", "yellow", "green", "cyan", ""
"""The names of the colours are those of both click and rich; '' is the terminal's own."""

_EVENTS: Mapping[str, tuple[str, ...]] = {
    BAD: (
        *("update.refused", "client.lost", "client.quarantined", "client.not_admitted", "client.other_key"),
        *("round.attempt_failed", "run.failed", "evaluation.failed"),
    ),
    WAITS: (
        *("run.waiting", "round.waiting", "round.reopened", "round.returned", "round.given_back", "round.note"),
        *("client.stopped", "client.left_out", "client.too_slow", "client.outpaced", "client.key_replaced"),
        "client.warned",
        *("update.ignored", "aggregator.restarted", "run.stopped"),
    ),
    GOOD: ("round.closed", "run.finished", "run.best"),
    NEWS: ("run.created", "run.resumed", "run.recovered", "round.opened", "evaluation.closed"),
    QUIET: (
        *("client.joined", "client.left", "client.pardoned", "client.sets", "update.accepted"),
        *("round.aggregating", "round.structure", "evaluation.opened", "evaluation.skipped"),
    ),
}
COLOUR_OF_EVENT: Mapping[str, str] = {name: colour for colour, names in _EVENTS.items() for name in names}
"""The colour of an event, by its name in the log."""

COLOUR_OF_PHASE: Mapping[str, str] = {
    Phase.DONE: GOOD,
    Phase.UPLOADED: NEWS,
    Phase.OVER: QUIET,
    Phase.LEFT: QUIET,
    **dict.fromkeys((Phase.STARTING, Phase.WAITING, Phase.TRAINING, Phase.JUDGING, Phase.STOPPED), WAITS),
    **dict.fromkeys((Phase.REFUSED, Phase.QUARANTINED, Phase.REVOKED, Phase.FAILED, Phase.GONE), BAD),
}
"""The colour of a client, by its phase."""
