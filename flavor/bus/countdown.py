"""Tells the user that a server is away, for how long a program still waits for it, and that it is back."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import redis

from flavor.say import say
from flavor.silence import silence
from flavor.stamp import stamp

_ANSWERS = "answers again"


class _Countdown:
    """One line for however many connections wait: rewritten in a terminal, else repeated every few seconds."""

    def __init__(self) -> None:
        self._lock, self._shown_at = threading.Lock(), 0.0
        self._back: dict[str, str] = {}
        """What to say of each server that is waited for once that is over."""
        self._beyond: set[str] = set()
        """Servers that the program waits for without limit, and has said so."""
        self._endless: set[str] = set()
        self.heard: Callable[[str], None] = lambda _: None
        """Told what is waited for, without the time that is left, and '' once that is over."""

    def is_endless(self, where: str) -> None:
        """Record that the program waits for this server without limit, however long one connection tries."""
        self._endless.add(where)

    def show(self, where: str, left_s: float, error: Exception) -> None:
        if where in self._endless and not isinstance(error, redis.exceptions.ResponseError):
            self.beyond(where)
            return
        live = sys.stderr.isatty()
        with self._lock:
            now = time.monotonic()
            if now - self._shown_at < (0.5 if live else 5.0):
                return
            self._shown_at = now
            refused = isinstance(error, redis.exceptions.ResponseError)
            self._back[where] = "takes writes again" if refused else _ANSWERS
        how = f"takes no writes ({said(error)[:120]})" if refused else "does not answer"
        self.heard(f"Redis at {where} {how}")
        line = f"{stamp()}flavor: Redis at {where} {how}; trying for {left_s:.0f} s more"
        say(f"\r{line}  " if live else line, end="" if live else "\n")

    def silent(self, where: str, seconds: float, *, left_s: float | None = None) -> None:
        """Say that a request to this server has had no answer for so long, once until all have.

        `left_s` is how long the program will go on waiting, where that is known.
        """
        with self._lock:
            if where in self._back:
                return
            self._back[where] = _ANSWERS
        until = "" if left_s is None or where in self._endless else f" for {left_s:.0f} s more"
        how = f"has given a request no answer for {seconds:.0f} s; waiting for it{until}"
        say(f"{stamp()}flavor: Redis at {where} {how}")

    def beyond(self, where: str) -> None:
        """Say that the program waits for this server without limit; once an outage."""
        with self._lock:
            if where in self._beyond:
                return
            self._beyond.add(where)
            self._back.setdefault(where, _ANSWERS)
        self.heard(f"Redis at {where} does not answer")
        start = "\r" if sys.stderr.isatty() else ""
        say(f"{start}{stamp()}flavor: Redis at {where} does not answer; waiting for it, without limit")

    def over(self, where: str, *, reads_only: bool = False) -> None:
        """Say that this server is back, if it was said to be away; a read says nothing of a server without room."""
        with self._lock:
            back = self._back.get(where)
            if back is None or (reads_only and back != _ANSWERS):
                return
            del self._back[where]
            self._beyond.discard(where)
        self.heard("")
        start, end = ("\r", "\033[K\n") if sys.stderr.isatty() else ("", "\n")
        say(f"{start}{stamp()}flavor: Redis at {where} {back}", end=end)

    def end(self) -> None:
        with self._lock:
            self._back.clear()
            self._beyond.clear()
            if self._shown_at and sys.stderr.isatty():
                say("")
            self._shown_at = 0.0
        self.heard("")


countdown = _Countdown()


@contextlib.contextmanager
def told_if_silent(where: str) -> Iterator[None]:
    """Say so, when the requests made within this have no answer for a while, and when they have one."""
    waiting = silence(where, partial(countdown.silent, where))
    try:
        with waiting.request():
            yield
    finally:
        waiting.answered()
    if not waiting.is_told:  # of another thread's request, which it still leaves without an answer
        countdown.over(where, reads_only=True)


def said(error: Exception) -> str:
    """What the server said: redis-py puts the command of a pipeline before it."""
    return " ".join(str(error).split()).rpartition(" of pipeline caused error: ")[2]
