"""This site's updates on the bus: handed in, handed in again where Redis forgot them, and answered by verdicts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from flavor.bus.runs import late
from flavor.edge.acknowledged import note_handed_in
from flavor.edge.joining import Site
from flavor.edge.notice import Notice
from flavor.edge.standing import Standing


class Updates:
    """Hands in one update a round, and tells the site's user what became of it."""

    def __init__(self, site: Site, standing: Standing) -> None:
        self._site, self._standing = site, standing

    def hand_in(self, round_: int, fields: Mapping[str, str]) -> bool:
        """Hand in a try of this round's update with these fields; False when the run is no longer in the round."""
        return self._write(round_, {**fields, "try": secrets.token_hex(8)})

    def refuse(self, round_: int, notice: Notice, text: str) -> None:
        """Say, in place of an update, that there is none that can be used; `text` is for this site."""
        self._site.tell(f"round {round_}: the update cannot be used: {text}")
        self.hand_in(round_, {"refused": notice.reason, **notice.fields(self._site.shared(text))})

    def repeat_if_forgotten(self, round_: int) -> None:
        """Write the update of the run's current round again, if Redis has lost it in a failover."""
        update = self._standing.part.update
        if update is None or update.round != round_ or not update.fields:
            return
        if not self._site.membership.has_update(round_):
            self._site.tell(f"Redis has forgotten the update of round {round_}: handing it in again")
            self._write(round_, update.fields)

    def read_verdict(self, round_: int) -> None:
        """Take note of what an aggregator found of the newest update, if that is of this round; tell of a refusal."""
        before = self._standing.part
        if before.update is None or not before.awaits_verdict(round_):
            return
        verdict = self._site.membership.verdict(round_)
        if not verdict:
            return
        accepted, reason = verdict.get("accepted") == "1", verdict.get("reason", "")
        part = self._standing.part = before.judged(accepted=accepted, late=reason == late(round_).reason)
        if accepted:
            return
        own = "refused" in before.update.fields
        told = [] if own else [f"the update was refused: {reason}"]  # why this edge itself refused it was told already
        if part.refused and not before.refused:
            told.append(f"once that is mended start this again, and it trains round {round_} again while that is open")
        if told:
            self._site.tell(f"round {round_}: {'; '.join(told)}")

    def _write(self, round_: int, fields: Mapping[str, str]) -> bool:
        if not self._site.membership.hand_in(round_, fields):
            self._site.tell(f"round {round_}: trained too late: the run is no longer in it")
            return False
        note_handed_in(round_, self._site.config.client)
        self._standing.part = self._standing.part.handed_in(round_, fields)
        return True
