"""An HTTP proxy on this machine, for this process alone, that leads through a SOCKS5 proxy: obstore speaks no SOCKS."""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import replace
from urllib.parse import urlsplit

from flavor.proxy import Proxy
from flavor.tunnel import ProxyFailure, open_tunnel

_CONNECT_S = 5.0
_HEAD_S = 10.0
_AGAIN_S = 0.1
_MOST_BYTES = 65_536
_FIRST = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n")
_bridges: dict[tuple[int, Proxy], str] = {}
_lock = threading.Lock()


def bridge_to(proxy: Proxy) -> str:
    """Return the URL of the bridge of this process to a SOCKS5 proxy, with a password of its own."""
    with _lock:
        key = (os.getpid(), proxy)
        if key not in _bridges:
            _bridges[key] = _begun(proxy)
        return _bridges[key]


def _begun(proxy: Proxy) -> str:
    own = Proxy("http", "127.0.0.1", 0, proxy.source, "flavor", secrets.token_hex(16))
    listener = socket.create_server((own.host, 0))
    own = replace(own, port=listener.getsockname()[1])

    def accept() -> None:
        while True:
            with contextlib.ExitStack() as failed:
                try:
                    link, _ = listener.accept()
                    failed.callback(link.close)
                    threading.Thread(target=_lead, args=(link, own, proxy), name="socks", daemon=True).start()
                except (OSError, RuntimeError):  # no file, or no thread, is free: one may be soon
                    time.sleep(_AGAIN_S)
                else:
                    failed.pop_all()

    threading.Thread(target=accept, name="socks-bridge", daemon=True).start()
    return own.url


def _lead(link: socket.socket, own: Proxy, proxy: Proxy) -> None:
    """Serve one connection: its first request says where it leads."""
    with link, contextlib.suppress(OSError):
        link.settimeout(_HEAD_S)
        head = b""
        while b"\r\n\r\n" not in head:
            if len(head) > _MOST_BYTES or not (part := link.recv(_MOST_BYTES)):
                return
            head += part
        first, password = _FIRST.match(head), own.headers["Proxy-Authorization"].encode()
        given = re.search(rb"\r\nproxy-authorization: *([^\r\n]*)\r\n", head, re.IGNORECASE)
        if first is None or given is None or not hmac.compare_digest(given[1].strip(), password):
            link.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        is_tunnel = first[1] == b"CONNECT"
        target = urlsplit(f"//{first[2].decode('latin-1')}" if is_tunnel else first[2].decode("latin-1"))
        try:
            far = open_tunnel(proxy, target.hostname or "", target.port or (443 if is_tunnel else 80), _CONNECT_S)
        except ProxyFailure:  # what it says is asked for by `flavor.store.bucket_proxy`
            link.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with far:
            if is_tunnel:
                link.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = first[2].partition(b"://")[2].partition(b"/")[2]
                rest = head[first.end() - 2 :].replace(given[0], b"\r\n", 1)
                far.sendall(b"%s /%s HTTP/1.1%s" % (first[1], path, rest))
            _join(link, far)


def _join(near: socket.socket, far: socket.socket) -> None:
    for side in (near, far):
        side.settimeout(None)
    back = threading.Thread(target=_pass_on, args=(far, near), name="socks-back", daemon=True)
    back.start()
    _pass_on(near, far)
    back.join()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_MOST_BYTES):
            sink.sendall(data)
    for side, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            side.shutdown(how)
