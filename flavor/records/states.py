"""States of a run, a round and a client."""

from __future__ import annotations

from enum import StrEnum


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
