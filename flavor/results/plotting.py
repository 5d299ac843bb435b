"""Draws `metrics.png` anew while a run goes on, in a thread of its own.

Drawing takes seconds. If the thread that writes the result folder did it, rounds could close and be pruned in that
time, and what their sites reported could not be read any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from flavor.results.plot import Plotted, plot_metrics

_FIRST_S = 10.0
_SHARE = 20
"""The plot is drawn again after twenty times as long as drawing took, so that drawing takes 5 % of the time."""


class Plotting:
    """The plot of one result folder."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        """`tell` gets each reason why the plot cannot be drawn once."""
        self._path, self._tell = path, tell
        self._told: set[str] = set()
        self._due_at = time.monotonic() + _FIRST_S
        self._thread: threading.Thread | None = None

    @property
    def has_failed(self) -> bool:
        """Whether a reason was told why there is no plot, or an old one."""
        return bool(self._told)

    def draw_when_due(self, plotted: Plotted) -> None:
        """Begin to draw, if the last drawing has ended and was long enough ago. `plotted` may not change afterwards."""
        if (self._thread is not None and self._thread.is_alive()) or time.monotonic() < self._due_at:
            return
        self._thread = threading.Thread(target=self._draw, args=(plotted,), name="plot", daemon=True)
        self._thread.start()

    def draw(self, plotted: Plotted) -> None:
        """Draw, after the drawing that is under way."""
        if self._thread is not None:
            self._thread.join()
        self._draw(plotted)

    def _draw(self, plotted: Plotted) -> None:
        began = time.monotonic()
        try:
            plot_metrics(plotted, self._path)
        except Exception as error:  # of a library that draws what sites named: the tables stand
            line = f"{self._path} cannot be drawn: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if line not in self._told:
                self._told.add(line)
                self._tell(line)
        now = time.monotonic()
        self._due_at = now + max(_FIRST_S, _SHARE * (now - began))
