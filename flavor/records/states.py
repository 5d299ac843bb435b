"""States of a run, a round and a client, and the tables of their moves.

The scripts in `flavor/bus/lua` make the moves; `tests/integration/test_moves.py` holds the tables against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class RunState(StrEnum):
    """Where a run is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def ended(self) -> bool:
        """Whether nothing moves any more."""
        return self not in (RunState.WAITING, RunState.RUNNING)


class RoundState(StrEnum):
    """Where a round is: open -> aggregating -> closed, or failed."""

    OPEN = "open"
    AGGREGATING = "aggregating"
    CLOSED = "closed"
    FAILED = "failed"


class ClientState(StrEnum):
    """Where a client is, as its edge reports it."""

    JOINED = "joined"
    """The edge is there; its trainer is not ready yet."""
    READY = "ready"
    """The trainer has set TrainInitDone."""
    LEFT = "left"
    """The trainer ended by itself, successfully."""
    FAILED = "failed"
    """The trainer or its edge ended badly."""
    STOPPED = "stopped"
    """Its edge was stopped by a signal: it is awaited for a lease time, as one that crashed."""
    REVOKED = "revoked"
    """`flavor revoke` has cut it off."""

    @property
    def gone(self) -> bool:
        """Whether nothing more will come from this client."""
        return self in (ClientState.LEFT, ClientState.FAILED, ClientState.REVOKED)


_ENDINGS = frozenset({RunState.FINISHED, RunState.FAILED, RunState.STOPPED})

RUN_MOVES: Final[Mapping[tuple[RunState, str], frozenset[RunState]]] = {
    (RunState.WAITING, "admit_client"): frozenset({RunState.WAITING}),
    (RunState.RUNNING, "admit_client"): frozenset({RunState.RUNNING}),
    (RunState.WAITING, "open_round"): frozenset({RunState.RUNNING}),
    (RunState.RUNNING, "open_round"): frozenset({RunState.RUNNING}),
    (RunState.WAITING, "end_run"): _ENDINGS,
    (RunState.RUNNING, "end_run"): _ENDINGS,
    **{(state, "resume_run"): frozenset({RunState.WAITING, RunState.RUNNING}) for state in _ENDINGS},
}
"""The states that a script of `flavor/bus/lua` can lead to from a run's state; it refuses a pair that is not listed."""

ROUND_MOVES: Final[Mapping[tuple[RoundState, str], RoundState]] = {
    (RoundState.OPEN, "reopen_round"): RoundState.OPEN,
    (RoundState.OPEN, "decide_structure"): RoundState.OPEN,
    (RoundState.OPEN, "begin_aggregation"): RoundState.AGGREGATING,
    (RoundState.AGGREGATING, "begin_aggregation"): RoundState.AGGREGATING,  # the next attempt
    (RoundState.AGGREGATING, "claim_round"): RoundState.AGGREGATING,
    (RoundState.AGGREGATING, "give_back_round"): RoundState.AGGREGATING,
    (RoundState.AGGREGATING, "fail_attempt"): RoundState.AGGREGATING,
    (RoundState.AGGREGATING, "return_round"): RoundState.OPEN,
    (RoundState.AGGREGATING, "commit_round"): RoundState.CLOSED,
}
"""The state that a script leads to from a round's state; it refuses a pair that is not listed."""

ROUND_FOLLOWS: Final[Mapping[tuple[RoundState, str], RoundState]] = {
    (RoundState.OPEN, "end_run"): RoundState.FAILED,
    (RoundState.AGGREGATING, "end_run"): RoundState.FAILED,
    (RoundState.FAILED, "resume_run"): RoundState.OPEN,
}
"""What becomes of the current round by a move of its run; a state that is not listed stays as it is."""
