"""Measures this site's part in each round, for people who look at the run: when a phase began, and what has moved."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from flavor.records.measured import MOST_PHASES, Measured, PhaseStart
from flavor.records.moved import Moved
from flavor.records.pulse import Doing

_NOTHING = Moved()


class Meter:
    """Measures one client. The edge's own thread begins phases; a transfer's thread counts what has moved.

    Times are taken by this machine's monotonic clock, and become the server's when they are told.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, moved: Moved = _NOTHING) -> None:
        """Count on from `moved`, which earlier processes of this client have moved in the run."""
        self._clock = clock
        self._round = 0
        self._starts: list[tuple[Doing, float]] = []
        self._before = moved  # what had moved when the round began
        self._told: Measured | None = None  # what was told since the last phase began
        self.moved = moved
        """What this client has moved in the run."""

    def begin(self, round_: int, doing: Doing) -> None:
        """A phase of this round begins."""
        if round_ != self._round:
            self._round, self._starts, self._before = round_, [], self.moved
        self._told = None
        self._starts = [*self._starts, (doing, self._clock())][-MOST_PHASES:]

    def received(self, size_bytes: int) -> None:
        """Objects of so many bytes were taken from the store."""
        self.moved = replace(self.moved, received_bytes=self.moved.received_bytes + size_bytes)

    def sent(self, size_bytes: int) -> None:
        """Objects of so many bytes were put into the store."""
        self.moved = replace(self.moved, sent_bytes=self.moved.sent_bytes + size_bytes)

    def measured(self, round_: int, server_ms: int) -> Measured:
        """Return what was measured in this round, of which the server's time now is `server_ms`.

        Until another phase begins, returns the same again.
        """
        if round_ != self._round:
            return Measured()
        if self._told is None:
            now = self._clock()
            starts = [PhaseStart(doing, server_ms - int((now - at) * 1000)) for doing, at in self._starts]
            self._told = Measured(starts, self.moved - self._before)
        return self._told
