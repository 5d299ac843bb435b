"""Extend a lease in one round trip, so that it holds on a slow link.

An edge's user may be denied EVAL, so WATCH checks that this process still has the lease. The round trip that extends
the lease also sets the WATCH for the next extension, so that no read comes before the write.
"""

from __future__ import annotations

import threading
from typing import Any

import redis

from flavor.bus.answers import Unanswered
from flavor.bus.connection import Redis

_BROKEN = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)


class Renewal:
    """Extends `key` by `ttl_ms` as long as it holds `token`, and publishes each time on `announce`, if given.

    It has its own connection, made at the first use, so that it waits for no other command of this process.
    """

    def __init__(self, client: Redis, key: str, token: str, *, ttl_ms: int, announce: str = "") -> None:
        self._client, self._key, self._token, self._ttl_ms, self._announce = client, key, token, ttl_ms, announce
        self._lock = threading.Lock()
        self._connection: Any = None
        self._watched = False  # the next EXEC fails if the key was changed since it last held our token

    def renew(self) -> bool:
        """Extend the lease; False where another process has it. Makes a broken connection again once."""
        with self._lock:
            try:
                return self._extended()
            except redis.exceptions.OutOfMemoryError:
                return self._extended_without_room()
            except Unanswered:
                raise
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
        """Close the connection."""
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
            if done:  # otherwise the key was changed and holds our token all the same: try again
                return True

    def _extended_without_room(self) -> bool:
        """Extend the lease on a server that has reached `maxmemory`, which refuses transactions and SET.

        At worst this extends another process's lease once, which that process renews as well. No lease can be taken on
        such a server.
        """
        self._close()
        holder, done = self._asked(("GET", self._key), ("PEXPIRE", self._key, self._ttl_ms))
        if holder != self._token or not done:
            return False
        if self._announce:
            self._asked(("PUBLISH", self._announce, ""))
        return True

    def _is_watched(self) -> bool:
        """Whether the connection watches the key. On a new connection, EXEC would write without a check."""
        return self._watched and self._connection is not None and bool(self._connection.is_connected)

    def _asked(self, *commands: tuple[object, ...]) -> list[Any]:
        """Send the commands in one round trip, and return the answers."""
        if self._connection is None:
            self._connection = self._client.connection_pool.make_connection()
        connection = self._connection
        if not connection.is_connected:
            self._watched = False
            connection.connect()
            if len(commands) > 2:  # a transaction relies on the WATCH of the old connection
                raise redis.exceptions.ConnectionError("the connection was made anew")
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        try:
            return [connection.read_response() for _ in commands]
        except BaseException:
            self._close()  # unread answers would be taken for the next ones
            raise

    def _close(self) -> None:
        self._watched = False
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
