"""Workers that give their work back, and why, for coordinators and operators.

A worker gives back all work, for a fault of its machine, or the work of single runs whose store it cannot reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from flavor.bus.keys import resting_key

_LONGEST = 500
_KEEP_S = 60
"""Longer than a worker rests: the worker records each rest anew."""


def note_resting(connection: Any, queues: Sequence[str], worker: str, reason: str, run: str = "") -> None:
    """Record that a worker of these queues takes no work, or none of `run`, and why."""
    with connection.pipeline(transaction=False) as step:
        for queue in queues:
            step.hset(resting_key(queue), _field(worker, run), reason[:_LONGEST])
            step.expire(resting_key(queue), _KEEP_S)
        step.execute()


def note_working(connection: Any, queues: Sequence[str], worker: str, runs: Sequence[str] = ()) -> None:
    """Record that the worker takes work again, also of these `runs`, or has ended."""
    with connection.pipeline(transaction=False) as step:
        for queue in queues:
            step.hdel(resting_key(queue), worker, *(_field(worker, run) for run in runs))
        step.execute()


def resting(connection: Any, queue: str, run: str = "") -> list[str]:
    """Return why workers of this queue take no work, or none of `run`: each reason once, sorted."""
    return sorted({reason for _, of, reason in _notes(connection, queue) if of in ("", run)})


def resting_workers(connection: Any, queue: str) -> dict[str, str]:
    """Return the workers of this queue that give their work back, and why; not those without the work of one run."""
    return {worker: reason for worker, of, reason in _notes(connection, queue) if not of}


def without(connection: Any, queue: str, run: str) -> set[str]:
    """Return the workers of this queue that take no work of `run`."""
    return {worker for worker, of, _ in _notes(connection, queue) if of == run}


def _field(worker: str, run: str) -> str:
    return f"{worker} {run}" if run else worker


def _notes(connection: Any, queue: str) -> Iterator[tuple[str, str, str]]:
    """Yield worker, run ('' for all) and reason."""
    for field, reason in connection.hgetall(resting_key(queue)).items():
        worker, _, run = _text(field).partition(" ")
        yield worker, run, _text(reason)


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
