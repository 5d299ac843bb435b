"""The kinds of events about a run, and about its rounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from flavor.view.event import Event


@dataclass(frozen=True)
class RunCreated(Event):
    """The run is open for clients."""

    name = "run.created"
    run_id: str = ""

    @property
    def line(self) -> str:
        """See `Event`."""
        identity = f" (id {self.run_id})" if self.run_id else ""  # the run's log does not have it
        return f"{self.run_named} is open for clients{identity}{self.reason and '; '}{self.reason}"


@dataclass(frozen=True)
class RunResumed(Event):
    """The run goes on after its end."""

    name = "run.resumed"


@dataclass(frozen=True)
class RunRecovered(Event):
    """The run was rebuilt from the store."""

    name = "run.recovered"


@dataclass(frozen=True)
class RunWaiting(Event):
    """The run waits between rounds."""

    name = "run.waiting"

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"waiting: {self.reason}"


@dataclass(frozen=True)
class RunEnded(Event):
    """The run has ended: it is finished, has failed or was stopped."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"{self.run_named} is {self.name.removeprefix('run.')}: {self.reason}"


@dataclass(frozen=True)
class RunFinished(RunEnded):
    """The run has closed all its rounds, or ended early because its training scripts have ended."""

    name = "run.finished"


@dataclass(frozen=True)
class RunFailed(RunEnded):
    """The run cannot go on."""

    name = "run.failed"


@dataclass(frozen=True)
class RunStopped(RunEnded):
    """An operator has stopped the run."""

    name = "run.stopped"


@dataclass(frozen=True)
class RoundEvent(Event):
    """An event about one round."""

    round: int | None = None
    names_round: bool = field(default=True, kw_only=True)
    """Whether the line names the round, because the reason does not."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"round {self.round}: {self.reason}" if self.names_round else self.reason


@dataclass(frozen=True)
class RoundOpened(RoundEvent):
    """The round is open: its clients have their task."""

    name = "round.opened"
    rounds: int = 0
    """How many rounds the run has; 0 where that is not known."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"round {self.round} of {self.rounds}: {self.reason}" if self.rounds else super().line


@dataclass(frozen=True)
class RoundReopened(RoundEvent):
    """A round that had lost its quorum is open again, with a new deadline."""

    name = "round.reopened"


@dataclass(frozen=True)
class RoundWaiting(RoundEvent):
    """The round waits."""

    name = "round.waiting"

    @property
    def line(self) -> str:
        """See `Event`."""
        return super().line if self.names_round else f"waiting: {self.reason}"


@dataclass(frozen=True)
class StructureDecided(RoundEvent):
    """In a round that began from no model, the coordinator has decided which tensors an update has."""

    name = "round.structure"
    others: tuple[str, ...] = ()
    """Clients whose acceptance was taken back."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"{super().line}: {', '.join(self.others)}" if self.others else super().line


@dataclass(frozen=True)
class AggregationBegun(RoundEvent):
    """An attempt to aggregate the round is in the aggregators' queue."""

    name = "round.aggregating"


@dataclass(frozen=True)
class AttemptFailed(RoundEvent):
    """An attempt has failed; the coordinator decides how the round goes on."""

    name = "round.attempt_failed"
    attempt: int = 0
    """The number of the attempt in its round; 0 where that is not known."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"round {self.round}, attempt {self.attempt}: {self.reason}" if self.attempt else super().line


@dataclass(frozen=True)
class AttemptGivenBack(RoundEvent):
    """An aggregator has given an attempt back, so that another one can make it."""

    name = "round.given_back"


@dataclass(frozen=True)
class RoundReturned(RoundEvent):
    """Too few updates were left in the aggregation: the round is open again."""

    name = "round.returned"

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"{self.reason}; the round is open again"


@dataclass(frozen=True)
class RoundNote(RoundEvent):
    """A note of the aggregator or the coordinator about the round, for its operator."""

    name = "round.note"


@dataclass(frozen=True)
class RoundClosed(RoundEvent):
    """The round has its global model."""

    name = "round.closed"


@dataclass(frozen=True)
class RunBest(RoundEvent):
    """The model of the round is the best so far, by the run's `--select`."""

    name = "run.best"


@dataclass(frozen=True)
class AggregatorRestarted(RoundEvent):
    """The process of a user's own aggregator was started again."""

    name = "aggregator.restarted"
