"""The server for a script under check: fakeredis on a unix socket, with only the commands that a script needs.

No other user reaches it: the socket lies in a folder that only this user can enter. Each request of the script is read
before fakeredis sees any of it. A command that no script needs is refused, above all `EVAL`, whose Lua reaches Python.
"""

from __future__ import annotations

import itertools
import select
import shutil
import socket
import time
import weakref
from collections.abc import Callable
from typing import Any

import fakeredis

from flavor.bus.sockets import private_folder, socket_in, socket_url

COMMANDS = frozenset(
    (
        *(b"GET", b"SET", b"DEL", b"EXISTS", b"HGET", b"HMGET", b"HGETALL"),
        *(b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH"),
        *(b"PUBLISH", b"SUBSCRIBE", b"PSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE"),
        *(b"PING", b"TIME", b"HELLO", b"RESET", b"QUIT"),
    )
)
"""The commands of a script, directly or through `flavor.cook.utils`; `CLIENT SETNAME` and `SETINFO` are allowed too."""
_OF_CLIENT = (b"SETNAME", b"SETINFO")
_HALF_A_REQUEST_S = 5.0
_MOST_WORDS, _LONGEST_WORD = 1024, 1 << 20

Heard = Callable[[str, str, tuple[str, str]], None]
"""Called with a command and its first argument, and with both of the previous request on that connection."""


class ScriptServer(fakeredis.TcpFakeServer):
    """The server; it calls `heard` for each command before it acts, and `server_close` removes its socket."""

    address_family = socket.AF_UNIX

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        folder = private_folder("flavor-check-")
        self._connections = itertools.count(1)
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        path = socket_in(folder)
        super().__init__(str(path))  # type: ignore[arg-type]  # an address of a unix socket is a path
        self.url = socket_url(path)

    def server_bind(self) -> None:
        """Bind the path; a unix socket has no port."""
        self.socket.bind(self.server_address)

    def get_request(self) -> tuple[Any, Any]:
        """Return a connection with a number, because clients of a unix socket have no address that tells them apart."""
        request, _ = super().get_request()
        return request, (f"script-{next(self._connections)}", 0)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, and read its requests first."""
        overheard: Any = _Connection(request, self._heard)
        super().finish_request(overheard, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: a script that was killed during a command is reported elsewhere."""

    def server_close(self) -> None:
        """Stop listening, wait for the connections to end, and remove the socket."""
        super().server_close()
        self._remove()


class _Connection:
    """A socket whose requests are read before the server sees them."""

    def __init__(self, inner: Any, heard: Heard) -> None:
        self._inner, self._heard = inner, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def makefile(self, *args: Any) -> _Requests:
        """Return the file from which the server reads requests."""
        return _Requests(self._inner.makefile(*args), self._inner.sendall, self._heard)


class _Requests:
    """The requests of one connection: `*N`, then N words, each as its length `$L` and its bytes."""

    def __init__(self, inner: Any, answer: Callable[[bytes], None], heard: Heard) -> None:
        self._inner, self._answer, self._heard = inner, answer, heard
        self._unread = b""
        self._before = ("", "")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def readline(self) -> bytes:
        """Return one whole request that fakeredis may see; empty while there is none."""
        deadline = time.monotonic() + _HALF_A_REQUEST_S
        while True:
            if words := self._request():
                if self._allows(words):
                    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
                continue
            more = self._inner.raw.read(1 << 16)  # the buffer reads "nothing for now" as the end
            if more:
                self._unread += more
                continue
            left_s = deadline - time.monotonic()
            if more == b"" or not self._unread or left_s <= 0:  # its end, or nothing for now
                return b""
            select.select([self._inner], [], [], left_s)  # the rest of it is on its way

    def _request(self) -> list[bytes] | None:
        """Return the words of the first request in the buffer, and remove it; None while it is incomplete."""
        count, at = self._number(0, b"*", _MOST_WORDS)
        words: list[bytes] = []
        while at and len(words) < count:
            size, start = self._number(at, b"$", _LONGEST_WORD)
            if not start or len(self._unread) < start + size + 2:
                return None
            words.append(self._unread[start : start + size])
            at = start + size + 2
        if at:
            self._unread = self._unread[at:]
        return words if at else None

    def _number(self, at: int, mark: bytes, most: int) -> tuple[int, int]:
        """Return the number on the line at `at`, and the position of the next line: 0 while the line is incomplete."""
        end = self._unread.find(b"\r\n", at)
        if end < 0 and len(self._unread) - at < 32:
            return 0, 0
        line = self._unread[at:end]
        if end < 0 or line[:1] != mark or not line[1:].isdigit() or not 0 < int(line[1:]) + (mark == b"$") <= most:
            raise ConnectionError("what the script sends is no request of Redis")
        return int(line[1:]), end + 2

    def _allows(self, words: list[bytes]) -> bool:
        """Return whether fakeredis may see this request; answer a refused one, after all earlier answers."""
        name = words[0].upper()
        if name not in COMMANDS and not (name == b"CLIENT" and words[1:] and words[1].upper() in _OF_CLIENT):
            shown = ascii(b" ".join(words[:2]).decode(errors="replace")[:32])
            self._answer(f"-NOPERM no training script needs the command {shown}\r\n".encode())
            return False
        request = (name.decode(), words[1].decode(errors="replace") if len(words) > 1 else "")
        if len(words) > 1:
            self._heard(*request, self._before)
        self._before = request
        return True
