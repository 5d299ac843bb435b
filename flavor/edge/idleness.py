"""Says what a site waits for when it has had nothing to do for a while, so that its user takes no wait for a fault."""

from __future__ import annotations

import time
from collections.abc import Callable

from flavor.view.observer import Observer
from flavor.view.site_events import SiteIdle, TrainerStalled

SILENT_S = 30.0
"""How long a site waits before it says so."""
STALLED_S = 2.0
"""The same for a trainer that keeps its site from going on: another process of it may set TrainFinished by then."""


class Idleness:
    """Tells once of each wait what the site waits for; once more after this process was paused for so long."""

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
        """Seconds until the wait has to be told; None where it has been told, or there is no wait."""
        if self._told or not self._what:
            return None
        silent_s = min(STALLED_S, SILENT_S) if self._kind is TrainerStalled else SILENT_S
        return max(0.0, self._since + silent_s - self._now())

    def look(self) -> bool:
        """Tell of the wait if it is time to; returns whether it was."""
        due = self.left_s() == 0.0
        if due:
            self._observer.hear(self._kind(self._what))
            self._told = True
        return due
