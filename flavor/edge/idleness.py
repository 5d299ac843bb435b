"""What an edge says when its site has nothing to do for a while: so that nobody takes a wait for a fault."""

from __future__ import annotations

import time
from collections.abc import Callable

from flavor.view.observer import Observer
from flavor.view.site_events import SiteIdle, TrainerStalled

SILENT_S = 30.0
"""How long a site waits without a word."""


class Idleness:
    """Tells once, of each wait, what is waited for; once more after this process itself had stood still."""

    def __init__(self, observer: Observer, *, now: Callable[[], float] = time.monotonic) -> None:
        self._observer, self._now = observer, now
        self._what, self._kind = "", SiteIdle
        self._since = self._heard = now()
        self._told = False

    def waits_for(self, what: str, *, is_stalled: bool = False) -> None:
        """Note what is waited for now; '' for nothing. `is_stalled` if the trainer keeps its site from going on."""
        self._kind = TrainerStalled if is_stalled else SiteIdle
        now = self._now()
        stood_still = now - self._heard > SILENT_S and self._told  # the bus is asked every few seconds
        if what != self._what or stood_still:
            self._what, self._told = what, False
            self._since = now if not stood_still else self._since
        self._heard = now

    def left_s(self) -> float | None:
        """How long until that is worth a line; None for never."""
        if self._told or not self._what:
            return None
        return max(0.0, self._since + SILENT_S - self._now())

    def look(self) -> bool:
        """Say it, if it is time to; whether it was."""
        due = self.left_s() == 0.0
        if due:
            self._observer.hear(self._kind(self._what))
            self._told = True
        return due
