"""Aggregators that give their work back, and why: coordinators and operators should know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flavor.bus.keys import resting_key

_LONGEST = 500
_KEEP_S = 60
"""Longer than a worker rests: it says so again each time."""


def note_resting(connection: Any, queues: Sequence[str], worker: str, reason: str) -> None:
    """Note that a worker of these queues takes no work, and why."""
    with connection.pipeline(transaction=False) as step:
        for queue in queues:
            step.hset(resting_key(queue), worker, reason[:_LONGEST])
            step.expire(resting_key(queue), _KEEP_S)
        step.execute()


def note_working(connection: Any, queues: Sequence[str], worker: str) -> None:
    """Note that it takes work again, or has ended."""
    with connection.pipeline(transaction=False) as step:
        for queue in queues:
            step.hdel(resting_key(queue), worker)
        step.execute()


def resting(connection: Any, queue: str) -> list[str]:
    """Why workers of this queue take no work, each reason once, sorted."""
    found = connection.hvals(resting_key(queue))
    return sorted({reason.decode(errors="replace") if isinstance(reason, bytes) else reason for reason in found})
