"""Extending a lease in one round trip, so that a slow link keeps it.

An edge's user may be denied EVAL, so the check that the lease is still ours is WATCH. It is set for the next time
in the same breath as the lease is extended for this one: nothing is asked before the key is written.
"""

from __future__ import annotations

import threading
from typing import Any

import redis

from flavor.bus.connection import Redis

_BROKEN = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)


class Renewal:
    """Extends `key` by `ttl_ms` as long as it holds `token`, and publishes on `announce` each time, if one is given.

    It has a connection of its own, made at the first use: no other command of this process waits before it.
    """

    def __init__(self, client: Redis, key: str, token: str, *, ttl_ms: int, announce: str = "") -> None:
        self._client, self._key, self._token, self._ttl_ms, self._announce = client, key, token, ttl_ms, announce
        self._lock = threading.Lock()
        self._connection: Any = None
        self._watched = False  # the server tells us if the key was touched since we last saw that it is ours

    def renew(self) -> bool:
        """Extend it; False when it is not ours. A connection that broke is made again once."""
        with self._lock:
            try:
                return self._extended()
            except redis.exceptions.OutOfMemoryError:
                return self._extended_without_room()
            except _BROKEN:
                self._close()
            try:
                return self._extended()
            except redis.exceptions.OutOfMemoryError:
                return self._extended_without_room()
            except BaseException:
                self._close()
                raise

    def close(self) -> None:
        """Give the connection up."""
        with self._lock:
            self._close()

    def _extended(self) -> bool:
        while True:
            if not self._is_watched():
                _, holder = self._asked(("WATCH", self._key), ("GET", self._key))
                self._watched = holder == self._token
                if not self._watched:
                    self._asked(("UNWATCH",))
                    return False
            words: list[tuple[object, ...]] = [("MULTI",), ("PEXPIRE", self._key, self._ttl_ms)]
            words += [("PUBLISH", self._announce, "")] if self._announce else []
            *_, done, _, holder = self._asked(*words, ("EXEC",), ("WATCH", self._key), ("GET", self._key))
            self._watched = holder == self._token
            if not self._watched:
                self._asked(("UNWATCH",))
                return False
            if done:  # else somebody touched it, and it is ours all the same: once more
                return True

    def _extended_without_room(self) -> bool:
        """At a server that has reached `maxmemory`, which refuses whatever a transaction holds, and SET.

        At worst this extends another's lease once, which that one renews as well; none can be taken there.
        """
        self._close()
        holder, done = self._asked(("GET", self._key), ("PEXPIRE", self._key, self._ttl_ms))
        if holder != self._token or not done:
            return False
        if self._announce:
            self._asked(("PUBLISH", self._announce, ""))
        return True

    def _is_watched(self) -> bool:
        """A connection that was made anew watches nothing: EXEC would write without a look."""
        return self._watched and self._connection is not None and bool(self._connection.is_connected)

    def _asked(self, *commands: tuple[object, ...]) -> list[Any]:
        """Their answers, for one round trip."""
        if self._connection is None:
            self._connection = self._client.connection_pool.make_connection()
        connection = self._connection
        if not connection.is_connected:
            self._watched = False
            connection.connect()
            if len(commands) > 2:  # a transaction, which relies on what the old connection watched
                raise redis.exceptions.ConnectionError("the connection was made anew")
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        try:
            return [connection.read_response() for _ in commands]
        except BaseException:
            self._close()  # what was not read would be taken for the next answers
            raise

    def _close(self) -> None:
        self._watched = False
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
