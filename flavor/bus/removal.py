"""Removing many keys by how they begin. Nothing in it needs room, so that it helps a server that is full."""

from __future__ import annotations

from flavor.bus.connection import Redis


def remove_keys(client: Redis, start: str) -> int:
    """Remove every key that begins with `start`, also one whose name is no text; returns how many there were."""
    pattern, cursor, removed = start.replace("{", "\\{").replace("}", "\\}"), 0, 0
    while True:
        cursor, found = client.execute_command("SCAN", cursor, "MATCH", f"{pattern}*", "COUNT", 1000, NEVER_DECODE=True)
        if found:
            removed += int(client.unlink(*found))
        if not int(cursor):
            return removed
