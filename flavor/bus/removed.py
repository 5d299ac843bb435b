"""Runs that an operator has removed: for a day, watchers tell them from runs that Redis has lost."""

from __future__ import annotations

from typing import Any

import redis.exceptions

from flavor.bus.connection import Redis, shown, translated
from flavor.bus.keys import REMOVED

_KEPT_S = 86_400
"""Longer than a watcher may need to look again."""
_MOST = 1000
"""The newest so many runs are kept."""


def note_removed(client: Redis, run: str, url: str) -> None:
    """Record that an operator removes this run. Raises `BusUnavailable`, also where the server has no room for it."""
    with translated(shown(url)):
        seconds, microseconds = client.time()
        now_s = (1000 * seconds + microseconds // 1000) / 1000  # exact: a run may be removed as soon as it is created
        with client.pipeline() as step:
            step.zadd(REMOVED, {run: now_s})
            step.zremrangebyscore(REMOVED, "-inf", now_s - _KEPT_S)
            step.zremrangebyrank(REMOVED, 0, -_MOST - 1)
            step.expire(REMOVED, _KEPT_S)
            step.execute()


def forget_removal(step: Any, run: str) -> None:
    """Add to a pipeline that a run of this name is there again; `create_run.lua` does the same."""
    step.zrem(REMOVED, run)


def removed_runs(client: Redis, url: str) -> dict[str, int]:
    """Return the runs that were removed, and when, in milliseconds of the server's clock.

    Empty where this user may not read that, or the key has another type: runs that vanish are then taken for lost.
    """
    with translated(shown(url)):
        try:
            found = client.zrange(REMOVED, 0, -1, withscores=True)
        except redis.exceptions.ResponseError:
            return {}
    return {str(run): round(1000 * score) for run, score in found}
