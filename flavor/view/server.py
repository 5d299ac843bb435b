"""How a Redis server is doing: its memory, whether it could write its data to its disk, and whether it takes writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from flavor.bus.connection import Redis, translated
from flavor.bus.patience import where_of
from flavor.bus.persistence import setting
from flavor.sizes import shown_bytes

_WRITES = ("aof_last_write_status", "rdb_last_bgsave_status", "aof_last_bgrewrite_status")
_UNTIL = "all runs stand still, and who is alive is not known until then"


@dataclass(frozen=True)
class ServerState:
    """A server at one moment."""

    used_bytes: int
    """Memory that it uses."""
    max_bytes: int
    """Memory that it may use (`maxmemory`); 0 for no limit."""
    is_kept: bool
    """Whether it could write its data to its disk the last time that it tried."""
    refusal: str = ""
    """Why it takes no writes, and what to do, in a sentence; '' where it takes writes, as far as it says."""


def server_state(client: Redis) -> ServerState | None:
    """Return how the server is doing; None where it does not tell that. Raises `BusUnavailable`."""
    with translated(where_of(client)):
        try:
            memory: Mapping[str, Any] = client.info("memory")
            persistence: Mapping[str, Any] = client.info("persistence")
            replication: Mapping[str, Any] = client.info("replication")
        except redis.exceptions.ResponseError:  # NoPermissionError is one; some managed servers have no INFO
            return None
        refusal = _replica(replication) or _full(memory) or _unsaved(client, persistence) or _alone(client, replication)
    return ServerState(
        used_bytes=_number(memory.get("used_memory")),
        max_bytes=_number(memory.get("maxmemory")),
        is_kept=all(persistence.get(name, "ok") == "ok" for name in _WRITES),
        refusal=f"Redis takes no writes: {refusal}; {_UNTIL}" if refusal else "",
    )


def refusal_of(client: Redis) -> str:
    """Return why the server takes no writes, and what to do; '' where it does, as far as it says.

    Raises `BusUnavailable`.
    """
    state = server_state(client)
    return state.refusal if state is not None else ""


def _replica(replication: Mapping[str, Any]) -> str:
    if replication.get("role") != "slave" or not _number(replication.get("slave_read_only", 1)):
        return ""
    primary = f"{replication.get('master_host')}:{replication.get('master_port')}"
    return (
        f"it is a read-only replica of {primary}: have the URL lead to the primary, or make this server the primary "
        "(`redis-cli REPLICAOF NO ONE`)"
    )


def _full(memory: Mapping[str, Any]) -> str:
    """Redis compares what it uses without the buffers of replicas and of its append-only file."""
    most = _number(memory.get("maxmemory"))
    used = _number(memory.get("used_memory")) - _number(memory.get("mem_not_counted_for_evict"))
    if not 0 < most < used or memory.get("maxmemory_policy") != "noeviction":
        return ""
    return (
        f"its memory is full ({shown_bytes(used)} of {shown_bytes(most)}): raise maxmemory "
        "(`redis-cli CONFIG SET maxmemory SIZE`), or remove ended runs (`flavor rm RUN`)"
    )


def _unsaved(client: Redis, persistence: Mapping[str, Any]) -> str:
    mend = "make room on the disk of Redis, or repair it"
    if _number(persistence.get("aof_enabled")) and persistence.get("aof_last_write_status") == "err":
        return f"it cannot write its append-only file, as its disk is full or broken: {mend}"
    if persistence.get("rdb_last_bgsave_status") == "err" and _stops_unsaved(client):
        return f"it cannot save its data, as its disk is full or broken: {mend}"
    return ""


def _stops_unsaved(client: Redis) -> bool:
    """Whether the server takes no writes while it cannot save: it may be told otherwise, and to save nothing."""
    stops, saves = setting(client, "stop-writes-on-bgsave-error"), setting(client, "save")
    if stops is not None and saves is not None:
        return stops == "yes" and bool(saves)
    return _has_refused(client, "MISCONF")


def _alone(client: Redis, replication: Mapping[str, Any]) -> str:
    """Why a primary that wants replicas beside it takes no writes."""
    if (good := replication.get("min_slaves_good_slaves")) is None:
        return ""
    least = setting(client, "min-replicas-to-write")
    if good >= int(least) if least is not None else good or not _has_refused(client, "NOREPLICAS"):
        return ""
    return (
        f"it wants {least or 'more'} replicas beside it (min-replicas-to-write), and has {good} that keep up: start "
        "them, or lower that setting"
    )


def _has_refused(client: Redis, why: str) -> bool:
    """Whether the server has ever refused a command for this reason, for a user who may not read its settings."""
    try:
        return f"errorstat_{why}" in client.info("errorstats")
    except redis.exceptions.ResponseError:
        return False


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
