"""The bridge to a SOCKS5 proxy goes on where this process had no file or no thread free for a connection."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from flavor.proxy import parse_proxy
from flavor.store import socks_bridge


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), RuntimeError("no new thread")])
def test_a_bridge_outlives_a_moment_without_files_or_threads(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    errors: Iterator[Exception | None] = iter([error, error])
    listening, thread = socket.create_server, threading.Thread

    class Listener:
        def __init__(self, address: tuple[str, int]) -> None:
            self._real = listening(address)
            self.getsockname = self._real.getsockname

        def accept(self) -> Any:
            if isinstance(error, OSError) and next(errors, None):
                raise error
            return self._real.accept()

    def started(**words: Any) -> threading.Thread:
        if words["name"] == "socks" and isinstance(error, RuntimeError) and next(errors, None):
            raise error
        return thread(**words)

    monkeypatch.setattr(socks_bridge, "_AGAIN_S", 0.001)
    monkeypatch.setattr(socket, "create_server", Listener)
    monkeypatch.setattr(socks_bridge.threading, "Thread", started)
    url = urlsplit(socks_bridge._begun(parse_proxy("socks5://127.0.0.1:1", "--proxy")))
    answers: list[bytes] = []
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", url.port or 0), timeout=10) as asking:
            asking.sendall(b"CONNECT bucket:443 HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):  # it has no thread
                answers.append(asking.recv(99)[:12])
    assert answers[-1:] == [b"HTTP/1.1 407"]
