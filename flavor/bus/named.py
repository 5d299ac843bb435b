"""Connections that say their name where the server takes it: a user, or a proxy, may be denied that."""

from __future__ import annotations

import contextlib
from typing import Any

from redis.connection import Connection, ConnectionInterface, UnixDomainSocketConnection
from redis.exceptions import ResponseError

from flavor.bus.answers import Answering
from flavor.bus.tls import VerifiedConnection


class _Named(Answering):
    """Ignore a server that refuses CLIENT SETNAME, where redis-py fails: the name only helps to read CLIENT LIST."""

    client_name: str | None

    def connect(self) -> None:
        """Connect, unless it is connected: redis-py goes through its retries for that, before each command."""
        this: Any = self
        if this._sock is None:
            connection: Any = super()
            connection.connect()

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Greet as redis-py does, and then say the name."""
        name, self.client_name = self.client_name, None
        connection: Any = super()
        try:
            connection.on_connect_check_health(check_health)
        finally:
            self.client_name = name
        if name:
            this: Any = self
            this.send_command("CLIENT", "SETNAME", name, check_health=False)
            with contextlib.suppress(ResponseError):  # NoPermissionError is one
                this.read_response()


class NamedConnection(_Named, Connection):
    """`redis://`."""


class NamedUnixConnection(_Named, UnixDomainSocketConnection):
    """`unix://`."""


class NamedVerifiedConnection(_Named, VerifiedConnection):
    """`rediss://`."""


def connection_class(url: str) -> type[ConnectionInterface]:
    """The one for a URL."""
    if url.startswith("rediss:"):
        return NamedVerifiedConnection
    return NamedUnixConnection if url.startswith("unix:") else NamedConnection
