"""How long a client waits for a server that is away, or that takes no writes: redis-py asks it before each attempt."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flavor import alive
from flavor.bus.answers import Unanswered
from flavor.bus.countdown import countdown, said
from flavor.bus.reasons import is_no_tls, is_unknown_name, way_to_check
from flavor.bus.tls import tls_refusal
from flavor.bus.variables import PATIENCE_S
from flavor.outage import LONGEST_PAUSE_S, pause_s
from flavor.signals import asked_to_end, pause
from flavor.tunnel import proxy_failure

REFUSALS = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
"""The server no longer accepts this process's user or password."""


_FAILURES_APART_S = 30.0
"""Failed attempts between which more time passes belong to two outages: pauses between attempts are shorter."""
_REFUSALS_APART_S = 5.0
"""Refusals that are further apart belong to two outages. Between closer refusals, reads can succeed."""


class _Spell:
    """A time in which attempts failed, none of them further apart than `apart_s` seconds. Times are monotonic."""

    def __init__(self, apart_s: float) -> None:
        self._apart_s = apart_s
        self.since = self.at = -math.inf

    @property
    def is_on(self) -> bool:
        """Whether an attempt has failed, and none has worked since."""
        return self.at > -math.inf

    def failed(self, now: float, *, began: float | None = None) -> float:
        """Record a failed attempt, which `began` then; return when the first one of this spell failed.

        An attempt may take long: the look-up of a name alone half a minute, where no DNS server answers.
        """
        if (now if began is None else began) - self.at > self._apart_s:
            self.since = now
        self.at = now
        return self.since

    def end(self) -> None:
        """Record that an attempt has worked."""
        self.since = self.at = -math.inf


_away: defaultdict[str, _Spell] = defaultdict(lambda: _Spell(_FAILURES_APART_S))
_refused: defaultdict[str, _Spell] = defaultdict(lambda: _Spell(_REFUSALS_APART_S))
"""What all connections of this process to a server have seen; what works on any of them ends the spell."""


def _since(own: _Spell, shared: _Spell, now: float, began: float | None = None) -> float:
    """Record a failed attempt; return since when attempts have failed.

    A connection that never works keeps its own beginning, also where others work.
    """
    return min(own.failed(now, began=began), shared.failed(now, began=began))


@dataclass
class WaitLimit:
    """How long the connections of a client wait for their server. It may be changed while they wait."""

    patience_s: float
    longest_pause_s: float = LONGEST_PAUSE_S
    is_known: bool = False
    """Whether the address is right: the server was reached before, by this process or by the one that started it."""


_reached: set[str] = set()
"""Servers that have answered this process."""


class Patience(Retry):
    """Repeats a command until the server answers again or the limit's seconds of outage have passed.

    One outage of a server has one deadline for all connections of a process, so that what a program does once its
    patience is over, such as giving a lease up, does not wait anew. A countdown on stderr tells it. A server that takes
    no writes for now (its disk or its memory is full, it loads its data, it is a replica) counts as an outage, although
    it answers. A process that was asked to end does not wait. Wrong credentials and certificates are not an outage, and
    neither is the name of a server that nothing has reached yet and that DNS does not know.
    Every command of this project may run twice: it sets what is not set, or checks the state it starts from.
    """

    def __init__(
        self,
        where: str,
        limit: float | WaitLimit,
        *,
        quiet: bool = False,
        answers_anew: Callable[[], bool] = lambda: False,
    ) -> None:
        """`answers_anew` makes a new connection, and says whether the server answers there."""
        super().__init__(NoBackoff(), retries=-1)
        self._where, self._quiet = where, quiet
        self._limit = limit if isinstance(limit, WaitLimit) else WaitLimit(limit)
        self.answers_anew = answers_anew
        self._away, self._refused = _Spell(_FAILURES_APART_S), _Spell(_REFUSALS_APART_S)  # of this connection
        self._depth = 0  # a connection that can be made does not show that the server takes the command

    def __deepcopy__(self, memo: dict[int, Any]) -> Patience:
        """Return one for another connection: redis-py copies that of its pool for each, which no connection uses.

        All copies have the same limit.
        """
        made = type(self)(self._where, self._limit, quiet=self._quiet, answers_anew=self.answers_anew)
        made._supported_errors = self._supported_errors
        return made

    @property
    def patience_s(self) -> float:
        """How long an outage may last, in seconds."""
        return self._limit.patience_s

    @property
    def where(self) -> str:
        """The server, as messages show it."""
        return self._where

    def call_with_retry(
        self,
        do: Callable[[], Any],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> Any:
        """See `redis.retry.Retry`."""
        failures, refused = 0, False
        caught: tuple[type[Exception], ...] = (*self._supported_errors, redis.exceptions.ResponseError)
        while True:
            began = time.monotonic()
            try:
                self._depth += 1
                try:
                    result = do()
                finally:
                    self._depth -= 1
            except caught as error:
                if isinstance(error, (*REFUSALS, Unanswered)):
                    raise
                if isinstance(error, redis.exceptions.ResponseError):
                    if not _passes(error):
                        raise
                    self._wait_for_writes(error)
                    refused = True
                    fail(error, failures + 1) if with_failure_count else fail(error)
                    continue
                if (is_retryable and not is_retryable(error)) or tls_refusal(error):
                    raise
                failures += 1
                alive.turned()
                fail(error, failures) if with_failure_count else fail(error)
                now = time.monotonic()
                away_s = now - _since(self._away, _away[self._where], now, began)
                left_s = self._most_s(error) - away_s
                if left_s <= 0 or asked_to_end():
                    raise
                if failures == 2:
                    _outages[self._where] += 1
                if failures > 1:  # a connection that had gone stale needs no message
                    if not self._quiet:
                        is_right = self._limit.is_known or self._where in _reached
                        way = "" if is_right else way_to_check(error, self._where)
                        countdown.show(self._where, left_s, error, away_s=away_s, way=way)
                    pause(min(self._pause_s(away_s), left_s))
            else:
                if self._depth == 0:
                    _reached.add(self._where)
                    if self._away.is_on or self._refused.is_on:
                        self._tell_it_is_back(refused=refused)
                    elif (spell := _away.get(self._where)) is not None:
                        spell.end()
                return result

    def _most_s(self, error: BaseException) -> float:
        """Return how long an outage with this error may last.

        What keeps a server from being reached that never was is likelier a mistake than an outage if the server's name
        is not known, if a proxy refuses to lead to it, or if its port does not speak TLS. The latter is also seen on a
        link that is too slow for now.
        """
        if self._limit.is_known or self._where in _reached:
            return self.patience_s
        if failure := proxy_failure(error):
            return 0.0 if failure.lasting else self.patience_s
        if is_unknown_name(error):
            return 0.0
        return min(self.patience_s, PATIENCE_S) if is_no_tls(error) else self.patience_s

    def _pause_s(self, away_s: float) -> float:
        return pause_s(away_s, longest_s=self._limit.longest_pause_s)

    def _tell_it_is_back(self, *, refused: bool) -> None:
        """A command worked: the outage is over. After refusals, only a `refused` command or time shows it."""
        self._away.end()
        _away[self._where].end()
        if self._refused.is_on and not refused:
            if time.monotonic() - self._refused.at <= _REFUSALS_APART_S:
                return
            self._refused.end()
        countdown.over(self._where)

    def _wait_for_writes(self, error: redis.exceptions.ResponseError) -> None:
        """Pause after a refusal, or raise it once the outage has lasted for too long.

        This comes before redis-py handles the failure, because redis-py raises `WatchError` where keys are watched.
        The caller then begins again, and comes back here.
        """
        _refusals[self._where] += 1
        alive.turned()
        now = time.monotonic()
        since = _since(self._refused, _refused[self._where], now)
        left_s = since + self.patience_s - now
        if left_s <= 0 or asked_to_end():
            raise error
        countdown.show(self._where, left_s, error, away_s=now - since)
        pause(min(self._pause_s(now - since), _REFUSALS_APART_S / 2, left_s))
        _since(self._refused, _refused[self._where], time.monotonic())


def where_of(client: redis.Redis) -> str:
    """Return the server that a client talks to, as messages show it."""
    retry = client.connection_pool.connection_kwargs.get("retry")
    return retry.where if isinstance(retry, Patience) else "the given URL"


def _passes(error: redis.exceptions.ResponseError) -> bool:
    """Whether the server refuses for a reason that passes with time or that an operator can remove."""
    kinds = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError, redis.exceptions.BusyLoadingError)
    return isinstance(error, kinds) or said(error).startswith(
        ("MISCONF", "OOM ", "READONLY ", "MASTERDOWN ", "NOREPLICAS")
    )


_outages: Counter[str] = Counter()
"""Number of outages of each server that connections of this process have seen: two connections in a row broke."""
_refusals: Counter[str] = Counter()


def outages(where: str) -> int:
    """Return how many outages of this server the connections of this process have seen."""
    return _outages[where]


def refusals(where: str) -> int:
    """Return how often this server has refused a write of this process that it takes at other times."""
    return _refusals[where]
