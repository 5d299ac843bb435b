"""Tells the user that a server is away, for how long a program still waits for it, and that it is back."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import redis

from flavor.bus.reasons import why_away
from flavor.durations import shown_duration
from flavor.outage import next_told_s
from flavor.say import say
from flavor.silence import silence
from flavor.stamp import stamp

_ANSWERS = "answers again"
_LIVE_S = 0.5
"""Seconds after which the line in a terminal is rewritten."""
_LATE_S = 1.0
"""Connections that wait for one server differ by less in how long it has been away."""
_LONG_S = 30.0
"""A program that waits for longer than this says at once why, and what can be done."""
_AGAIN_S = 30.0
"""What comes and goes is told again after this."""


class _Countdown:
    """One line for however many connections wait: rewritten in a terminal, else repeated in growing intervals."""

    def __init__(self) -> None:
        self._lock, self._shown_at = threading.Lock(), 0.0
        self._told_s: dict[str, float] = {}
        """How long each server had been away when that was last told; rewriting the line in a terminal counts, too."""
        self._back: dict[str, str] = {}
        """What to say of each server that is waited for once that is over."""
        self._silent: dict[str, tuple[float, float]] = {}
        """Since when a server has given requests no answer, by the monotonic clock, and for how long when last told."""
        self._beyond_at: dict[str, float] = {}
        """When that was said last of each server, by the monotonic clock."""
        self._beyond: set[str] = set()
        """Servers that the program waits for without limit, and has said so."""
        self._endless: set[str] = set()
        self.heard: Callable[[str], None] = lambda _: None
        """Told what is waited for, without the time that is left, and '' once that is over."""

    def is_endless(self, where: str) -> None:
        """Record that the program waits for this server without limit, however long one connection tries."""
        self._endless.add(where)

    def show(self, where: str, left_s: float, error: Exception, *, away_s: float = 0.0, way: str = "") -> None:
        """Say that this server has been away for `away_s`, and for how long the program goes on waiting.

        The first line of an outage says why, and what a person can do, with the `way` to the server where that may be
        the cause. Later ones say since when.
        """
        if where in self._endless and not isinstance(error, redis.exceptions.ResponseError):
            self.beyond(where, error, way)
            return
        live = sys.stderr.isatty()
        with self._lock:
            now, told_s = time.monotonic(), self._told_s.get(where, math.inf)
            is_first = away_s < told_s - _LATE_S  # or another outage, and the end of the first was not seen
            if not is_first and (now - self._shown_at < _LIVE_S if live else away_s < next_told_s(told_s)):
                return
            self._shown_at, self._told_s[where] = now, away_s
            self._silent.pop(where, None)  # this line is repeated from now on
            refused = isinstance(error, redis.exceptions.ResponseError)
            self._back[where] = "takes writes again" if refused else _ANSWERS
        how = f"takes no writes ({said(error)[:120]})" if refused else "does not answer"
        self.heard(f"Redis at {where} {how}")
        line = f"{stamp()}flavor: Redis at {where} {how}; trying for {shown_duration(max(1.0, left_s))} more"
        if is_first and not refused and left_s > _LONG_S:
            why, advice = why_away(error)
            say(f"{line}: {why}: {advice}{way}{'; Ctrl-C ends this program' if live else ''}")
        elif not is_first:
            began = time.localtime(time.time() - away_s)
            if live:  # in one row of a terminal, which the next line takes the place of
                say(f"\r{line}, away since {time.strftime('%H:%M', began)}\033[K", end="")
            else:
                since = time.strftime("%Y-%m-%d %H:%M:%S", began)
                say(f"{line}; away for {shown_duration(away_s)}, since {since}")
        else:
            say(f"\r{line}\033[K" if live else line, end="" if live else "\n")

    def silent(self, where: str, seconds: float, *, left_s: float | None = None) -> None:
        """Say that a request to this server has had no answer for so long, and again as `next_told_s` has it.

        `left_s` is how long the program will go on waiting, where that is known.
        """
        with self._lock:
            if where in self._back and where not in self._silent:
                return
            now = time.monotonic()
            began, told_s = self._silent.get(where, (now - seconds, 0.0))
            seconds = max(seconds, now - began)
            if told_s and seconds < next_told_s(told_s):
                return
            self._silent[where] = began, seconds
            self._back[where] = _ANSWERS
        until = "" if left_s is None or where in self._endless else f" for {shown_duration(left_s)} more"
        how = f"has given a request no answer for {seconds:.0f} s; waiting for it{until}"
        say(f"{stamp()}flavor: Redis at {where} {how}")

    def beyond(self, where: str, error: Exception | None = None, way: str = "") -> None:
        """Say that the program waits for this server without limit, and why if that is known; once an outage.

        Of a server that works for some connections and not for others, as one that takes no more, it is said once in a
        while.
        """
        with self._lock:
            now = time.monotonic()
            if where in self._beyond or now - self._beyond_at.get(where, -math.inf) < _AGAIN_S:
                return
            self._beyond.add(where)
            self._beyond_at[where] = now
            self._silent.pop(where, None)
            self._back.setdefault(where, _ANSWERS)
        self.heard(f"Redis at {where} does not answer")
        start = "\r" if sys.stderr.isatty() else ""
        why = f": {': '.join(why_away(error))}{way}" if error is not None else ""
        say(f"{start}{stamp()}flavor: Redis at {where} does not answer; waiting for it, without limit{why}")

    def over(self, where: str, *, reads_only: bool = False) -> None:
        """Say that this server is back, if it was said to be away; a read says nothing of a server without room."""
        with self._lock:
            back = self._back.get(where)
            if back is None or (reads_only and back != _ANSWERS):
                return
            del self._back[where]
            self._told_s.pop(where, None)
            self._silent.pop(where, None)
            self._beyond.discard(where)
        self.heard("")
        start, end = ("\r", "\033[K\n") if sys.stderr.isatty() else ("", "\n")
        say(f"{start}{stamp()}flavor: Redis at {where} {back}", end=end)

    def end(self) -> None:
        with self._lock:
            self._back.clear()
            self._told_s.clear()
            self._silent.clear()
            self._beyond.clear()
            self._beyond_at.clear()
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
