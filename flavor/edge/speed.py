"""How fast a transfer moves now, for people who wait for it."""

from __future__ import annotations

from collections import deque

from flavor.watch import Progress

WINDOW_S = 10.0
"""The speed is the mean of this time: shorter ones jump with each part, longer ones hide that a link stands still."""
_LEAST_S = 1.0


class Speed:
    """Measures the speed of one transfer after the other."""

    def __init__(self) -> None:
        self._since_ms = 0
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, progress: Progress, now_s: float) -> int | None:
        """Return bytes per second up to `now_s`, of a clock that never goes back; None in the first second.

        Bytes that were moved by an earlier process do not count, and neither do bytes that have to be sent again.
        """
        if progress.since_ms != self._since_ms:
            self._since_ms = progress.since_ms
            self._seen.clear()
        self._seen.append((now_s, progress.done))
        while len(self._seen) > 2 and now_s - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        began_s, before = self._seen[0]
        if now_s - began_s < _LEAST_S:
            return None
        return max(0, round((progress.done - before) / (now_s - began_s)))
