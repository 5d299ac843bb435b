"""Shares the last lines of the training script's output with the run's operator, if the site's user says so."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from flavor.edge.membership import Membership
from flavor.programs.process import shortened
from flavor.records.names import MOST_LOG_BYTES

EVERY_S = 5.0
"""Seconds between two writes, at least."""
_LONGEST_LINE = 1000


def bounded(lines: Sequence[str], most: int) -> str:
    """Return the last of these lines as one text: at most `most`, in `MOST_LOG_BYTES`. Long lines lack their middle."""
    kept: list[str] = []
    left = MOST_LOG_BYTES
    for line in reversed(lines[-most:] if most else []):
        cut = shortened(line, _LONGEST_LINE)
        left -= len(cut.encode("utf-8", "replace")) + 1
        if left < 0:
            break
        kept.append(cut)
    return "\n".join(reversed(kept))


class SharedLog:
    """Writes the last `most` lines into a key of the client's own; with 0, removes what an earlier process wrote there.

    `read` returns the last lines of the script.
    """

    def __init__(
        self,
        membership: Membership,
        read: Callable[[], Sequence[str]],
        *,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._membership, self._read, self._most, self._clock = membership, read, most, clock
        self._due = clock()
        self._told: str | None = None
        self._fails = False  # the last write went wrong, or is not over

    def look(self) -> None:
        """Write the lines if there are new ones, unless the last write was a few seconds ago."""
        if self._clock() >= self._due:
            self._tell()

    def end(self) -> None:
        """Write the script's last lines at the end of the edge; not where the last write went wrong."""
        if not self._fails:
            with contextlib.suppress(Exception):  # the edge ends
                self._tell()

    def _tell(self) -> None:
        text = bounded(self._read(), self._most)
        if text == self._told:
            return
        self._due, self._fails = self._clock() + EVERY_S, True
        self._membership.share_log(text)
        self._told, self._fails = text, False
