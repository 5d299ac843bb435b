"""Why a server cannot be reached, in few words for people, and what they can do about it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import redis.exceptions
from redis.exceptions import BusyLoadingError

from flavor.bus.tls import HandshakeTimeout
from flavor.proxy import why_direct
from flavor.tunnel import ProxyFailure

_NO_SUCH_NAME = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY") if hasattr(socket, name)
)
_NETWORK = "check this machine's network and VPN, and that the server runs"
_TOLD = {
    "Timeout": ("no answer from its address", _NETWORK),
    "Connection closed by server": ("it closed the connection", _NETWORK),
    "max number of clients": (
        "it has as many connections as it takes",
        "raise its maxclients, or end programs that are not needed",
    ),
}
"""What redis-py or a server says, by how it begins."""


def is_unknown_name(error: BaseException | None) -> bool:
    """Whether the look-up of the server's name has answered that there is no such name.

    A look-up without an answer (EAI_AGAIN), as on a machine whose network is down, says nothing about the name.
    """
    return any(isinstance(found, socket.gaierror) and found.errno in _NO_SUCH_NAME for found in _chain(error))


def is_no_tls(error: BaseException | None) -> bool:
    """Whether a port that has never spoken TLS with this process has left a handshake without an answer."""
    return any(isinstance(found, HandshakeTimeout) and not found.has_spoken for found in _chain(error))


def way_to_check(error: BaseException, where: str) -> str:
    """Say that the server at the URL `where` is reached directly, if a missing proxy may be why; '' otherwise."""
    chain = list(_chain(error))
    is_reached = any(
        isinstance(found, ProxyFailure | HandshakeTimeout | ssl.SSLError | ConnectionError) for found in chain
    )
    is_silent = any(isinstance(found, OSError | redis.exceptions.TimeoutError) for found in chain)
    parts = urlsplit(where)
    if is_reached or not is_silent or parts.scheme not in ("redis", "rediss"):
        return ""
    said = why_direct(parts.scheme, parts.hostname or "localhost", parts.port or 6379)
    return f"; {said}" if said else ""


def why_away(error: BaseException) -> tuple[str, str]:
    """Return why a server cannot be reached, and what a person can check."""
    for found in _chain(error):
        if isinstance(found, ProxyFailure):
            return found.why, found.advice
        if isinstance(found, BusyLoadingError):
            return "it is loading its data after a start", "wait until it is done: nothing is wrong"
        if isinstance(found, socket.gaierror):
            is_unknown = found.errno in _NO_SUCH_NAME
            what = "is not known here" if is_unknown else "cannot be looked up for now"
            return f"its name {what}", "check the name, and this machine's network, DNS and VPN"
        if isinstance(found, HandshakeTimeout):
            return str(found), "check that this port speaks TLS, and that the server is not stalled"
        if isinstance(found, ConnectionRefusedError):
            return "connection refused", "check that it runs, and the port"
        if isinstance(found, OSError) and (isinstance(found, TimeoutError) or found.strerror):
            is_late = isinstance(found, TimeoutError)
            return "no answer from its address" if is_late else str(found.strerror).lower(), _NETWORK
    text = " ".join(str(error).split()).rstrip(".")
    for start, told in _TOLD.items():
        if text.startswith(start):
            return told
    return text[:120] or type(error).__name__, _NETWORK


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
