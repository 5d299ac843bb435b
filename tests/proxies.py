"""Proxies on the way to a server: Debian's squid, and one of our own that misbehaves on demand."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.servers import free_port
from tests.polled import eventually

SQUID = shutil.which("squid") or shutil.which("squid", path="/usr/sbin")
HELPER = Path("/usr/lib/squid/basic_ncsa_auth")


@dataclass
class Squid:
    """One that runs. It knows the names of `hosts`, which nobody else does."""

    host: str
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def asked(self) -> list[str]:
        """What it was asked for and has answered so far: method, host and port, and how it ended."""
        words = [line.split() for line in self.log.read_text().splitlines()]
        return [f"{each[5]} {each[6]} {each[3]}" for each in words]


@contextlib.contextmanager
def squid(
    *rules: str,
    hosts: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    under: Sequence[str] = (),
    user: str = "",
    password: str = "",
) -> Iterator[Squid]:
    """Run one that lets everything through, unless `rules` come first. Skips the test where there is none.

    With a `user` it asks for the password.
    """
    if SQUID is None:
        pytest.skip("no squid here: install it")
    port = port or free_port()
    folder = Path(tempfile.mkdtemp(prefix="flavor-proxy-"))
    folder.chmod(0o777)  # as root, squid serves as another user
    (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in (hosts or {}).items()))
    access = folder / "access"
    access.touch()
    access.chmod(0o666)
    if user:
        if not HELPER.exists():
            pytest.skip("this squid has no helper for passwords")
        words = ["openssl", "passwd", "-apr1", password]
        hashed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        (folder / "users").write_text(f"{user}:{hashed}")
        rules = (f"auth_param basic program {HELPER} {folder}/users", *rules)
        rules = ("auth_param basic children 1", *rules, "acl known proxy_auth REQUIRED", "http_access deny !known")
    lines = [f"http_port {host}:{port}", f"hosts_file {folder}/hosts", *rules, "http_access allow all"]
    lines += ["cache deny all", "shutdown_lifetime 0 seconds", "pinger_enable off", "memory_cache_shared off"]
    lines += ["pid_filename none", f"access_log stdio:{access}", "buffered_logs off", f"cache_log {folder}/log"]
    lines += [f"coredump_dir {folder}", *([] if os.geteuid() else ["cache_effective_user nobody"])]
    (folder / "squid.conf").write_text("\n".join(lines) + "\n")
    command = [*under, SQUID, "-N", "-n", f"flavor{port}", "-f", str(folder / "squid.conf")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        if process.poll() is not None:
            pytest.skip("squid does not start here")
        return "Accepting HTTP Socket connections" in _text(folder / "log")

    try:
        eventually("squid listens", listens, 20, pause_s=0.02)
        yield Squid(host, port, access)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


class Tunnels:
    """A proxy that speaks CONNECT and SOCKS5, and for which each name is this machine's.

    `answer` is what it says in place of all else. With `password` (USER:PASSWORD) it lets nobody else in. It cuts
    connections on which nothing has moved for `idle_s`, and any that is `life_s` old.
    """

    def __init__(self) -> None:
        self.answer, self.password, self.idle_s, self.life_s = b"", "", 0.0, 0.0
        self.asked: list[str] = []
        self.open = self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, scheme: str = "http", signs_in: str = "") -> str:
        return f"{scheme}://{signs_in and f'{signs_in}@'}127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                self._links.append(link)
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError):
            first = link.recv(1, socket.MSG_PEEK)
            port = self._socks(link) if first == b"\x05" else self._connect(link)
            if port:
                with socket.create_connection(("127.0.0.1", port)) as far:
                    self.open += 1
                    try:
                        self._join(link, far)
                    finally:
                        self.open -= 1

    def _connect(self, link: socket.socket) -> int:
        head = b""
        while not head.endswith(b"\r\n\r\n") and (part := link.recv(65_536)):
            head += part
        words = base64.b64encode(self.password.encode())
        if self.answer:
            link.sendall(self.answer)
        elif self.password and b"Proxy-Authorization: Basic " + words + b"\r\n" not in head:
            link.sendall(b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n')
        else:
            link.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            place = head.split()[1].decode()
            self.asked.append(place)
            return int(place.rpartition(":")[2])
        return 0

    def _socks(self, link: socket.socket) -> int:
        methods = link.recv(1024)
        if self.password:
            if 2 not in methods[2:]:
                link.sendall(b"\x05\xff")
                return 0
            link.sendall(b"\x05\x02")
            user, password = (word.encode() for word in self.password.split(":"))
            taken = link.recv(1024) == b"\x01%c%s%c%s" % (len(user), user, len(password), password)
            link.sendall(b"\x01\x00" if taken else b"\x01\x01")
            if not taken:
                return 0
        else:
            link.sendall(b"\x05\x00")
        asked = link.recv(1024)
        host = asked[5 : 5 + asked[4]].decode() if asked[3] == 3 else socket.inet_ntoa(asked[4:8])
        port = int.from_bytes(asked[-2:], "big")
        self.asked.append(f"{host}:{port}")
        if self.answer:
            link.sendall(self.answer)
            return 0
        link.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        return port

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        began = moved = time.monotonic()
        while True:
            ready = select.select([near, far], [], [], 0.05)[0]
            now = time.monotonic()
            for source in ready:
                moved = now
                if not pass_on(source, far if source is near else near):
                    return
            if (self.idle_s and now - moved > self.idle_s) or (self.life_s and now - began > self.life_s):
                self.cuts += 1
                return

    def close(self) -> None:
        for each in (self._listener, *self._links):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def pass_on(source: socket.socket, sink: socket.socket) -> bool:
    """Whether there was something."""
    data = source.recv(65_536)
    sink.sendall(data)
    return bool(data)


@contextlib.contextmanager
def forwarded(listener: socket.socket, target: tuple[str, int]) -> Iterator[None]:
    """Lead what connects there to a server of this machine, also out of another network namespace."""

    def serve(near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(target) as far:
            while all(pass_on(one, far if one is near else near) for one in select.select([near, far], [], [])[0]):
                pass

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


@contextlib.contextmanager
def tunnels() -> Iterator[Tunnels]:
    made = Tunnels()
    try:
        yield made
    finally:
        made.close()
