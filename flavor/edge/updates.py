"""Hands in this site's updates, again where Redis has lost them, and reads the answers on them."""

from __future__ import annotations

import functools
import secrets
from dataclasses import replace

from flavor.bus.verdicts import late
from flavor.edge.acknowledged import note_handed_in
from flavor.edge.joining import Site
from flavor.edge.notice import Notice
from flavor.edge.standing import Standing
from flavor.edge.waiting import other_try, trains_again
from flavor.records.pulse import Doing
from flavor.records.update import Refused, Update
from flavor.view.site_events import RoundMissed, UpdateForgotten, UpdateHandedIn, UpdateTurnedDown, UpdateWithheld


class Updates:
    """Hands in one update a round, and tells the site's user when it is refused."""

    def __init__(self, site: Site, standing: Standing) -> None:
        self._site, self._standing = site, standing

    def hand_in(self, round_: int, content: Update | Refused) -> bool:
        """Hand this in as a new try in this round; False when the run is no longer in the round."""
        self._site.meter.begin(round_, Doing.UPLOADED)
        return self._write(round_, replace(content, try_id=secrets.token_hex(8)))

    def refuse(self, round_: int, notice: Notice, text: str) -> None:
        """Hand in, in place of an update, the reason why it cannot be used; `text` says it to this site's user."""
        self._site.observer.hear(UpdateWithheld(text, round_))
        self.hand_in(round_, notice.refused(self._site.shared(text)))

    def repeat_if_forgotten(self, round_: int) -> None:
        """Hand in the update of the run's current round again, if Redis has lost it in a failover."""
        update = self._standing.part.update
        if update is None or update.round != round_ or update.content is None:
            return
        if not self._site.membership.has_update(round_):
            self._site.observer.hear(UpdateForgotten(round=round_))
            self._write(round_, update.content)

    def read_verdict(self, round_: int) -> None:
        """Read the answer on the newest update, if that is of this round, and tell the user of a refusal."""
        before = self._standing.part
        if before.update is None or not before.awaits_verdict(round_):
            return
        answer = self._site.membership.answer(round_)
        if answer is None:
            return
        reason = answer.reason
        part = self._standing.part = before.judged(
            accepted=answer.accepted,
            late=reason == late(round_).reason,
            blameless=answer.blameless,
            of_model=answer.of_model,
        )
        has_news = answer.accepted or answer.quarantined  # a late update after that, say, ends no quarantine
        quarantined = self._standing.quarantine(answer.quarantined) if has_news else ""
        if answer.accepted:
            return
        own = isinstance(before.update.content, Refused)
        told = [] if own else [f"the update was refused: {reason}"]  # the user was told why this edge itself refused it
        if quarantined:
            told.append(quarantined)
        elif part.refused and not before.refused:
            again = trains_again(round_, is_buffered=self._site.is_buffered)
            told.append(f"once that is mended start this again, and {again}")
        elif part.blameless and not before.blameless:
            told.append(other_try(round_, part.of_model, is_buffered=self._site.is_buffered))
        if told:
            self._site.observer.hear(UpdateTurnedDown("; ".join(told), round_))

    def _write(self, round_: int, content: Update | Refused) -> bool:
        meter = self._site.meter
        measured = functools.partial(meter.measured, round_)
        or_later = self._site.is_buffered
        if not self._site.membership.hand_in(round_, content, measured, moved=meter.moved, or_later=or_later):
            self._site.observer.hear(RoundMissed("trained too late: the run is no longer in it", round_))
            return False
        note_handed_in(self._site.config.journal, round_, self._site.config.client)
        self._standing.part = self._standing.part.handed_in(round_, content)
        self._site.observer.hear(UpdateHandedIn("the update is handed in", round_))
        return True
