"""Jobs that workers refused to run: another program writes to the queue, and operators should know."""

from __future__ import annotations

from typing import Any

from flavor.bus.keys import DROPPED

_KEPT = 1000
_LONGEST = 500
_RECENT_MS = 7 * 86_400_000


def record_dropped(connection: Any, *, queue: str, job: str, reason: str) -> None:
    """Record a dropped job. The newest thousand records stay."""
    fields = {"queue": queue, "job": job[:_LONGEST], "reason": reason[:_LONGEST]}
    connection.xadd(DROPPED, fields, maxlen=_KEPT, approximate=True)


def dropped_lately(redis: Any) -> list[dict[str, str]]:
    """Return the jobs dropped in the last seven days by the server's clock, newest first: queue, job, reason."""
    seconds, _ = redis.time()
    since = int(seconds) * 1000 - _RECENT_MS
    return [fields for _, fields in redis.xrevrange(DROPPED, "+", str(max(0, since)), count=_KEPT)]
