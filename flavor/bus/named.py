"""Connections that go through a proxy where one leads to the server, and say their name where the server takes it.

A user, or a proxy before the server, may be denied that.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from redis.connection import Connection, ConnectionInterface, UnixDomainSocketConnection
from redis.exceptions import ResponseError

from flavor.bus.answers import Answering
from flavor.bus.tls import VerifiedConnection
from flavor.proxy import proxy_for
from flavor.tunnel import open_tunnel


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


class _Tunnelled(Connection):
    """Connect through the proxy that leads to the server, if there is one. TLS comes on top."""

    _scheme = "redis"

    def _connect(self) -> socket.socket:
        proxy = proxy_for(self._scheme, self.host, self.port)
        if proxy is None:
            direct: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
            return direct
        link = open_tunnel(proxy, self.host, self.port, self.socket_connect_timeout)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.socket_keepalive:  # finds a dead proxy; of what lies behind it, see `flavor.bus.half_open`
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in self.socket_keepalive_options.items():
                link.setsockopt(socket.IPPROTO_TCP, name, value)
        link.settimeout(self.socket_timeout)
        return link


class NamedConnection(_Named, _Tunnelled):
    """`redis://`."""


class NamedUnixConnection(_Named, UnixDomainSocketConnection):
    """`unix://`."""


class NamedVerifiedConnection(_Named, VerifiedConnection, _Tunnelled):
    """`rediss://`."""

    _scheme = "rediss"


def connection_class(url: str) -> type[ConnectionInterface]:
    """The one for a URL."""
    if url.startswith("rediss:"):
        return NamedVerifiedConnection
    return NamedUnixConnection if url.startswith("unix:") else NamedConnection
