"""The server that a script under check talks to: fakeredis on a unix socket, with the commands of a script alone.

Nobody else reaches it: the socket lies in a folder that only this user can enter. What the script sends is read before
fakeredis sees any of it, and a command that no script needs (`EVAL` above all, whose Lua reaches Python) is refused.
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
"""What a script sends, by itself or through `flavor.cook.utils`; besides these `CLIENT SETNAME` and `SETINFO`."""
_OF_CLIENT = (b"SETNAME", b"SETINFO")
_HALF_A_REQUEST_S = 5.0
_MOST_WORDS, _LONGEST_WORD = 1024, 1 << 20

Heard = Callable[[str, str, tuple[str, str]], None]
"""Told a command, its first argument, and both of the request that the same connection sent before."""


class ScriptServer(fakeredis.TcpFakeServer):
    """The server, telling `heard` each command before it acts; `server_close` removes its socket."""

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
        """Bind the path; a socket of a path has no port to name."""
        self.socket.bind(self.server_address)

    def get_request(self) -> tuple[Any, Any]:
        """A connection, under a number: clients of a unix socket have no address by which they could be told apart."""
        request, _ = super().get_request()
        return request, (f"script-{next(self._connections)}", 0)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, overheard."""
        overheard: Any = _Connection(request, self._heard)
        super().finish_request(overheard, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a script that was killed in the middle of a command is reported elsewhere."""

    def server_close(self) -> None:
        """Stop listening, wait for the connections to end, and remove the socket."""
        super().server_close()
        self._remove()


class _Connection:
    """A socket whose requests are overheard."""

    def __init__(self, inner: Any, heard: Heard) -> None:
        self._inner, self._heard = inner, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def makefile(self, *args: Any) -> _Requests:
        """What the server reads requests from."""
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
        """One whole request, as fakeredis may see it; empty while there is none."""
        deadline = time.monotonic() + _HALF_A_REQUEST_S
        while True:
            if words := self._request():
                if self._allows(words):
                    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
                continue
            more = self._inner.raw.read(1 << 16)  # of what is buffered, "nothing for now" looks like the end
            if more:
                self._unread += more
                continue
            left_s = deadline - time.monotonic()
            if more == b"" or not self._unread or left_s <= 0:  # its end, or nothing for now
                return b""
            select.select([self._inner], [], [], left_s)  # the rest of it is on its way

    def _request(self) -> list[bytes] | None:
        """Take the words of the first request from what was read; None while it is not whole."""
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
        """The number on the line at `at`, and where the next begins: 0 while it is not whole."""
        end = self._unread.find(b"\r\n", at)
        if end < 0 and len(self._unread) - at < 32:
            return 0, 0
        line = self._unread[at:end]
        if end < 0 or line[:1] != mark or not line[1:].isdigit() or not 0 < int(line[1:]) + (mark == b"$") <= most:
            raise ConnectionError("what the script sends is no request of Redis")
        return int(line[1:]), end + 2

    def _allows(self, words: list[bytes]) -> bool:
        """Whether fakeredis may see this request; if not, it is answered here. All earlier answers are out by now."""
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
