"""TLS to Redis: always verify the server's certificate and name, and describe failures in words.

No switch turns verification off: `flavor.bus.connection` refuses a URL that would (`ssl_cert_reqs=none`).
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from collections.abc import Iterator

from redis.connection import SSLConnection

_HANDSHAKE_S = 5.0
_FIRST_WORD_S = 0.1
_PASSING = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""TLS errors of a broken connection, as every connection gives when its server goes away."""


class HandshakeTimeout(OSError):
    """A port has accepted the connection and does not answer the handshake: a stalled server, or one without TLS.

    (Redis without TLS waits for the rest of a command.) A server that `has_spoken` TLS with this process is stalled.
    """

    def __init__(self, *, has_spoken: bool) -> None:
        super().__init__("it does not answer the TLS handshake")
        self.has_spoken = has_spoken


_spoken: set[tuple[str, int]] = set()
"""Hosts and ports that have spoken TLS with this process."""


class VerifiedConnection(SSLConnection):
    """redis-py's TLS connection with this project's context, and a PING after the handshake.

    It trusts the named CA alone (redis-py would add the CA to the system's), and bounds the wait for the handshake.
    The PING is needed because after a TLS 1.3 handshake the server may still refuse our certificate, and sends session
    tickets, which redis-py's pool would take for unread answers ("Connection not ready").
    """

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        timeout = sock.gettimeout()
        sock.settimeout(_HANDSHAKE_S)
        context = tls_context(self.ca_certs, self.certfile, self.keyfile)
        try:
            wrapped = context.wrap_socket(sock, server_hostname=self.host)
            try:
                _greet(wrapped)
            except OSError:
                wrapped.close()  # the caller still has the socket that the TLS socket took over
                raise
        except TimeoutError:
            raise HandshakeTimeout(has_spoken=(self.host, self.port) in _spoken) from None
        _spoken.add((self.host, self.port))
        wrapped.settimeout(timeout)
        return wrapped


def _greet(sock: ssl.SSLSocket) -> None:
    """Exchange a PING. Any answer is enough; without one, an `ssl.SSLError` has the server's reason.

    A server that refuses the client sends the reason and closes the connection. A client that writes before it has
    read the reason may lose it. So this waits a moment before it writes; session tickets end that wait early.
    """
    answer: bytes | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        if selector.select(_FIRST_WORD_S):
            sock.setblocking(False)
            with contextlib.suppress(ssl.SSLWantReadError):
                answer = sock.recv(1024)
            sock.settimeout(_HANDSHAKE_S)
    if answer is None:
        sock.sendall(b"*1\r\n$4\r\nPING\r\n")
        answer = sock.recv(1024)
    while not answer.endswith(b"\n"):
        if not (part := sock.recv(1024)):
            raise ConnectionResetError("it closed the connection after the TLS handshake")
        answer += part


def tls_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    """Make a client's context: TLS 1.2 or newer, with the certificate and the host name verified.

    `ca` is a PEM file of the CAs to trust, None for the system's; `cert` and `key` are PEM files of the client itself.
    Raises `OSError` (including `ssl.SSLError`) for files that cannot be used. Each connection reads the files again,
    so that a renewed certificate needs no restart.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca:
        context.load_verify_locations(ca)
    else:
        context.load_default_certs()
    if cert:
        context.load_cert_chain(cert, key, password=_no_password)
    return context


def _no_password() -> str:
    """Raise for a key with a passphrase, where OpenSSL would ask in the terminal."""
    raise ssl.SSLError("the key is encrypted")


def tls_refusal(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error behind redis-py's that another attempt would not cure; None otherwise."""
    return next((found for found in _chain(error) if isinstance(found, ssl.SSLError)), None)


def tls_failure(error: BaseException | None) -> str | None:
    """Describe the TLS error behind redis-py's, with advice; None for other errors."""
    return next((_described(found) for found in _chain(error)), None)


def _chain(error: BaseException | None) -> Iterator[ssl.SSLError | HandshakeTimeout]:
    while error is not None:
        if isinstance(error, ssl.SSLError | HandshakeTimeout) and not isinstance(error, _PASSING):
            yield error
        error = error.__cause__ or error.__context__


def _described(error: ssl.SSLError | HandshakeTimeout) -> str:
    if isinstance(error, HandshakeTimeout) and error.has_spoken:
        return f"it takes connections, and does not answer the TLS handshake as it did before: {_STALLED}"
    if isinstance(error, HandshakeTimeout):
        return f"it does not answer the TLS handshake: {_NO_TLS}, and that the server is not stalled"
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = _CERTIFICATE.get(error.verify_code, "have its certificate put right")
        return f"its certificate is refused ({error.verify_message.rstrip('.')}): {advice}"
    reason = error.reason or ""
    for name, text in _REASONS:
        if name in reason:
            return text
    return f"TLS failed ({reason.replace('_', ' ').lower() or error}): check the certificates on both sides"


_WRONG_CA = "it is not signed by the CA of --tls-ca FILE (FLAVOR_TLS_CA; by default the system's): name its CA there"
_WRONG_HOST = "use the host name that the certificate is for, or have it issued for this one"
_CERTIFICATE = {
    9: "it is not valid yet: check the clocks",
    10: "have it renewed, or check this machine's clock",
    18: _WRONG_CA,
    19: _WRONG_CA,
    20: _WRONG_CA,
    21: _WRONG_CA,
    62: _WRONG_HOST,
    64: _WRONG_HOST,
}
"""Advice for OpenSSL's X509_V_ERR_*."""

_STALLED = "check whether it is paused or overloaded, or its disk hangs (`redis-cli PING` on its machine)"
_NO_TLS = "check that this port speaks TLS (redis:// is for one that does not)"
_OWN = "renew the one of --tls-cert (FLAVOR_TLS_CERT)"
_REASONS = (
    (
        "CERTIFICATE_REQUIRED",
        "it wants a client certificate: --tls-cert FILE and --tls-key FILE (FLAVOR_TLS_CERT, FLAVOR_TLS_KEY)",
    ),
    (
        "HANDSHAKE_FAILURE",
        "it refused the TLS handshake: it may want a client certificate (--tls-cert FILE and --tls-key FILE)",
    ),
    (
        "UNKNOWN_CA",
        "it does not know the CA of our client certificate: use one that its CA signed (--tls-cert FILE)",
    ),
    ("CERTIFICATE_EXPIRED", f"our client certificate has expired: {_OWN}"),
    ("CERTIFICATE_REVOKED", f"our client certificate was revoked: {_OWN}"),
    ("BAD_CERTIFICATE", f"it refused our client certificate: {_OWN}"),
    ("WRONG_VERSION_NUMBER", f"its answer is not TLS: {_NO_TLS}"),
    ("RECORD_LAYER_FAILURE", f"its answer is not TLS: {_NO_TLS}"),
)
"""Advice by a part of OpenSSL's reason. Most reasons are the server's alerts."""
