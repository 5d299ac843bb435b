"""Warnings at the start of a run about what the server would lose in a crash, as far as its settings show."""

from __future__ import annotations

import redis

from flavor.bus.connection import Redis, shown


def persistence_warnings(client: Redis, url: str) -> list[str]:
    """One line for each setting of the server with which a run can be lost, with the commands that change it.

    A server that does not answer such questions (no permission, renamed or unknown commands) is not guessed about:
    what cannot be told is left out. Raises nothing for that; an unreachable server raises as ever.
    """
    lines: list[str] = []
    where = shown(url)
    keep = f"`redis-cli CONFIG SET appendonly yes` turns that on at {where}, `redis-cli CONFIG REWRITE` for good"
    if _info(client, "persistence").get("aof_enabled") == "0":
        snapshots = setting(client, "save")
        if snapshots == "":
            lines.append(f"warning: this server keeps nothing on disk: a crash of it loses the run; {keep}")
        elif snapshots is None:
            lines.append(f"warning: this server keeps no append-only file: a crash of it can lose rounds; {keep}")
        else:
            what = f"only snapshots ({snapshots}): a crash of it loses what came after the last one"
            lines.append(f"warning: this server keeps {what}; {keep}")
    policy = _info(client, "memory").get("maxmemory_policy") or setting(client, "maxmemory-policy")
    if policy not in (None, "noeviction"):
        lines.append(
            f"warning: this server may evict keys when it is full (maxmemory-policy {policy}), and each is a part of a "
            f"run's state; `redis-cli CONFIG SET maxmemory-policy noeviction` ends that at {where}, "
            "`redis-cli CONFIG REWRITE` for good"
        )
    return lines


def _info(client: Redis, section: str) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in client.info(section).items()}
    except redis.exceptions.ResponseError:  # NoPermissionError is one
        return {}


def setting(client: Redis, name: str) -> str | None:
    """Return a setting of the server; None where it does not tell this user."""
    try:
        found = client.config_get(name)
    except redis.exceptions.ResponseError:
        return None
    return str(found[name]) if name in found else None
