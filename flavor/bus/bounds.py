"""The settings of a server that bound what one client can take of it: memory beside its values, and time.

`maxmemory` bounds what clients store. Without these settings, a site's user takes more than that by other ways: answers
that it asks for in one transaction and does not read, names in the log of what its user was refused, and values that
one command deletes. `flavor.bus.acl` bounds the rest.
"""

from __future__ import annotations

import redis

from flavor.bus.connection import Redis, shown

BOUNDS = {
    "maxmemory-clients": "20%",
    "client-output-buffer-limit": "normal 64mb 0 0 pubsub 4mb 2mb 60",
    "proto-max-bulk-len": "4mb",
    "acllog-max-len": "16",
    "lazyfree-lazy-user-del": "yes",
    "lazyfree-lazy-server-del": "yes",
    "lazyfree-lazy-expire": "yes",
}
"""Each setting, with the value that docs/deployment.md, compose.yaml and the embedded server give it.

The largest value that flavor or RQ sends is a job, which has at most 4 MiB (an inspection of ten thousand clients has
0.7 MiB). A run's settings have at most 1 MiB, a site's fields 16 KiB, and a publication some bytes.
"""
_UNSET = {"proto-max-bulk-len": 512 << 20, "acllog-max-len": 128}
"""What Redis has where nothing is configured."""
_PUBSUB_UNSET = 32 << 20


def bounds_warnings(client: Redis, url: str) -> list[str]:
    """A line that names the settings of `BOUNDS` that the server lacks, with the commands that set them.

    A server that does not tell its settings is not guessed about.
    """
    try:
        found = client.config_get(*BOUNDS)
    except redis.exceptions.ResponseError:  # NoPermissionError is one
        return []
    lacking = {name: value for name, value in BOUNDS.items() if name in found and not _bounds(name, str(found[name]))}
    if not lacking:
        return []
    commands = " ".join(f"{name} '{value}'" if " " in value else f"{name} {value}" for name, value in lacking.items())
    return [
        "warning: this server lacks settings that keep one site from filling its memory past maxmemory or holding it "
        f"up; `redis-cli CONFIG SET {commands}` sets them at {shown(url)}, `redis-cli CONFIG REWRITE` for good"
    ]


def _bounds(name: str, value: str) -> bool:
    """Whether this setting has a bound, other than the one that Redis has where nothing is configured."""
    if name.startswith("lazyfree-"):
        return value == "yes"
    if name == "maxmemory-clients":
        return value != "0"
    if name == "client-output-buffer-limit":
        words = value.split()
        hard = {words[at]: int(words[at + 1]) for at in range(0, len(words) - 3, 4)}
        return hard.get("normal", 0) > 0 and 0 < hard.get("pubsub", 0) < _PUBSUB_UNSET
    return 0 <= int(value) < _UNSET[name]
