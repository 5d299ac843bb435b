"""How a Redis server is doing: its memory, and whether it could write its data to its disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from flavor.bus.connection import Redis, translated, where_of

_WRITES = ("aof_last_write_status", "rdb_last_bgsave_status", "aof_last_bgrewrite_status")


@dataclass(frozen=True)
class ServerState:
    """A server at one moment."""

    used_bytes: int
    """Memory that it uses."""
    max_bytes: int
    """Memory that it may use (`maxmemory`); 0 for no limit."""
    is_kept: bool
    """Whether it could write its data to its disk the last time that it tried."""


def server_state(client: Redis) -> ServerState | None:
    """Return how the server is doing; None where this user may not ask. Raises `BusUnavailable`."""
    with translated(where_of(client)):
        try:
            memory: Mapping[str, Any] = client.info("memory")
            persistence: Mapping[str, Any] = client.info("persistence")
        except redis.exceptions.NoPermissionError:
            return None
    return ServerState(
        used_bytes=_number(memory.get("used_memory")),
        max_bytes=_number(memory.get("maxmemory")),
        is_kept=all(persistence.get(name, "ok") == "ok" for name in _WRITES),
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
