"""Serves the page in a thread: its socket, its address, and its end."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flavor.bus.variables import UI_TOKEN_VARIABLE
from flavor.errors import FlavorError, InvalidSetting, MisuseError, RunError

if TYPE_CHECKING:
    from flavor.page.app import Page

PORT = 8600
_DOCS = "docs/see-a-run.md says how to put TLS before it"
_BACKLOG = 128
_SILENT_MS = 60_000
"""How long a browser that has vanished keeps its connection."""
_END_S = 3.0
_IDLE_S = 30
_LONGEST_HEADERS_BYTES = 32 * 1024


@dataclass(frozen=True)
class Place:
    """Where a page listens."""

    socket: socket.socket = field(repr=False)
    host: str
    port: int
    is_loopback: bool
    """Whether this machine alone can reach it."""

    def again(self) -> Place:
        """Return the same place with a socket of its own, for a server that closes it."""
        return replace(self, socket=self.socket.dup())

    @property
    def address(self) -> str:
        """The page's address, for people at this machine."""
        host = self.host
        if host in ("0.0.0.0", "::"):
            host = "localhost"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


def check_installed() -> None:
    """Raise `MisuseError` unless the packages of the page are there."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise MisuseError(
            "the page needs libraries that are not installed: pip install '.[ui]' in flavor's folder"
        ) from None


def bound(host: str, port: int, *, token: str | None, or_free: bool = False) -> Place:
    """Take a port. Raises `InvalidSetting` for a place where no page can or may be, and `RunError` for a port in use.

    A place that other machines can reach needs a `token`. With `or_free`, any free port takes the place of one in use.
    """
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidSetting(f"--host {host}: {reason}: name an address of this machine, or 127.0.0.1") from None
    own = str(where[0])
    is_loopback = ipaddress.ip_address(own.partition("%")[0]).is_loopback
    if not is_loopback and token is None:
        raise InvalidSetting(
            f"--host {host}: other machines can reach the page there, so it needs a token: --token or "
            f"{UI_TOKEN_VARIABLE} (`openssl rand -hex 16` makes one); what it shows crosses the network "
            f"unencrypted: {_DOCS}"
        )
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY by protocol
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # inherited by each connection
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_MS)
        listening.bind(where)
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE and or_free:
            return bound(host, 0, token=token)
        raise _not_bound(error, number, host, port) from None
    listening.setblocking(False)
    return Place(listening, own if ":" in host or host in ("0.0.0.0", "") else host, _port(listening), is_loopback)


def _port(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


def _not_bound(error: Exception, number: int | None, host: str, port: int) -> FlavorError:
    if number == errno.EADDRINUSE:
        return RunError(
            f"port {port} of {host} is in use, perhaps by another `flavor ui`: end that one, or choose another: "
            "--port NUMBER, or --port 0 for any that is free"
        )
    if number in (errno.EACCES, errno.EPERM):
        return InvalidSetting(f"--port {port}: this user may not take it: choose one above 1023")
    if number == errno.EADDRNOTAVAIL:
        return InvalidSetting(f"--host {host}: this machine has no such address: name one of its own, or 127.0.0.1")
    return RunError(f"--host {host} --port {port}: {getattr(error, 'strerror', None) or error}")


@contextlib.contextmanager
def serving(page: Page, place: Place) -> Iterator[threading.Event]:
    """Serve a page as long as the context lasts. The event says that the server has ended by itself."""
    import uvicorn

    from flavor.page.connection import MOST, Connection

    config = uvicorn.Config(
        page.app,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,  # an address may have a token in it
        server_header=False,
        limit_concurrency=MOST + 1,  # is reached only where no connection can make room
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=_LONGEST_HEADERS_BYTES,
    )
    server = uvicorn.Server(config)
    ended = threading.Event()

    def serve() -> None:
        try:
            server.run(sockets=[place.socket])
        finally:
            ended.set()

    thread = threading.Thread(target=serve, name="page", daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        page.streams.close()
        server.should_exit = True
        thread.join(_END_S)
        place.socket.close()


def opens_a_browser() -> bool:
    """Whether there is a terminal, and a display of this machine beside it."""
    if not sys.stderr.isatty() or "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_browser(address: str) -> None:
    """Open the page in the user's browser, in a thread; where that fails, nothing happens."""
    import webbrowser

    def open_it() -> None:
        with contextlib.suppress(Exception):
            webbrowser.open(address)

    threading.Thread(target=open_it, name="browser", daemon=True).start()
