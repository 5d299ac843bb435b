"""HTTP requests over links of any speed: a request fails when no byte moves for a time, and never for its duration.

A slow link is shared with the bus, whose heartbeats wait behind the bytes in this machine's send buffers. So on a link
that has not been measured as fast, a send buffer holds at most what the link carries in half a second.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from flavor.errors import InvalidSetting
from flavor.send_buffer import unsent_bytes
from flavor.store.settings import Endurance
from flavor.watch import Watch

FAST_BYTES_S = 2**20
"""From this speed on, a link counts as fast."""
LANES = 4
"""Number of parallel connections on a fast link."""
_BLOCK_BYTES = 64 * 1024
_LEAST_BUFFER_BYTES = 32 * 1024
_BUFFERED_S = 0.5


class Silence(OSError):
    """No answer, or half an answer. The text says what was received last."""


@dataclass(frozen=True)
class Answer:
    """A server's complete answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Pace:
    """The measured speed of the link to one store, and the buffer sizes and connections that follow from it."""

    def __init__(self) -> None:
        self.bytes_s: float | None = None
        """Speed of one connection; None before the first measurement."""
        self._is_fast = False

    @property
    def chunk_bytes(self) -> int:
        """Number of bytes that are received between two reports of progress."""
        return 2**20 if self._is_fast else 2**16

    def lanes(self) -> int:
        """Number of parallel parts. Several do not make a slow link faster, and lose more when it breaks."""
        return LANES if self._is_fast else 1

    def measured(self, size_bytes: int, seconds: float) -> None:
        """Record that one connection has moved so many bytes in this time."""
        if size_bytes < _BLOCK_BYTES or seconds <= 0:
            return
        self.bytes_s = size_bytes / seconds
        self._is_fast = self.bytes_s >= (FAST_BYTES_S / LANES if self._is_fast else FAST_BYTES_S)

    def buffer_bytes(self) -> int | None:
        """Largest send buffer in bytes; None for the system's own choice."""
        if self.bytes_s is None:
            return _LEAST_BUFFER_BYTES
        return None if self._is_fast else max(_LEAST_BUFFER_BYTES, int(self.bytes_s * _BUFFERED_S))


class Wire:
    """Sends requests to one store, each over a connection of its own.

    `silence_s` is the longest time without a moved byte, `answer_s` the longest wait for an answer once all was sent.
    Proxies come from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`).
    """

    def __init__(self, *, connect_s: float, silence_s: float, answer_s: float) -> None:
        self._connect_s, self._silence_s, self._answer_s = connect_s, silence_s, answer_s
        self.pace = Pace()
        self._tls: ssl.SSLContext | None = None

    def send(self, method: str, url: str, headers: Mapping[str, str], body: memoryview, watch: Watch) -> Answer:
        """Return the answer. Raises `Silence` without one, and `TransferStopped` as soon as `watch` ends it."""
        parts = urlsplit(url)
        connection, target, extra = self._route(parts)
        sent = 0
        with contextlib.closing(connection), watch.closing(lambda: _end(connection)):
            try:
                self._connect(connection)
                watch.check()
                connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
                connection.putheader("Host", parts.netloc)
                for name, value in (*headers.items(), *extra.items()):
                    if name.lower() not in ("host", "expect", "content-length"):
                        connection.putheader(name, value)
                if body or method in ("PUT", "POST"):
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server may have answered why
                    began = time.monotonic()
                    for size in self._blocks(connection, body):
                        sent += size
                        watch.moved(size)
                    self.pace.measured(sent, time.monotonic() - began)
                _socket(connection).settimeout(self._answer_s)
                response = connection.getresponse()
                content = response.read()
                if response.status >= 300:  # the server has not taken it, so it may be sent again
                    moved, sent = sent, 0
                    watch.moved(-moved)
                return Answer(response.status, dict(response.headers.items()), content)
            except (OSError, http.client.HTTPException) as error:
                watch.moved(-sent)  # raises if the transfer was stopped, which is no failure
                raise Silence(_said(error)) from None

    def _blocks(self, connection: http.client.HTTPConnection, body: memoryview) -> Iterator[int]:
        """Send the body, and report each block that the socket has taken."""
        link, position, began = _socket(connection), 0, time.monotonic()
        buffer = self.pace.buffer_bytes()
        while position < len(body):
            size = link.send(body[position : position + _BLOCK_BYTES])
            position += size
            yield size
            seconds = time.monotonic() - began
            if buffer is not None and seconds > _BUFFERED_S / 2:
                gone = max(0, position - unsent_bytes(link))  # bytes in the buffer say nothing about the link
                fits = max(_LEAST_BUFFER_BYTES, int(gone / seconds * _BUFFERED_S))
                if fits > buffer * 1.25 or fits < buffer * 0.75:
                    buffer = fits
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        connection.connect()
        link = _socket(connection)
        link.settimeout(self._silence_s)
        if (buffer := self.pace.buffer_bytes()) is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)

    def _route(self, parts: SplitResult) -> tuple[http.client.HTTPConnection, str, Mapping[str, str]]:
        """Return a connection to the host or to its proxy, the request target and the headers for the proxy."""
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        proxy = proxy_for(parts.scheme, parts.netloc)
        place = (proxy.hostname or "", proxy.port or 80) if proxy else (host, port)
        if not secure:
            plain = http.client.HTTPConnection(*place, timeout=self._connect_s)
            return (plain, f"http://{parts.netloc}{target}", _credentials(proxy)) if proxy else (plain, target, {})
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
        connection = http.client.HTTPSConnection(*place, timeout=self._connect_s, context=self._tls)
        if proxy:
            connection.set_tunnel(host, port, _credentials(proxy))
        return connection, target, {}


def wire_of(endurance: Endurance) -> Wire:
    """Return a `Wire` that waits as long as these settings say."""
    return Wire(connect_s=min(5.0, endurance.request_s), silence_s=endurance.silence_s, answer_s=endurance.request_s)


def proxy_for(scheme: str, netloc: str) -> SplitResult | None:
    """Return the proxy that the environment names for this host. Raises `InvalidSetting` for other kinds of proxy."""
    proxies = urllib.request.getproxies_environment()
    chosen = proxies.get(scheme) or proxies.get("all")
    if not chosen or urllib.request.proxy_bypass(netloc):
        return None
    variable = f"{scheme.upper()}_PROXY" if proxies.get(scheme) else "ALL_PROXY"
    proxy = urlsplit(chosen if "://" in chosen else f"http://{chosen}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise InvalidSetting(
            f"{variable} names a proxy that speaks {proxy.scheme}, and a store is reached through HTTP proxies only: "
            f"write http://HOST:PORT, or except the store's host with NO_PROXY={netloc.partition(':')[0]}"
        )
    return proxy


def proxies_in_use(variable: str) -> bool:
    """Whether the environment names a proxy in this variable."""
    return bool(os.environ.get(variable) or os.environ.get(variable.lower()))


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    import base64

    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}


def _socket(connection: http.client.HTTPConnection) -> socket.socket:
    link: socket.socket | None = connection.sock
    if link is None:  # closed by another thread
        raise Silence("it was closed")
    return link


def _end(connection: http.client.HTTPConnection) -> None:
    """Close the connection so that another thread that waits for it wakes up."""
    link: socket.socket | None = connection.sock
    if link is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(link, socket.SHUT_RDWR)  # unwrapping TLS would send the rest unencrypted


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing moved"
    return (str(error) or type(error).__name__).splitlines()[0]
