"""Subscribe to Redis without missing a publication.

A publication is lost while a connection is down, and redis-py resubscribes without a report. So a subscription reports
each connection and reconnection as `RESYNC`, and the caller then reads its keys again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import redis

from flavor.bus.connection import Redis, shown, translated, wait_for_server

RESYNC: Final = "*"
"""Stands for every channel: a publication may have been missed, so the caller reads the keys again."""

_PUBLICATIONS = ("message", "pmessage")
_CONFIRMATIONS = ("subscribe", "psubscribe")
_REST_S, _LEAST_REST_S = 5.0, 0.5
"""Longest time for the rest of a publication of which a part has come, and the least."""
_DRAIN_S = 0.05
"""Longest time for reading publications at once, so that a flood does not keep the caller from its work."""


def _take_no_push(message: Any) -> None:
    """Ignore what a server pushes: none does in RESP2. Without such a function redis-py sets a logger up."""


class Subscription:
    """A subscription to channels and patterns of one server that reconnects by itself.

    One thread at a time may use it. Waits for an unreachable server with the client's patience. Raises
    `BusUnavailable` after that, and at once when the server refuses this process.
    """

    def __init__(self, client: Redis, url: str, *, channels: Sequence[str] = (), patterns: Sequence[str] = ()) -> None:
        self._client, self._url = client, url
        self._channels, self._patterns = tuple(channels), tuple(patterns)
        self._pubsub: Any = None
        self.saying: set[str] = set()
        """The channels of the last `wait` on which something with a content was published. A hint: read the keys."""

    def open(self) -> None:
        """Subscribe, and return once the server has confirmed it. From then on no publication is missed."""
        with translated(shown(self._url)):
            self._open()

    def _open(self) -> None:
        while self._pubsub is None:
            pubsub = self._client.pubsub(push_handler_func=_take_no_push)
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
        """Return the channels with publications since the last call; wait up to `timeout_s` seconds for the first.

        Each channel is named once. Contains `RESYNC` after each connection and reconnection. Empty when none came.
        """
        if self._pubsub is None:
            self.open()
            self.saying = set()
            return [RESYNC]
        with translated(shown(self._url)):
            return self._wait(timeout_s)

    def _wait(self, timeout_s: float) -> list[str]:
        woken: dict[str, None] = {}
        self.saying = set()
        now = time.monotonic()
        deadline, drained = now + timeout_s, now + timeout_s + _DRAIN_S
        left_s = timeout_s
        try:
            while (message := self._next(0.0 if woken else max(0.0, left_s))) or not woken:
                now = time.monotonic()
                if message is not None:
                    if not woken:
                        drained = now + _DRAIN_S
                    if message["type"] in _PUBLICATIONS:
                        woken[message["channel"]] = None
                        if message["data"]:
                            self.saying.add(message["channel"])
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

    def _next(self, timeout_s: float) -> Any:
        """Return the next message; None where none comes within this time.

        A message may have come in part. redis-py waits for the rest for as long as for the message, takes the missing
        rest for an outage, and makes another connection. A short wait is made here therefore.
        """
        if timeout_s < _LEAST_REST_S:
            if not self._pubsub.connection.can_read(timeout=timeout_s):
                return None
            timeout_s = _REST_S
        return self._pubsub.get_message(timeout=timeout_s)

    def close(self) -> None:
        """End the subscription and its connection."""
        if self._pubsub is not None:
            self._pubsub.close()
            self._pubsub = None
