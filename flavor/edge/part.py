"""This site's part in its run: its trainer's phase, the rounds that are behind it, and what became of its update.

`Part` is a value: each move returns a new one, and `MOVES` lists the legal moves. Nothing here knows Redis, a process
or a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from flavor.errors import IllegalMove
from flavor.records.objects import ObjectRef
from flavor.records.update import Refused, Update
from flavor.records.verdict import OfModel


class Phase(StrEnum):
    """What the site's trainer does at present."""

    STARTING = "starting"
    """It has not started, or has not set TrainInitDone yet."""
    IDLE = "idle"
    """It waits for the next round that this site takes part in."""
    WORKING = "working"
    """It was given the task of a round, and has not finished it."""
    LEFT = "left"
    """It ended by itself, successfully."""


class Move(StrEnum):
    """A change of the phase, or of the rounds that are behind the site."""

    GET_READY = "get ready"
    BEGIN = "begin"
    FINISH = "finish"
    SKIP = "skip"
    LEAVE = "leave"


MOVES: Final[Mapping[tuple[Phase, Move], Phase]] = {
    (Phase.STARTING, Move.GET_READY): Phase.IDLE,
    (Phase.STARTING, Move.FINISH): Phase.STARTING,  # an earlier process's trainer did: its files are handed in
    (Phase.STARTING, Move.LEAVE): Phase.LEFT,
    (Phase.IDLE, Move.BEGIN): Phase.WORKING,
    (Phase.IDLE, Move.SKIP): Phase.IDLE,
    (Phase.IDLE, Move.LEAVE): Phase.LEFT,
    (Phase.WORKING, Move.FINISH): Phase.IDLE,
    (Phase.WORKING, Move.LEAVE): Phase.LEFT,  # the round was opened while the trainer was ending
}
"""The phase that follows a phase by a move; a pair that is not listed raises `IllegalMove`."""


class Judgement(StrEnum):
    """The answer on the update that the site handed in last."""

    AWAITED = "awaited"
    """An aggregator has yet to inspect it."""
    WITHHELD = "withheld"
    """The edge itself refused what the trainer saved, and handed in the reason in place of an update."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    """The site can train the round again: it is open, and the update was not late."""
    BLAMELESS = "blameless"
    """It was refused for what is no fault of the site, such as a global model that cannot be trained."""
    OVER = "over"
    """It was refused, and no other try can follow."""


@dataclass(frozen=True)
class HandedIn:
    """The update of one round, as it was handed in last."""

    round: int
    content: Update | Refused | None = None
    """None when an earlier process of this client handed it in."""
    judgement: Judgement = Judgement.AWAITED
    of_model: OfModel = OfModel.NO
    """Whether the global model is to blame for its refusal."""


@dataclass(frozen=True)
class Part:
    """This site's part in its run."""

    phase: Phase = Phase.STARTING
    round: int = 0
    """The round that the trainer works on; 0 in every phase but `WORKING`."""
    newest: int = 0
    """The newest round that the run is in, as far as this site was told."""
    behind: int = 0
    """The newest round that is behind this site: handed in, refused or missed."""
    base: ObjectRef | None = None
    """The global model that the trainer was given last; None for none."""
    update: HandedIn | None = None
    """The newest update; None before the first."""
    unfinished: int = 0
    """The round that the trainer left without TrainFinished when it began to wait for the next one; 0 for none."""

    # -- derived

    @property
    def is_ready(self) -> bool:
        """Whether the trainer has set TrainInitDone."""
        return self.phase in (Phase.IDLE, Phase.WORKING)

    @property
    def has_left(self) -> bool:
        """Whether the trainer has ended by itself."""
        return self.phase is Phase.LEFT

    @property
    def may_begin(self) -> bool:
        """Whether the trainer is free, and the newest round is not behind this site."""
        return self.phase is Phase.IDLE and self.newest > self.behind

    @property
    def stalled(self) -> int:
        """The trainer's round, if the trainer waits for the next one without having finished this one; 0 if not."""
        return self.round if self.round == self.unfinished else 0

    @property
    def unjudged(self) -> int:
        """The round of an update that an aggregator has yet to inspect; 0 for none."""
        return self.update.round if self.update and self.update.judgement is Judgement.AWAITED else 0

    @property
    def refused(self) -> int:
        """The round of a refused update, while the site can train that round again; 0 for none."""
        return self.update.round if self.update and self.update.judgement is Judgement.REFUSED else 0

    @property
    def blameless(self) -> int:
        """The round of an update that was refused for what is no fault of this site; 0 for none."""
        return self.update.round if self.update and self.update.judgement is Judgement.BLAMELESS else 0

    @property
    def of_model(self) -> OfModel:
        """Whether the global model is to blame for the refusal of the newest update."""
        return self.update.of_model if self.update else OfModel.NO

    def awaits_verdict(self, round_: int) -> bool:
        """Whether a verdict of this round is about the newest update; one that was accepted may be undone."""
        return self.update is not None and self.update.round == round_

    # -- moves of the trainer

    def got_ready(self) -> Part:
        """The trainer has set TrainInitDone."""
        return self._moved(Move.GET_READY)

    def began(self, round_: int, *, base: ObjectRef | None) -> Part:
        """The trainer was given the task of this round, and this global model."""
        return self._moved(Move.BEGIN, round=round_, base=base, unfinished=0)

    def finished(self, round_: int) -> Part:
        """The trainer has finished this round, whether or not an update can be handed in."""
        if self.round not in (0, round_):
            raise IllegalMove(f"the trainer is in round {self.round}, and not in round {round_}")
        return self._moved(Move.FINISH, round=0, behind=round_)

    def skipped(self, round_: int) -> Part:
        """The round went on without this site before the trainer was given its task."""
        return self._moved(Move.SKIP, behind=round_)

    def left(self) -> Part:
        """The trainer has ended by itself, successfully."""
        return self._moved(Move.LEAVE, round=0)

    # -- news of the rounds

    def heard_of(self, round_: int) -> Part:
        """The run is in this round, or in a later one that the site has heard of before."""
        return replace(self, newest=max(self.newest, round_))

    def waits_without_finishing(self, round_: int) -> Part:
        """The trainer waits for the next round without having finished this one; 0 for none."""
        return replace(self, unfinished=round_)

    # -- news of the update

    def handed_in(self, round_: int, content: Update | Refused) -> Part:
        """The update of this round lies in Redis, or the reason why the site has none."""
        judgement = Judgement.WITHHELD if isinstance(content, Refused) else Judgement.AWAITED
        return replace(self, update=HandedIn(round_, content, judgement))

    def judged(
        self, *, accepted: bool, late: bool = False, blameless: bool = False, of_model: OfModel = OfModel.NO
    ) -> Part:
        """An aggregator has accepted the newest update or refused it, which is `late` when its round was over."""
        assert self.update is not None
        if accepted:
            judgement = Judgement.ACCEPTED
        elif self.refused:
            judgement = Judgement.REFUSED
        elif blameless:
            judgement = Judgement.BLAMELESS
        else:
            judgement = Judgement.OVER if late or self.newest > self.update.round else Judgement.REFUSED
        return replace(self, update=replace(self.update, judgement=judgement, of_model=of_model))

    def _moved(self, move: Move, **changes: Any) -> Part:
        phase = MOVES.get((self.phase, move))
        if phase is None:
            raise IllegalMove(f"the site's trainer cannot {move}: it is {self.phase}")
        return replace(self, phase=phase, **changes)
