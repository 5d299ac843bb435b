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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from flavor.proxy import Proxy, proxy_for
from flavor.send_buffer import unsent_bytes
from flavor.store import certificate
from flavor.store.settings import Endurance
from flavor.tunnel import ProxyFailure, open_tunnel, proxy_failure, reach_proxy, refuse_for
from flavor.watch import Watch

FAST_BYTES_S = 2**20
"""From this speed on, a link counts as fast."""
LANES = 4
"""Number of parallel connections on a fast link."""
_BLOCK_BYTES = 64 * 1024
_LEAST_BUFFER_BYTES = 32 * 1024
_BUFFERED_S = 0.5


class Silence(OSError):
    """No answer, or half an answer. The text says what was received last.

    `failure` is that of a proxy which has not led to the host, `refusal` that of the host's certificate.
    """

    def __init__(
        self, said: str, *, failure: ProxyFailure | None = None, refusal: certificate.Refusal | None = None
    ) -> None:
        super().__init__(said)
        self.failure, self.refusal = failure, refusal


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
    Each connection goes through the proxy that leads to its host, if there is one (`flavor.proxy`).
    """

    def __init__(self, *, connect_s: float, silence_s: float, answer_s: float) -> None:
        self._connect_s, self._silence_s, self._answer_s = connect_s, silence_s, answer_s
        self.pace = Pace()
        self._tls: ssl.SSLContext | None = None

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: memoryview,
        watch: Watch,
        *,
        into: Callable[[bytes], object] | None = None,
    ) -> Answer:
        """Return the answer. Raises `Silence` without one, and `TransferStopped` as soon as `watch` ends it.

        `into` gets the content of a good answer as it arrives, and the answer is returned without it.
        """
        parts = urlsplit(url)
        connection, target, proxy = self._route(parts)
        extra = proxy.headers if proxy is not None else {}
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
                if into is not None and response.status < 300:
                    self._receive(connection, response, into, watch)
                    return Answer(response.status, dict(response.headers.items()), b"")
                content = response.read()
                if proxy is not None:
                    refuse_for(proxy, parts, response.status, response.reason, response.headers)
                if response.status >= 300:  # the server has not taken it, so it may be sent again
                    moved, sent = sent, 0
                    watch.moved(-moved)
                return Answer(response.status, dict(response.headers.items()), content)
            except (OSError, http.client.HTTPException) as error:
                watch.moved(-sent)  # raises if the transfer was stopped, which is no failure
                refusal = certificate.Refusal.of(error)
                raise Silence(_said(error), failure=proxy_failure(error), refusal=refusal) from None

    def _receive(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        into: Callable[[bytes], object],
        watch: Watch,
    ) -> None:
        """Hand on the content of an answer, and report what has arrived."""
        if connection.sock is not None:  # http.client gives the socket to an answer that ends the connection
            connection.sock.settimeout(self._silence_s)
        left = response.length
        while data := response.read1(self.pace.chunk_bytes):
            into(data)
            watch.moved(len(data))
            left = left if left is None else left - len(data)
        if left:
            raise Silence("the answer was cut off")

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

    def _route(self, parts: SplitResult) -> tuple[http.client.HTTPConnection, str, Proxy | None]:
        """Return a connection to the host or to its proxy, the request target, and a proxy that reads the request."""
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        proxy = proxy_for(parts.scheme, host, port)
        if proxy is not None and proxy.kind == "http" and not secure:
            read: Any = http.client.HTTPConnection(proxy.host, proxy.port, timeout=self._connect_s)
            read._create_connection = lambda address, timeout_s, *_: reach_proxy(proxy, host, timeout_s)
            return read, f"http://{parts.netloc}{target}", proxy
        if not secure:
            plain = http.client.HTTPConnection(host, port, timeout=self._connect_s)
            return _through(plain, proxy), target, None
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
        connection = http.client.HTTPSConnection(host, port, timeout=self._connect_s, context=self._tls)
        return _through(connection, proxy), target, None


def wire_of(endurance: Endurance) -> Wire:
    """Return a `Wire` that waits as long as these settings say."""
    return Wire(connect_s=min(5.0, endurance.request_s), silence_s=endurance.silence_s, answer_s=endurance.request_s)


def _through(connection: http.client.HTTPConnection, proxy: Proxy | None) -> http.client.HTTPConnection:
    """Return the connection, which will be made through the proxy, if there is one."""

    def reach(address: tuple[str, int], timeout_s: float, *_: Any) -> socket.socket:
        assert proxy is not None
        return open_tunnel(proxy, *address, timeout_s)

    if proxy is not None:
        made: Any = connection
        made._create_connection = reach  # http.client's own tunnels know no SOCKS, and lose why a proxy refuses
    return connection


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
