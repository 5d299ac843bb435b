"""RQ's queues as people see them: how many jobs wait, and which workers are there. Read from RQ's own keys."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flavor.bus.connection import Redis, translated
from flavor.bus.dropped_jobs import dropped_lately
from flavor.bus.resting import resting_workers

_MOST_WORKERS = 500
_MOST_DROPPED = 50
_LONGEST = 200
_WORKER = "rq:worker:"
_FIELDS = ("hostname", "pid", "state", "current_job", "birth", "last_heartbeat", "queues")
_COUNTS = ("successful_job_count", "failed_job_count")


def read_queues(redis: Redis, where: str, queues: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Read the queues with these names, each with the names of its runs. Raises `BusUnavailable`.

    `flavor.view.board.Board.queue` lists the keys of the result.
    """
    names = list(queues)
    with translated(where):
        with redis.pipeline(transaction=False) as reads:
            for queue in names:
                reads.llen(f"rq:queue:{queue}").llen(f"rq:queue:{queue}:intermediate").zcard(f"rq:wip:{queue}")
                reads.zcard(f"rq:failed:{queue}").smembers(f"rq:workers:{queue}")
            answers = reads.execute()
        resting = {queue: resting_workers(redis, queue) for queue in names}
        fives = [answers[at : at + 5] for at in range(0, len(answers), 5)]
        keys = {
            queue: set(five[4]) | {f"{_WORKER}{name}" for name in resting[queue]}
            for queue, five in zip(names, fives, strict=True)
        }
        every = sorted({key for members in keys.values() for key in members})[:_MOST_WORKERS]
        with redis.pipeline(transaction=False) as reads:
            for key in every:
                reads.hmget(key, *_FIELDS, *_COUNTS)
            hashes = dict(zip(every, reads.execute(), strict=True))
        dropped = dropped_lately(redis)[:_MOST_DROPPED]
    reasons = {name: reason for found in resting.values() for name, reason in found.items()}
    workers = {
        key: _worker(key, values, reasons.get(key.removeprefix(_WORKER), ""))
        for key, values in hashes.items()
        if values[4] is not None
    }
    return {
        "queues": [
            {
                "queue": queue,
                "length": length,
                "started": max(wip, taken),
                "failed": failed,
                "workers": dict(Counter(workers[key]["state"] for key in sorted(keys[queue]) if key in workers)),
                "runs": list(queues[queue]),
            }
            for queue, (length, taken, wip, failed, _) in zip(names, fives, strict=True)
        ],
        "workers": list(workers.values()),
        "dropped": dropped,
    }


def _worker(key: str, values: Sequence[str | None], resting: str) -> dict[str, Any]:
    host, pid, state, job, birth, beat, queues, done, failed = ((value or "")[:_LONGEST] for value in values)
    return {
        "name": key.removeprefix(_WORKER),
        "host": host,
        "pid": _number(pid),
        "queues": [queue for queue in queues.split(",") if queue],
        "state": "resting" if resting else state or "idle",
        "job": job,
        "resting": resting,
        "born_ms": _time_ms(birth),
        "beat_ms": _time_ms(beat),
        "done": _number(done),
        "failed": _number(failed),
    }


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _time_ms(text: str) -> int | None:
    """Return the time in milliseconds that RQ has written as text, by the clock of the worker's machine."""
    with contextlib.suppress(ValueError):
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    return None
