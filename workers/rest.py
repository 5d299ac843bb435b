"""Pause a worker after a fault of its own, for all runs or for one, so that other workers take the jobs."""

from __future__ import annotations

import time


class Rest:
    """One second after the first job that was given back, then twice as long each time, up to half a minute."""

    FIRST_S, LONGEST_S = 1.0, 30.0

    def __init__(self) -> None:
        self.reason = ""
        """Why the worker rests, or rested until the job that it tries now; empty while it works."""
        self._until, self._next_s = 0.0, self.FIRST_S

    def begin(self, reason: str) -> bool:
        """Record that a job was given back; return whether the reason is new."""
        news = reason != self.reason
        self.reason = reason
        self._until = time.monotonic() + self._next_s
        self._next_s = min(2 * self._next_s, self.LONGEST_S)
        return news

    def left_s(self) -> float:
        """Return the seconds for which the worker takes no job."""
        return self._until - time.monotonic() if self.reason else 0.0

    def over(self) -> bool:
        """Record that a job was done; return whether the worker rested before."""
        rested = bool(self.reason)
        self.reason, self._next_s = "", self.FIRST_S
        return rested
