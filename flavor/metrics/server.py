"""The HTTP server of `flavor metrics`: one path, few connections, a token where other machines can reach it."""

from __future__ import annotations

import contextlib
import errno
import hmac
import io
import threading
import time
from collections.abc import Callable, Iterable
from socket import AF_INET6, SHUT_RDWR, socket
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client.exposition import ThreadingWSGIServer

from flavor.errors import FlavorError, MisuseError
from flavor.own_machine import is_link, is_of_another_site, why_foreign
from flavor.say import say
from flavor.stamp import stamp

_AT_ONCE = 8
"""Connections at a time. Another one takes the place of the oldest that has not asked, or does not read its answer."""
_REQUEST_S = 10.0
"""How long a request may take to arrive, however its bytes trickle in."""
_ROOM_S = 1.0
_STALLED_S = 1.0
"""How long an answer may be under way until its connection gives way to a new one. A scrape is read in milliseconds."""
_HEADERS = (
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
)
HEALTH = "/healthz"
"""Answered whether Redis can be reached or not: this process is alive."""
Answer = Callable[[str], tuple[bytes, str]]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class MetricsApp:
    """A WSGI application that answers `/metrics` and `/healthz`. Without a token it answers this machine alone."""

    def __init__(self, answer: Answer, token: str = "") -> None:
        self._answer, self._token = answer, token

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        status, body, kind = self._answered(environ)
        headers = [("Content-Type", kind), *_HEADERS]
        if status.startswith("401"):
            headers.append(("WWW-Authenticate", "Bearer"))
        headers.append(("Content-Length", str(len(body))))
        start_response(status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answered(self, environ: dict[str, Any]) -> tuple[str, bytes, str]:
        site, mode, dest = (str(environ.get(f"HTTP_SEC_FETCH_{name}", "")) for name in ("SITE", "MODE", "DEST"))
        if is_of_another_site(site) and not is_link(mode, dest):
            return _refused("403 Forbidden", "another web site asked for this: open the address itself")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refused("405 Method Not Allowed", "metrics are read with GET")
        if environ["PATH_INFO"] == HEALTH:  # tells nothing, so that a probe needs no token
            return "200 OK", b"ok\n", "text/plain; charset=utf-8"
        if self._token:
            scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
            is_it = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token.encode())
            if scheme.lower() != "bearer" or not is_it:
                return _refused("401 Unauthorized", "send the header `Authorization: Bearer TOKEN`")
        elif why := why_foreign(
            ((name.removeprefix("HTTP_"), str(value)) for name, value in environ.items() if name.startswith("HTTP_")),
            str(environ.get("SERVER_PROTOCOL", "")).removeprefix("HTTP/"),
        ):
            hint = "ask for localhost, or start `flavor metrics` with a token (--token)"
            return _refused("403 Forbidden", f"{why}: {hint}")
        if environ["PATH_INFO"] != "/metrics":
            return _refused("404 Not Found", "the metrics are at /metrics")
        try:
            body, kind = self._answer(environ.get("HTTP_ACCEPT", ""))
        except FlavorError as error:
            say(f"{stamp()}flavor: a scrape failed: {error}")
            return _refused("503 Service Unavailable", "the metrics cannot be read now: the terminal says why")
        return "200 OK", body, kind


def _refused(status: str, why: str) -> tuple[str, bytes, str]:
    return status, f"{why}\n".encode(), "text/plain; charset=utf-8"


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_S  # of one read or write
    server: _Server

    def setup(self) -> None:
        """Begin with a connection."""
        super().setup()
        self.wfile = _Wire(self.connection, self.server)

    def parse_request(self) -> bool:
        """Read the rest of a request's header."""
        is_one = super().parse_request()
        self.server.has_asked(self.connection)
        return is_one

    def log_message(self, *args: object) -> None:
        """Write no line for a request."""


class _Wire(io.BufferedIOBase):
    """Writes an answer, of which the server knows since when it is under way."""

    def __init__(self, connection: socket, server: _Server) -> None:
        self._connection, self._server = connection, server

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._server.is_answered(self._connection)
        self._connection.sendall(data)
        return memoryview(data).nbytes


class _Server(ThreadingWSGIServer):
    """Answers a few connections at a time."""

    request_queue_size = 128

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        self._silent: dict[Any, float] = {}  # connections that have not asked yet, the oldest first
        self._written: dict[Any, float] = {}  # connections whose answer is under way, the oldest first
        self._lock = threading.Lock()
        super().__init__(*arguments, **named)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not (self._free.acquire(blocking=False) or (self._cut_oldest() and self._free.acquire(timeout=_ROOM_S))):
            self.shutdown_request(request)
            return
        with self._lock:
            self._silent[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._ended(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ended(request)

    def has_asked(self, request: Any) -> None:
        """Take note that the whole request of a connection has come."""
        with self._lock:
            self._silent.pop(request, None)

    def is_answered(self, request: Any) -> None:
        """Take note that an answer is under way."""
        with self._lock:
            self._written.setdefault(request, time.monotonic())

    def service_actions(self) -> None:
        """Cut off those whose request has not come in time; called about twice a second."""
        with self._lock:
            late = [each for each, since in self._silent.items() if time.monotonic() - since > _REQUEST_S]
        for each in late:
            _cut(each)

    def _cut_oldest(self) -> bool:
        """Cut off the connection that has been silent, or has not read, for longest; False where there is none."""
        with self._lock:
            stalled = (each for each, since in self._written.items() if time.monotonic() - since > _STALLED_S)
            oldest = next(iter(self._silent), None) or next(stalled, None)
            self._silent.pop(oldest, None)
            self._written.pop(oldest, None)
        if oldest is not None:
            _cut(oldest)
        return oldest is not None

    def _ended(self, request: Any) -> None:
        with self._lock:
            self._silent.pop(request, None)
            self._written.pop(request, None)
        self._free.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Write nothing where a client has gone away or was silent."""


def _cut(connection: socket) -> None:
    """End a connection, which wakes the thread that reads it."""
    with contextlib.suppress(OSError):
        connection.shutdown(SHUT_RDWR)


class _Server6(_Server):
    address_family = AF_INET6


class MetricsServer:
    """Serves metrics in a thread until it is closed."""

    def __init__(self, host: str, port: int, answer: Answer, token: str = "") -> None:
        """Listen. Raises `MisuseError` for an address that cannot be used, or on which another program listens."""
        kind = _Server6 if ":" in host else _Server
        try:
            self._server: WSGIServer = make_server(host, port, MetricsApp(answer, token), kind, handler_class=_Handler)
        except OSError as error:
            raise MisuseError(_unusable(host, port, error)) from None
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. An answer that is on its way is not waited for."""
        self._server.shutdown()
        self._server.server_close()


def _unusable(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port}: another program listens there: choose another port, or end that program"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"--port {port}: this user may not listen there: choose a port from 1024 on"
    return f"--host {host}: this machine cannot listen on that address: {error.strerror or error}"
