"""Tells faults that repeat: each kind of each client once, and again after a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_AGAIN_S = 600.0


class ToldFaults:
    """Passes a line on unless one about the same client and of the same kind was passed on lately. Thread-safe.

    A kind is a word of this program: no client, and no path or time in an error's text, can make up another one.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], float] = {}

    def tell(self, line: str, *, kind: str, client: str = "") -> None:
        """Tell the operator of a fault; `client` is '' for one of no single client."""
        now = time.monotonic()
        with self._lock:
            if now < self._told.get((client, kind), now):
                return
            self._told[client, kind] = now + _AGAIN_S
        self._tell(line)
