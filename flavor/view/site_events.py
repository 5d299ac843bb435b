"""What happens at a site: an edge gives these events to its observer. None of them is in the run's log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from flavor.durations import shown_duration
from flavor.sizes import shown_progress
from flavor.view.event import Event


@dataclass(frozen=True)
class SiteEvent(Event):
    """Something that happens at one site."""


# -- the run


@dataclass(frozen=True)
class RunAwaited(SiteEvent):
    """The run is not there yet, or has ended and may go on."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"waiting for run {self.run!r}: {self.reason}"


@dataclass(frozen=True)
class RunJoining(SiteEvent):
    """The edge joins the run; its coordinator has not answered yet."""

    rounds: str = ""
    """How many rounds the run has, with the noun."""
    run_id: str = ""
    client: str = ""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"joining run {self.run!r} ({self.rounds}, id {self.run_id}) as {self.client!r}, {self.reason}"


@dataclass(frozen=True)
class RunJoined(SiteEvent):
    """The coordinator has admitted the client."""

    reason: str = ""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"joined run {self.run!r}"


@dataclass(frozen=True)
class RunJoinedAgain(SiteEvent):
    """The run was rebuilt from the store; the edge joins it again."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"{self.reason}: joining it again"


@dataclass(frozen=True)
class RunOver(SiteEvent):
    """The run has finished, and the final global model is in its place."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"run {self.run!r} is finished; {self.reason}"


@dataclass(frozen=True)
class JudgesAfterEnd(SiteEvent):
    """The run is over, and this site, which only judges models, stays or leaves."""

    leaves: bool = False

    @property
    def line(self) -> str:
        """See `Event`."""
        over = f"run {self.run!r} is {self.reason}"
        if self.leaves:
            return over
        return (
            f"{over}; this site stays, so that the operator can still have models judged here: Ctrl-C ends it "
            "(--until-end ends it with the run)"
        )


# -- the trainer


@dataclass(frozen=True)
class PreprocessBegun(SiteEvent):
    """The preprocess command has started."""

    reason: str = "preprocessing"


@dataclass(frozen=True)
class TrainerAwaited(SiteEvent):
    """The trainer has not set TrainInitDone for `seconds` seconds."""

    seconds: float = 0.0

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"waiting for the trainer to call SetEvent('TrainInitDone'), for {self.seconds:.0f} s now: {self.reason}"


@dataclass(frozen=True)
class TrainerLeft(SiteEvent):
    """The trainer has ended by itself, successfully."""


@dataclass(frozen=True)
class TrainerStopped(SiteEvent):
    """The trainer did not end with the run, and is stopped."""


@dataclass(frozen=True)
class SiteQuarantined(SiteEvent):
    """The run gives this site no tasks until its operator pardons the site."""


@dataclass(frozen=True)
class QuarantineEnded(SiteEvent):
    """The run's operator has pardoned this site."""


# -- waits


@dataclass(frozen=True)
class SiteIdle(SiteEvent):
    """The site has had nothing to do for a while; the reason says what it waits for."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"waiting for {self.reason}"


@dataclass(frozen=True)
class TrainerStalled(SiteIdle):
    """The trainer waits for the next round and has not finished the one that it is in."""

    blocks: ClassVar[bool] = True


@dataclass(frozen=True)
class StoreAwaited(SiteEvent):
    """A transfer waits for the store, or for room in it."""

    blocks: ClassVar[bool] = True
    what: str = field(default="the store", kw_only=True)
    patience_s: float = field(default=0.0, kw_only=True)

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"waiting for {self.what}, for at most {shown_duration(self.patience_s)}: {self.reason}"


@dataclass(frozen=True)
class StoreBack(SiteEvent):
    """The transfer goes on."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"{self.reason}: going on"


@dataclass(frozen=True)
class TransferAwaited(SiteEvent):
    """An earlier transfer, which was given up, has not ended; the next one waits for its end."""

    blocks: ClassVar[bool] = True
    reason: str = "waiting for an earlier transfer to end: the disk or the store does not answer it"


@dataclass(frozen=True)
class TransferMoved(SiteEvent):
    """How far a transfer is. The reason is its phase."""

    done_bytes: int = 0
    total_bytes: int = 0
    bytes_s: int | None = None

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"{self.reason} {shown_progress(self.done_bytes, self.total_bytes, self.bytes_s)}"


# -- rounds


@dataclass(frozen=True)
class SiteRoundEvent(SiteEvent):
    """Something about the site's part in one round."""

    round: int = 0

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"round {self.round}: {self.reason}"


@dataclass(frozen=True)
class TaskBegun(SiteRoundEvent):
    """The trainer was given the task of the round."""

    is_routine: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class TrainedAgain(SiteRoundEvent):
    """The update of an earlier process of this client was refused, and the round is still open."""


@dataclass(frozen=True)
class TrainedBefore(SiteRoundEvent):
    """An earlier process of this client had the round trained, and did not hand in the update."""

    reason: str = "trained before: handing it in"

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"round {self.round} was {self.reason}"


@dataclass(frozen=True)
class RoundMissed(SiteRoundEvent):
    """The site trained the round, and the run is no longer in it."""


@dataclass(frozen=True)
class ModelUnread(SiteRoundEvent):
    """The trainer did not read the global model."""


@dataclass(frozen=True)
class UpdateHandedIn(SiteRoundEvent):
    """Redis has acknowledged the update."""

    is_routine: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class UpdateForgotten(SiteRoundEvent):
    """Redis has lost the update in a failover; the edge hands it in again."""

    reason: str = "handing it in again"

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"Redis has forgotten the update of round {self.round}: {self.reason}"


@dataclass(frozen=True)
class UpdateWithheld(SiteRoundEvent):
    """What the trainer saved cannot be used; the edge hands in the reason instead."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"round {self.round}: the update cannot be used: {self.reason}"


_OF_NO_ROUND = "a model that no round has made"


@dataclass(frozen=True)
class SiteEvaluationEvent(SiteRoundEvent):
    """Something about the site's part in the evaluation of a round's model, or, in round 0, of another one."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return super().line if self.round else f"{_OF_NO_ROUND}: {self.reason}"


@dataclass(frozen=True)
class EvaluationBegun(SiteEvaluationEvent):
    """The evaluator judges the model that the round has made."""


@dataclass(frozen=True)
class EvaluationMissed(SiteEvaluationEvent):
    """The evaluation is over before this site has a result."""


@dataclass(frozen=True)
class ResultHandedIn(SiteEvaluationEvent):
    """Redis has acknowledged the result of an evaluation."""


@dataclass(frozen=True)
class ResultForgotten(SiteEvaluationEvent):
    """Redis has lost the result of an evaluation in a failover; the edge hands it in again."""

    reason: str = "handing it in again"

    @property
    def line(self) -> str:
        """See `Event`."""
        of = f"the model of round {self.round}" if self.round else _OF_NO_ROUND
        return f"Redis has forgotten the result of {of}: {self.reason}"


@dataclass(frozen=True)
class ResultWithheld(SiteEvaluationEvent):
    """The evaluator has no result; the edge hands in the reason instead."""

    @property
    def line(self) -> str:
        """See `Event`."""
        of = f"round {self.round}: its global model" if self.round else _OF_NO_ROUND
        return f"{of} could not be judged: {self.reason}"


@dataclass(frozen=True)
class UpdateTurnedDown(SiteRoundEvent):
    """An aggregator has refused the update."""
