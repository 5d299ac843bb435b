"""Report the wait for a server: that it is away, for how long the wait goes on, and that it is back."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import redis

from flavor.say import say
from flavor.silence import silence
from flavor.stamp import stamp

_ANSWERS = "answers again"


class _Countdown:
    """One line for all waiting connections: rewritten in a terminal, repeated every few seconds elsewhere."""

    def __init__(self) -> None:
        self._lock, self._shown_at = threading.Lock(), 0.0
        self._back: dict[str, str] = {}
        """The line for the end of the wait, by server."""

    def show(self, where: str, left_s: float, error: Exception) -> None:
        live = sys.stderr.isatty()
        with self._lock:
            now = time.monotonic()
            if now - self._shown_at < (0.5 if live else 5.0):
                return
            self._shown_at = now
            refused = isinstance(error, redis.exceptions.ResponseError)
            self._back[where] = "takes writes again" if refused else _ANSWERS
        how = f"takes no writes ({said(error)[:120]})" if refused else "does not answer"
        line = f"{stamp()}flavor: Redis at {where} {how}; trying for {left_s:.0f} s more"
        say(f"\r{line}  " if live else line, end="" if live else "\n")

    def silent(self, where: str, seconds: float) -> None:
        """Report that a request to this server has had no answer for so long; once, until all requests have one."""
        with self._lock:
            if where in self._back:
                return
            self._back[where] = _ANSWERS
        say(f"{stamp()}flavor: Redis at {where} has given a request no answer for {seconds:.0f} s; waiting for it")

    def over(self, where: str, *, reads_only: bool = False) -> None:
        """Report that this server is back, if it was reported as away. A read does not show that a full server has room."""
        with self._lock:
            back = self._back.get(where)
            if back is None or (reads_only and back != _ANSWERS):
                return
            del self._back[where]
        start, end = ("\r", "\033[K\n") if sys.stderr.isatty() else ("", "\n")
        say(f"{start}{stamp()}flavor: Redis at {where} {back}", end=end)

    def end(self) -> None:
        with self._lock:
            self._back.clear()
            if self._shown_at and sys.stderr.isatty():
                say("")
            self._shown_at = 0.0


countdown = _Countdown()


@contextlib.contextmanager
def told_if_silent(where: str) -> Iterator[None]:
    """Report when the requests made in the body have no answer for a time, and when they have one."""
    waiting = silence(where, partial(countdown.silent, where))
    try:
        with waiting.request():
            yield
    finally:
        waiting.answered()
    if not waiting.is_told:  # of another thread, whose request has no answer yet
        countdown.over(where, reads_only=True)


def said(error: Exception) -> str:
    """Return the server's message without the command of a pipeline that redis-py puts before it."""
    return " ".join(str(error).split()).rpartition(" of pipeline caused error: ")[2]
