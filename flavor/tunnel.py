"""A connection to a host through a proxy: HTTP CONNECT, or SOCKS5 by the library python-socks.

The proxy looks up the host's name, which a site behind a proxy often cannot. What is sent through the tunnel is the
caller's matter: TLS is between this machine and the host.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flavor.printable import printable
from flavor.proxy import Proxy, shown_place

if TYPE_CHECKING:
    from email.message import Message
    from urllib.parse import SplitResult

_ANSWER_S = 20.0
"""A proxy connects to the host, and perhaps asks a server for the user's rights, before it answers."""
_MOST_BYTES = 65_536
_MOST_METHODS = 5
_PASSING = frozenset({408, 425, 429})
"""Refusals that pass by themselves, beside those from 500 on."""
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")
_NOT_ALLOWED = 2
"""SOCKS5's reply where the proxy's rules forbid the connection."""
_UNKNOWN = ("ERR_DNS_FAIL", "ERR_INVALID_URL")
"""What squid says of a host's name that it does not know."""


class ProxyFailure(OSError):
    """A proxy has made no connection to the host. The text says which proxy, why, and what to do.

    `lasting` tells refusals, which a person has to remove, from outages, which can pass by themselves. A refusal where
    the proxy has led to the host before counts as one that passes.
    """

    def __init__(self, proxy: Proxy, said: str, advice: str, *, lasting: bool = False) -> None:
        self.why, self.advice = f"the proxy {proxy.where} ({proxy.source}) {said}", advice
        super().__init__(f"{self.why}: {advice}")
        self.lasting = lasting


@dataclass(frozen=True)
class ConnectAnswer:
    """The head of an HTTP proxy's answer to CONNECT."""

    status: int
    words: str
    """The reason of its first line."""
    squid: str
    """The error that squid names in a header of its own."""
    methods: tuple[str, ...]
    """The ways to authenticate that it offers."""


def open_tunnel(proxy: Proxy, host: str, port: int, connect_s: float | None) -> socket.socket:
    """Return a connection to the host, with a timeout. `connect_s` is for the proxy itself. Raises `ProxyFailure`."""
    link = reach_proxy(proxy, host, connect_s)
    place = (proxy.where, host, port)
    try:
        link.settimeout(_ANSWER_S)
        failure = (_connect if proxy.kind == "http" else _socks)(link, proxy, host, port)
    except TimeoutError:
        said = f"has given no answer for {_ANSWER_S:.0f} s"
        advice = f"check its load, and whether it reaches {shown_place(host, port)}"
        if proxy.kind == "socks5":  # an HTTP proxy waits for more of what it takes for the start of a line
            advice = f"check that it is a SOCKS5 proxy (for one of HTTP, write http:// in its URL), {advice[6:]}"
        failure = ProxyFailure(proxy, said, advice)
    except OSError as error:
        failure = _closed(proxy, f" ({_why(error)})")
    except BaseException:
        link.close()
        raise
    if failure is not None:
        link.close()
        failure.lasting &= place not in _led
        raise failure
    _led.add(place)
    return link


_led: set[tuple[str, str, int]] = set()
"""Proxies that have led this process to a host and port."""


def _closed(proxy: Proxy, why: str = "") -> ProxyFailure:
    kind = "an HTTP" if proxy.kind == "http" else "a SOCKS5"
    return ProxyFailure(proxy, f"has closed the connection without an answer{why}", f"check that it is {kind} proxy")


def reach_proxy(proxy: Proxy, host: str, connect_s: float | None) -> socket.socket:
    """Return a connection to the proxy itself, on the way to this host. Raises `ProxyFailure`."""
    try:
        return socket.create_connection((proxy.host, proxy.port), connect_s)
    except socket.gaierror as error:
        is_unknown = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
        what = "has a name that is not known here" if is_unknown else "has a name that cannot be looked up for now"
        failure = ProxyFailure(proxy, what, "check its spelling, and this machine's network", lasting=is_unknown)
    except (OSError, UnicodeError) as error:
        advice = f"check its address and this machine's network, or go around it with NO_PROXY={host}"
        failure = ProxyFailure(proxy, f"does not answer ({_why(error)})", advice)
    raise failure


def _connect(link: socket.socket, proxy: Proxy, host: str, port: int) -> ProxyFailure | None:
    place = shown_place(host.encode("idna").decode() if not host.isascii() else host, port)
    headers = {"Host": place, "Proxy-Connection": "keep-alive", **proxy.headers}
    lines = [f"CONNECT {place} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    link.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    head = bytearray()
    while not head.endswith(b"\r\n\r\n") and not head.endswith(b"\n\n"):
        if len(head) > _MOST_BYTES or not (part := _until_blank(link, head)):
            break
        head += part
    answer = connect_answer(bytes(head))
    if answer is None:
        if not head:
            return _closed(proxy)
        return ProxyFailure(proxy, "does not speak HTTP", "check its port, or write socks5:// in its URL", lasting=True)
    return None if 200 <= answer.status < 300 else refusal_of(answer, proxy, host, port)


def _until_blank(link: socket.socket, head: bytearray) -> bytes:
    """Return more of the head, and nothing of what the host sends after it."""
    seen = link.recv(_MOST_BYTES, socket.MSG_PEEK)
    ends = [found + len(end) for end in (b"\r\n\r\n", b"\n\n") if (found := bytes(head + seen).find(end)) >= 0]
    return link.recv(min(ends) - len(head) if ends else len(seen)) if seen else b""


def connect_answer(head: bytes) -> ConnectAnswer | None:
    """Read the head of an answer to CONNECT; None where it is no HTTP."""
    first = _STATUS.match(head)
    if first is None or b"\n" not in head[first.end() - 1 :]:
        return None
    squid, methods = "", list[str]()
    for line in head[first.end() :].split(b"\n"):
        name, _, value = line.strip().partition(b":")
        text = printable(value.decode("latin-1").strip())
        if name.lower() == b"x-squid-error":
            squid = text[:40]
        elif name.lower() == b"proxy-authenticate" and text and len(methods) < _MOST_METHODS:
            methods.append(text.split()[0][:20])
    words = printable((first[2] or b"").decode("latin-1").strip())[:60]
    return ConnectAnswer(int(first[1]), words, squid, tuple(methods))


def refuse_for(proxy: Proxy, url: SplitResult, status: int, words: str, headers: Message) -> None:
    """Raise `ProxyFailure` if a proxy, and not the host, has answered a request for an `http://` URL."""
    squid = printable(headers.get("X-Squid-Error", ""))[:40]
    if status == 407 or squid:
        methods = tuple(value.split()[0][:20] for value in headers.get_all("Proxy-Authenticate", []) if value.strip())
        answer = ConnectAnswer(status, printable(words)[:60], squid, methods)
        raise refusal_of(answer, proxy, url.hostname or "", url.port or 80)


def refusal_of(answer: ConnectAnswer, proxy: Proxy, host: str, port: int) -> ProxyFailure:
    """Return why an HTTP proxy does not lead to the host, by an answer that is no success."""
    if answer.status == 407:
        return _unauthorized(answer, proxy)
    said = ", ".join(part for part in (f"{answer.status} {answer.words}".strip(), answer.squid) if part)
    if answer.squid.startswith(_UNKNOWN):
        return ProxyFailure(proxy, f"does not know the name {host} ({said})", "check its spelling", lasting=True)
    if answer.status >= 500 or answer.status in _PASSING:
        return ProxyFailure(proxy, f"cannot reach {shown_place(host, port)} ({said})", "check that it runs")
    return _forbidden(proxy, said, host, port)


def _forbidden(proxy: Proxy, said: str, host: str, port: int) -> ProxyFailure:
    place = shown_place(host, port)
    ports = "" if port == 443 else " (many allow port 443 alone: see docs/deployment.md)"
    advice = f"have its operators allow {place}{ports}, or go around it with NO_PROXY={host}"
    return ProxyFailure(proxy, f"refuses connections to {place} ({said})", advice, lasting=True)


def _unauthorized(answer: ConnectAnswer, proxy: Proxy) -> ProxyFailure:
    offered = [method for method in answer.methods if method.lower() != "basic"]
    if offered and len(offered) == len(answer.methods):
        said = f"wants {' or '.join(offered)} (407), and flavor authenticates with Basic"
        advice = "have its operators allow Basic, or run a small proxy before it that speaks this (px, cntlm)"
        return ProxyFailure(proxy, said, advice, lasting=True)
    if proxy.user is None:
        return ProxyFailure(proxy, "wants a user and a password (407)", f"{_SIGN_IN} http:{_URL}", lasting=True)
    return ProxyFailure(proxy, "does not accept this user and password (407)", _WRONG, lasting=True)


_SIGN_IN = "name with --proxy @FILE a file for you alone, which holds"
_URL = "//USER:PASSWORD@HOST:PORT"
_WRONG = "check them, with special characters percent-encoded"


def _socks(link: socket.socket, proxy: Proxy, host: str, port: int) -> ProxyFailure | None:
    from python_socks import ProxyError, ProxyType  # only for such a proxy: training scripts import this module
    from python_socks.sync import Proxy as SocksProxy

    reached: Any = _Reached(link)
    user, password = (None, None) if proxy.user is None else (proxy.user, proxy.password)
    way = SocksProxy(ProxyType.SOCKS5, proxy.host, proxy.port, user, password, rdns=True, forward=reached)
    try:
        way.connect(host, port, timeout=_ANSWER_S)
    except ProxyError as error:
        return _socks_refusal(error, proxy, host, port)
    return None


class _Reached:
    """What python-socks uses in place of its own connection to the proxy."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def connect(self, **_: Any) -> socket.socket:
        return self._link


def _socks_refusal(error: Any, proxy: Proxy, host: str, port: int) -> ProxyFailure:
    said = printable(str(error))[:80]
    if error.error_code == _NOT_ALLOWED:
        return _forbidden(proxy, said.lower(), host, port)
    if error.error_code is not None:
        what = f"cannot reach {shown_place(host, port)} ({said.lower()})"
        return ProxyFailure(proxy, what, "check its name, and that it runs")
    if said.startswith("No acceptable") and proxy.user is None:
        return ProxyFailure(proxy, "wants a user and a password", f"{_SIGN_IN} socks5:{_URL}", lasting=True)
    if said.startswith(("No acceptable", "Username")):
        return ProxyFailure(proxy, "does not accept this user and password", _WRONG, lasting=True)
    if said.startswith("Connection closed"):
        return _closed(proxy)
    what = f"does not speak SOCKS5 ({said})"
    return ProxyFailure(proxy, what, "check its port, or write http:// in its URL", lasting=True)


def _why(error: Exception) -> str:
    """Say in few words why a connection could not be made, or has ended."""
    if isinstance(error, TimeoutError):
        return "no answer from its address"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def proxy_failure(error: BaseException | None) -> ProxyFailure | None:
    """Return the failure of a proxy behind another library's error; None where there is none."""
    while error is not None:
        if isinstance(error, ProxyFailure):
            return error
        error = error.__cause__ or error.__context__
    return None
