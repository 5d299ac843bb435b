"""Limit how long a request waits for its answer from a server that takes connections and stands still.

No request fails on such a server, so `Patience` never counts it as away. Here each wait for an answer is cut off: after
the client's patience, and after a second in a process that was asked to end. The request is not sent again, because the
server may have it, and may carry it out later. The program ends with `BusUnavailable` instead.

A server that answers on a new connection does not stand still: the old connection is dead behind a tunnel, and the
request is repeated as after any broken connection (`flavor.bus.half_open`).
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisBroken
from redis.exceptions import TimeoutError as RedisTimeout
from redis.utils import SENTINEL

from flavor.bus.countdown import countdown
from flavor.bus.variables import PATIENCE_S
from flavor.outage import next_told_s
from flavor.send_buffer import unsent_bytes
from flavor.signals import asked_to_end

LEAST_S: Final = 5.0
"""A server that is only slow has this time for each answer, also where a client has less patience."""
TOLD_AFTER_S = 2.0
"""A person who waits for the main thread of a program is told this soon."""
_GOODBYE_S, _NEXT_S = 1.0, 0.1
"""Limit for each request of a process that was asked to end, and for those after the first that had no answer."""
_LOOK_S = 0.5
DOUBTED_S = 15.0
"""After this time without an answer, and each time again, a new connection is tried."""
_SURE_S = 1.0
"""A server that has answered on a new connection has answered earlier requests before; this is for the way here."""

_standing: dict[str, float] = {}
"""Servers that left a request of this process without an answer, and have given none since: the longest such wait.

A thread with little patience gives a server up long before others do: requests of clients with more patience wait on.
"""
os.register_at_fork(after_in_child=_standing.clear)


class Unanswered(RedisTimeout):
    """The server has taken a request, and given no answer to it. It may still carry the request out."""


class Answering:
    """A connection whose reads end. Waits that redis-py itself bounds, those of subscriptions, stay as they are."""

    retry: Any
    _own_s = 0.0
    """How long the command that was sent last may wait at the server before it is answered."""

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        """See redis-py's `Connection`."""
        self._own_s = _own_s(args)
        connection: Any = super()
        connection.send_command(*args, **kwargs)

    def read_response(self, disable_decoding: bool = False, *, timeout: Any = SENTINEL, **kwargs: Any) -> Any:
        """See redis-py's `Connection`. Raises `Unanswered`, and closes the connection, after the limit."""
        connection: Any = super()
        if timeout is SENTINEL and not kwargs.get("push_request"):
            self._await_answer()
        return connection.read_response(disable_decoding, timeout=timeout, **kwargs)

    def _await_answer(self) -> None:
        """Return once a part of the answer is there."""
        this: Any = self
        own_s, self._own_s = self._own_s, 0.0
        try:
            if not this.can_read(timeout=_NEXT_S):
                self._wait(own_s)
        except BaseException:
            this.disconnect()  # an answer that comes later would be taken for that of the next request
            raise
        if _standing:
            _standing.pop(self._where, None)

    def _wait(self, own_s: float) -> None:
        """Go on waiting. Time in which this process is paused itself does not count."""
        this: Any = self
        waited_s, waited_asked_s, where = _NEXT_S, 0.0, self._where
        told_s, next_s = 0.0, TOLD_AFTER_S  # when that was last told, and when it is told next
        doubted_s = DOUBTED_S
        while True:
            if asked_to_end():
                left_s = (_NEXT_S if where in _standing else _GOODBYE_S) - waited_asked_s
            else:
                is_given_up = _standing.get(where, 0.0) >= self._limit_s
                left_s = own_s + (_GOODBYE_S if is_given_up else self._limit_s) - waited_s
            if left_s <= 0:
                _standing[where] = max(_standing.get(where, 0.0), self._limit_s)
                raise Unanswered(f"a request had no answer for {waited_s:.0f} s")
            if not asked_to_end() and waited_s - own_s >= doubted_s:
                doubted_s += DOUBTED_S
                tried_at = time.monotonic()
                if self._is_dead():
                    raise RedisBroken("the connection is dead, and the server answers on another one")
                waited_s += min(time.monotonic() - tried_at, DOUBTED_S)
            untold_s = own_s + next_s - waited_s
            if untold_s <= 0 and _is_watched():
                told_s, next_s = next_s, next_told_s(next_s)
                countdown.silent(where, waited_s - own_s, left_s=left_s)
            look_s = min(left_s, _LOOK_S, untold_s if untold_s > 0 else _LOOK_S)
            if this.can_read(timeout=look_s):
                break
            waited_s += look_s
            waited_asked_s += look_s if asked_to_end() else 0.0
        if told_s:
            countdown.over(where, reads_only=True)

    def _is_dead(self) -> bool:
        """Whether the other side has acknowledged the request, and answers requests on a new connection only.

        A server that stood still until just now answers both.
        """
        this: Any = self
        answers_anew = getattr(self.retry, "answers_anew", None)
        if answers_anew is None or unsent_bytes(this._sock) or not answers_anew():
            return False
        return not this.can_read(timeout=_SURE_S)

    @property
    def _where(self) -> str:
        where: str = getattr(self.retry, "where", "the given URL")
        return where

    @property
    def _limit_s(self) -> float:
        return max(LEAST_S, getattr(self.retry, "patience_s", PATIENCE_S))


def _is_watched() -> bool:
    return threading.current_thread() is threading.main_thread() and not asked_to_end()


_BY_LAST: Final = frozenset({"BLMOVE", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZPOPMIN", "BZPOPMAX"})
"""Commands that wait at the server for the seconds of their last argument; 0 stands for no limit."""


def _own_s(words: tuple[Any, ...]) -> float:
    """Return how long a command waits at the server by its own arguments."""
    name = words[0]
    if name == "XREAD":
        upper = [word.upper() if isinstance(word, str | bytes) else word for word in words[1:-1]]
        for block in ("BLOCK", b"BLOCK"):
            if block in upper:
                return _seconds(float(words[upper.index(block) + 2]) / 1000)
        return 0.0
    if name == "WAIT":
        return _seconds(float(words[-1]) / 1000)
    return _seconds(float(words[-1])) if name in _BY_LAST else 0.0


def _seconds(given: float) -> float:
    return given or float("inf")
