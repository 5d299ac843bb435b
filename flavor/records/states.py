"""States of a run, a round and a client, and the tables of their moves.

The scripts in `flavor/bus/lua` make the moves; `tests/integration/test_moves.py` compares the tables with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class RunState(StrEnum):
    """State of a run."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self not in (RunState.WAITING, RunState.RUNNING)

    @property
    def is_now(self) -> str:
        """The state in a sentence: "is running", "has failed"."""
        return f"has {self}" if self is RunState.FAILED else f"is {self}"


class RoundState(StrEnum):
    """State of a round: open -> aggregating -> closed, or failed."""

    OPEN = "open"
    AGGREGATING = "aggregating"
    CLOSED = "closed"
    FAILED = "failed"


class EvaluationState(StrEnum):
    """State of an evaluation: open -> merging -> closed, or failed."""

    OPEN = "open"
    MERGING = "merging"
    CLOSED = "closed"
    FAILED = "failed"


class ClientState(StrEnum):
    """State of a client, as its edge reports it."""

    JOINED = "joined"
    """The edge has joined; its trainer is not ready yet."""
    READY = "ready"
    """The trainer has set TrainInitDone."""
    LEFT = "left"
    """The trainer has ended with success."""
    FAILED = "failed"
    """The trainer or its edge has failed."""
    STOPPED = "stopped"
    """A signal has stopped the edge: the round waits for it for a lease time, as for one that crashed."""
    REVOKED = "revoked"
    """`flavor revoke` has removed the client's access."""

    @property
    def gone(self) -> bool:
        """Whether the client has ended for good."""
        return self in (ClientState.LEFT, ClientState.FAILED, ClientState.REVOKED)


_ENDINGS = frozenset({RunState.FINISHED, RunState.FAILED, RunState.STOPPED})

RUN_MOVES: Final[Mapping[tuple[RunState, str], frozenset[RunState]]] = {
    **{(state, "admit_client"): frozenset({state}) for state in RunState},
    (RunState.WAITING, "open_round"): frozenset({RunState.RUNNING}),
    (RunState.RUNNING, "open_round"): frozenset({RunState.RUNNING}),
    (RunState.WAITING, "end_run"): _ENDINGS,
    (RunState.RUNNING, "end_run"): _ENDINGS,
    **{(state, "resume_run"): frozenset({RunState.WAITING, RunState.RUNNING}) for state in _ENDINGS},
}
"""Next states of a run by its state and a script of `flavor/bus/lua`. The script refuses a pair that is not listed."""

ROUND_MOVES: Final[Mapping[tuple[RoundState, str], RoundState]] = {
    (RoundState.OPEN, "reopen_round"): RoundState.OPEN,
    (RoundState.OPEN, "join_round"): RoundState.OPEN,
    (RoundState.OPEN, "decide_structure"): RoundState.OPEN,
    (RoundState.OPEN, "begin_aggregation"): RoundState.AGGREGATING,
    (RoundState.AGGREGATING, "begin_aggregation"): RoundState.AGGREGATING,  # the next attempt
    (RoundState.AGGREGATING, "claim_round"): RoundState.AGGREGATING,
    (RoundState.AGGREGATING, "give_back_round"): RoundState.AGGREGATING,
    (RoundState.AGGREGATING, "fail_attempt"): RoundState.AGGREGATING,
    (RoundState.AGGREGATING, "return_round"): RoundState.OPEN,
    (RoundState.AGGREGATING, "commit_round"): RoundState.CLOSED,
}
"""Next state of a round by its state and a script. The script refuses a pair that is not listed."""

ROUND_FOLLOWS: Final[Mapping[tuple[RoundState, str], RoundState]] = {
    (RoundState.OPEN, "end_run"): RoundState.FAILED,
    (RoundState.AGGREGATING, "end_run"): RoundState.FAILED,
    (RoundState.FAILED, "resume_run"): RoundState.OPEN,
}
"""Next state of the current round by its state and a move of its run. A state that is not listed stays."""

EVALUATION_MOVES: Final[Mapping[tuple[EvaluationState, str], EvaluationState]] = {
    (EvaluationState.OPEN, "begin_merge"): EvaluationState.MERGING,
    (EvaluationState.MERGING, "begin_merge"): EvaluationState.MERGING,  # the next attempt
    (EvaluationState.MERGING, "fail_merge"): EvaluationState.MERGING,
    (EvaluationState.MERGING, "commit_evaluation"): EvaluationState.CLOSED,
    (EvaluationState.OPEN, "give_up_evaluation"): EvaluationState.FAILED,
    (EvaluationState.MERGING, "give_up_evaluation"): EvaluationState.FAILED,
}
"""Next state of an evaluation by its state and a script. The script refuses a pair that is not listed."""
