"""How long a worker that cannot work for a fault of its own takes no work, or none of one run, so that others do."""

from __future__ import annotations

import time


class Rest:
    """A second after the first job that was given back, then twice as long each time, up to half a minute."""

    FIRST_S, LONGEST_S = 1.0, 30.0

    def __init__(self) -> None:
        self.reason = ""
        """Why it rests, or rested until the job that it tries now; empty while it works."""
        self._until, self._next_s = 0.0, self.FIRST_S

    def begin(self, reason: str) -> bool:
        """A job was given back; whether that is news."""
        news = reason != self.reason
        self.reason = reason
        self._until = time.monotonic() + self._next_s
        self._next_s = min(2 * self._next_s, self.LONGEST_S)
        return news

    def left_s(self) -> float:
        """How long it is not to take a job."""
        return self._until - time.monotonic() if self.reason else 0.0

    def over(self) -> bool:
        """A job was done; whether it rested before."""
        rested = bool(self.reason)
        self.reason, self._next_s = "", self.FIRST_S
        return rested
