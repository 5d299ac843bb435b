"""Why sites that were to judge a model have handed in no result."""

from __future__ import annotations

from collections.abc import Sequence

from flavor.bus.runs import RunStore
from flavor.policy.standing import is_genuine
from flavor.records.evaluation import EvaluationView
from flavor.records.states import ClientState

_GONE = "it was gone before it handed in a result"
_NOT_AWAITED = "it was gone when the others had handed in, or it is quarantined: it was not waited for"
_IN_TIME = "it handed in no result in time"
_ENDED = {
    ClientState.LEFT: "it has left the run without a result",
    ClientState.FAILED: "it has failed, and handed in no result",
}


def why_missing(runs: RunStore, evaluation: EvaluationView, sites: Sequence[str], *, lease_s: float) -> dict[str, str]:
    """Return why these sites have no result, by what their edges say now: the timeout is one reason of several.

    `lease_s` is the lifetime of an edge's lease.
    """
    is_early = evaluation.merging_ms < evaluation.deadline_ms

    def why(state: ClientState | None, *, is_there: bool) -> str:
        if state is ClientState.REVOKED:
            return "it was revoked"
        if is_there:  # also a site whose trainer has left judges on
            return _NOT_AWAITED if is_early else _IN_TIME
        return _ENDED.get(state, _GONE) if state is not None else _GONE

    return {
        site: why(status.known_state, is_there=is_genuine(left_ms, lease_s))
        for site, (status, left_ms) in runs.clients(sites).items()
    }
