"""Being woken by Redis without ever losing a wake-up.

What is published while a connection is down is gone, and redis-py resubscribes without a word. So a
subscription reports each (re)connection as `RESYNC`, upon which the caller reads its keys again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import redis

from flavor.bus.connection import Redis, shown, translated, wait_for_server

RESYNC: Final = "*"
"""Stands for every channel: something may have been missed, so read the keys again."""

_PUBLICATIONS = ("message", "pmessage")
_CONFIRMATIONS = ("subscribe", "psubscribe")
_DRAIN_S = 0.05
"""What has been published is taken in for so long at a time, so that no flood keeps the caller from its work."""


class Subscription:
    """Channels and patterns of one server, reconnecting by itself.

    Not for use by several threads at once. An unreachable server is waited for with the client's patience; then, and
    at once when it refuses us, `BusUnavailable` is raised.
    """

    def __init__(self, client: Redis, url: str, *, channels: Sequence[str] = (), patterns: Sequence[str] = ()) -> None:
        self._client, self._url = client, url
        self._channels, self._patterns = tuple(channels), tuple(patterns)
        self._pubsub: Any = None

    def open(self) -> None:
        """Subscribe, and return once the server has confirmed it: from here on nothing published is missed."""
        with translated(shown(self._url)):
            self._open()

    def _open(self) -> None:
        while self._pubsub is None:
            pubsub = self._client.pubsub()
            try:
                if self._channels:
                    pubsub.subscribe(*self._channels)
                if self._patterns:
                    pubsub.psubscribe(*self._patterns)
                unconfirmed = len(self._channels) + len(self._patterns)
                while unconfirmed:
                    message = pubsub.get_message(timeout=5.0)
                    if message is None:
                        raise redis.exceptions.TimeoutError("no confirmation of a subscription")
                    unconfirmed -= message["type"] in _CONFIRMATIONS
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
                pubsub.close()
                wait_for_server(self._client, self._url)
            else:
                self._pubsub = pubsub

    def wait(self, timeout_s: float) -> list[str]:
        """The channels published on since the last call, waiting up to `timeout_s` seconds for the first.

        Each once. Contains `RESYNC` after every (re)connection; empty when nothing came.
        """
        if self._pubsub is None:
            self.open()
            return [RESYNC]
        with translated(shown(self._url)):
            return self._wait(timeout_s)

    def _wait(self, timeout_s: float) -> list[str]:
        woken: dict[str, None] = {}
        now = time.monotonic()
        deadline, drained = now + timeout_s, now + timeout_s + _DRAIN_S
        left_s = timeout_s
        try:
            while (message := self._pubsub.get_message(timeout=0.0 if woken else max(0.0, left_s))) or not woken:
                now = time.monotonic()
                if message is not None:
                    if not woken:
                        drained = now + _DRAIN_S
                    if message["type"] in _PUBLICATIONS:
                        woken[message["channel"]] = None
                    elif message["type"] in _CONFIRMATIONS:  # a silent reconnection
                        woken[RESYNC] = None
                left_s = deadline - now
                if (not woken and left_s <= 0) or now > drained:
                    break
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
            self.close()
            self.open()
            woken[RESYNC] = None
        return list(woken)

    def close(self) -> None:
        """End the subscription and its connection."""
        if self._pubsub is not None:
            self._pubsub.close()
            self._pubsub = None
