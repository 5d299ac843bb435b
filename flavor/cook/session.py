"""What a script is to its edge: the events that it can set and wait for, and the round that it is in."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Protocol

from flavor.bus.variables import PATIENCE_S, PATIENCE_VARIABLE, RELAY_VARIABLE
from flavor.errors import InvalidSetting, MissingVariable
from flavor.records.names import Event


class ScriptEvents(Protocol):
    """The events of one client of one run, as its script sees them: in Redis, or through its edge.

    `flavor.bus.events.ClientEvents` and `flavor.cook.relayed.RelayedEvents` say what each method raises.
    """

    marks_files: bool
    """Whether the script itself marks its files when it sets TrainFinished."""

    def set(self, event: Event, round_: int) -> None:
        """Record that the event has happened in this round."""

    def clean(self, event: Event, round_: int) -> None:
        """Forget that the event has happened in this round."""

    def is_set(self, event: Event, round_: int) -> bool:
        """Whether the event has happened in this round."""

    def newest_started(self) -> int:
        """The newest round that was started for this client; 0 before the first."""

    def wait_started(self, after: int, *, timeout_s: float | None = None) -> int:
        """Wait for a round newer than `after`, and take it up."""

    def take(self, round_: int) -> None:
        """Record that the script works on this round."""

    def taken(self) -> int:
        """The newest round that the script has taken up; 0 before the first."""

    def left_s(self, round_: int) -> float | None:
        """The seconds to the deadline of this round; None where no deadline holds."""

    def close(self) -> None:
        """Close what this object holds."""


def is_started_anew() -> bool:
    """Whether this is an aggregator that is started anew in each round: it has no bus."""
    return os.environ.get("FLAVOR_ROLE") == "aggregator" and not os.environ.get("FLAVOR_REDIS_URL")


def is_evaluator() -> bool:
    """Whether this is an evaluator, which has no bus: its end says that it is done."""
    return os.environ.get("FLAVOR_ROLE") == "evaluator"


def no_events(what: str) -> InvalidSetting:
    """Return the error for a script that has no events."""
    if is_evaluator():
        return InvalidSetting(
            f"{what}: an evaluator is run once for each model and has no events: leave them out, and exit with code 0; "
            'if it imports your training script, put the loop of that script under if __name__ == "__main__":'
        )
    return InvalidSetting(
        f"{what}: an aggregator that is started anew in each round has no events: leave them out, or pass --init-once"
    )


def variable(name: str) -> str:
    """Return the value of a variable that the edge of a script sets. Raises `MissingVariable`."""
    value = os.environ.get(name)
    if not value:
        of_slurm = "; Slurm passes it on to a job with --export=ALL" if os.environ.get("SLURM_JOB_ID") else ""
        raise MissingVariable(
            f"the environment variable {name} is not set: run this script through `flavor-fl -m`, `flavor run -m` or "
            f"`check-fl -m`, which set it{of_slurm}"
        )
    return value


def start_event() -> Event:
    """The event that begins a round for this script."""
    aggregates = os.environ.get("FLAVOR_ROLE") == "aggregator"
    return Event.AGGREGATE_STARTED if aggregates else Event.TRAIN_STARTED


def _patience_s() -> float:
    """How long this script waits for a Redis that is away: as long as the edge that has started it."""
    given = os.environ.get(PATIENCE_VARIABLE)
    try:
        patience_s = float(given) if given else PATIENCE_S
    except ValueError:
        patience_s = math.nan
    if not patience_s >= 0:
        raise InvalidSetting(f"{PATIENCE_VARIABLE} must be seconds, 0 or more, and is {given!r}")
    return patience_s


def _events(starts: Event) -> ScriptEvents:
    """Connect to Redis, or to the edge through files where the edge has named a folder for that."""
    if folder := os.environ.get(RELAY_VARIABLE):
        from flavor.cook.relayed import RelayedEvents

        return RelayedEvents(Path(folder), variable("FLAVOR_CLIENT"))
    from flavor.bus.address import from_environment
    from flavor.bus.events import ClientEvents

    return ClientEvents(
        from_environment(os.environ, variable("FLAVOR_REDIS_URL")),
        variable("FLAVOR_RUN"),
        variable("FLAVOR_CLIENT"),
        edge=os.environ.get("FLAVOR_EDGE", ""),
        starts=starts,
        patience_s=_patience_s(),
    )


class Session:
    """The connection of this process, and the round that it is in (None before the first wait)."""

    _instance: Session | None = None

    def __init__(self, parent: Session | None = None) -> None:
        self.pid = os.getpid()
        self.round: int | None = parent.round if parent else None
        self._waited: bool = parent is not None and parent._waited  # for this round; else IsSetEvent has found it
        aggregates = start_event() is Event.AGGREGATE_STARTED
        self.starts = start_event()
        self.finishes = (Event.AGGREGATE_FINISHED, Event.PROCESS_FINISHED) if aggregates else (Event.TRAIN_FINISHED,)
        self.events = _events(self.starts)

    @classmethod
    def current(cls) -> Session:
        """The session of this process; a fork gets its own connection and keeps the round."""
        if is_started_anew() or is_evaluator():
            raise no_events("events")
        if cls._instance is None or cls._instance.pid != os.getpid():
            cls._instance = cls(cls._instance)
        return cls._instance

    def enter(self, round_: int, *, waited: bool = True) -> int:
        """Be in this round from now on."""
        self.round, self._waited = round_, waited
        return round_

    def round_of(self, event: Event) -> int:
        """The round that an event set or read now belongs to."""
        if self.round is None:
            return 0 if event is Event.TRAIN_INIT_DONE else self.events.newest_started()
        return 0 if event is Event.TRAIN_INIT_DONE else self.round

    def behind(self) -> int:
        """The newest round that this script has finished.

        A process that has waited for a round knows it. One that has not (of a script that starts a process for each
        step, or that asks by `IsSetEvent`) reads it from Redis.
        """
        if self.round is not None and self._waited:
            return self.round
        started = self.round or self.events.newest_started()
        finished = started and any(self.events.is_set(event, started) for event in self.finishes)
        return started if finished else max(0, started - 1)
