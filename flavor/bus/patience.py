"""How long a client waits for a server that is away, or that takes no writes: redis-py asks it before each attempt."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flavor.bus.answers import Unanswered
from flavor.bus.countdown import countdown, said
from flavor.bus.tls import tls_refusal
from flavor.signals import asked_to_end, pause

REFUSALS = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
"""The server no longer accepts this process's user or password."""


_FAILURES_APART_S = 30.0
"""Failed attempts that are further apart belong to two outages: an attempt takes less, also with TLS."""
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

    def failed(self, now: float) -> float:
        """Record a failed attempt; return when the first one of this spell failed."""
        if now - self.at > self._apart_s:
            self.since = now
        self.at = now
        return self.since

    def end(self) -> None:
        """Record that an attempt has worked."""
        self.since = self.at = -math.inf


_away: defaultdict[str, _Spell] = defaultdict(lambda: _Spell(_FAILURES_APART_S))
_refused: defaultdict[str, _Spell] = defaultdict(lambda: _Spell(_REFUSALS_APART_S))
"""What all connections of this process to a server have seen; what works on any of them ends the spell."""


def _since(own: _Spell, shared: _Spell, now: float) -> float:
    """Record a failed attempt; return since when attempts have failed.

    A connection that never works keeps its own beginning, also where others work.
    """
    return min(own.failed(now), shared.failed(now))


class Patience(Retry):
    """Repeats a command until the server answers again or `patience_s` seconds of outage have passed.

    One outage of a server has one deadline for all connections of a process, so that what a program does once its
    patience is over, such as giving a lease up, does not wait anew. A countdown on stderr tells it. A server that takes
    no writes for now (its disk or its memory is full, it loads its data, it is a replica) counts as an outage, although
    it answers. A process that was asked to end does not wait. Wrong credentials and certificates are not an outage.
    Every command of this project may run twice: it sets what is not set, or checks the state it starts from.
    """

    _FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0

    def __init__(self, where: str, patience_s: float, *, quiet: bool = False) -> None:
        super().__init__(NoBackoff(), retries=-1)
        self._where, self.patience_s, self._quiet = where, patience_s, quiet
        self._away, self._refused = _Spell(_FAILURES_APART_S), _Spell(_REFUSALS_APART_S)  # of this connection
        self._depth = 0  # a connection that can be made does not show that the server takes the command

    def __deepcopy__(self, memo: dict[int, Any]) -> Patience:
        """Return one for another connection: redis-py copies that of its pool for each, which no connection uses."""
        made = type(self)(self._where, self.patience_s, quiet=self._quiet)
        made._supported_errors = self._supported_errors
        return made

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
        failures, refused, pause_s = 0, False, self._FIRST_PAUSE_S
        caught: tuple[type[Exception], ...] = (*self._supported_errors, redis.exceptions.ResponseError)
        while True:
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
                fail(error, failures) if with_failure_count else fail(error)
                now = time.monotonic()
                left_s = _since(self._away, _away[self._where], now) + self.patience_s - now
                if left_s <= 0 or asked_to_end():
                    raise
                if failures == 2:
                    _outages[self._where] += 1
                if failures > 1:  # a connection that had gone stale needs no message
                    if not self._quiet:
                        countdown.show(self._where, left_s, error)
                    pause(min(pause_s, left_s))
                    pause_s = min(pause_s * 2, self._LONGEST_PAUSE_S)
            else:
                if self._depth == 0:
                    if self._away.is_on or self._refused.is_on:
                        self._tell_it_is_back(refused=refused)
                    elif (spell := _away.get(self._where)) is not None:
                        spell.end()
                return result

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
        now = time.monotonic()
        since = _since(self._refused, _refused[self._where], now)
        left_s = since + self.patience_s - now
        if left_s <= 0 or asked_to_end():
            raise error
        countdown.show(self._where, left_s, error)
        pause_s = (now - since) / 4
        pause(min(max(pause_s, self._FIRST_PAUSE_S), self._LONGEST_PAUSE_S, left_s))
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
