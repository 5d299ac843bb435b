"""Work for the aggregators, as the coordinator sees it: four jobs, by name.

The coordinator never imports `workers`: it writes jobs whose function is a name that the worker's allow-list knows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, Protocol

from flavor.bus.connection import options
from flavor.bus.resting import resting, without
from flavor.records.evaluation import CENTRAL

INSPECT = "workers.jobs.inspect"
AGGREGATE = "workers.jobs.aggregate"
MERGE = "workers.jobs.merge"
JUDGE = "workers.jobs.judge"
_KEEP_FAILURES_S = 86_400


class JobQueue(Protocol):
    """Where jobs go. At least once: every job is harmless when it runs twice."""

    def inspect(self, run: str, round_: int, clients: Sequence[str], *, attempt: int) -> str:
        """Have these clients' updates inspected; the job's name."""

    def aggregate(self, run: str, round_: int, *, attempt: int) -> None:
        """Have the round aggregated."""

    def merge(self, run: str, round_: int, number: int, *, attempt: int) -> None:
        """Have the results of an evaluation of this round's model merged."""

    def judge(self, run: str, round_: int, *, attempt: int) -> None:
        """Have this round's model judged on the operator's own data."""

    def judges(self) -> int:
        """How many workers can do that, also those that rest; those that were killed count for half a minute more."""

    def waits_for_worker(self, run: str, round_: int, number: int, *, attempt: int) -> bool:
        """Whether no worker has taken this job of `merge` yet; for the number `CENTRAL`, of `judge`."""

    def waits(self, job: str) -> bool:
        """Whether no aggregator has taken this job yet."""

    def workers(self) -> int:
        """How many aggregators listen, and take work; those that were killed count for half a minute more."""

    def absence(self) -> str:
        """Why nothing is done when there are none."""


def _job_name(what: str, run: str, round_: int, first: str, attempt: int, *clients: str) -> str:
    """A job's name: for people its parts, of which RQ does not allow all, and a digest of them, which no other has."""
    digest = hashlib.sha256(json.dumps([what, run, round_, attempt, clients]).encode()).hexdigest()[:16]
    shown = "-".join(part for part in (what, run, str(round_), first, str(attempt)) if part)
    return f"{shown.replace('.', '_')}-{digest}"


def _merge_name(run: str, round_: int, number: int, attempt: int) -> str:
    return _job_name("merge", run, round_, str(number), attempt)


def _judge_name(run: str, round_: int, attempt: int) -> str:
    return _job_name("judge", run, round_, "", attempt)


def judging_queue(queue: str) -> str:
    """Return the queue of the workers of `queue` that judge models on the operator's own data (`flavor-agg -e`).

    RQ's registry of that queue says which workers there are.
    """
    return f"{queue}@evaluators"


def _worker_of(key: bytes | str) -> str:
    """The name of a worker by its key in RQ's registry."""
    return (key.decode() if isinstance(key, bytes) else key).removeprefix("rq:worker:")


class RqJobQueue:
    """`JobQueue` on RQ, with the JSON serializer and one named queue."""

    def __init__(
        self, url: str, queue: str, *, timeout_s: float, patience_s: float = 60.0, run: str = "", quiet: bool = False
    ) -> None:
        """Open the queue; with `run` those that take no work of this run are not counted among its workers.

        `quiet` is as in `flavor.bus.connection.connect`.
        """
        from redis import Redis
        from rq import Queue
        from rq.serializers import JSONSerializer

        # RQ reads bytes, so this is a connection of its own
        self._connection = Redis.from_url(url, **options(url, patience_s, quiet=quiet))
        self._run = run
        self._queue, self._judging = (
            Queue(name, connection=self._connection, serializer=JSONSerializer, default_timeout=math.ceil(timeout_s))
            for name in (queue, judging_queue(queue))
        )

    def inspect(self, run: str, round_: int, clients: Sequence[str], *, attempt: int) -> str:
        """See `JobQueue`."""
        first = clients[0] if clients else ""
        name = _job_name("inspect", run, round_, first, attempt, *clients)
        return self._enqueue(INSPECT, name, run, round_, list(clients))

    def aggregate(self, run: str, round_: int, *, attempt: int) -> None:
        """See `JobQueue`."""
        self._enqueue(AGGREGATE, _job_name("aggregate", run, round_, "", attempt), run, round_, attempt)

    def merge(self, run: str, round_: int, number: int, *, attempt: int) -> None:
        """See `JobQueue`."""
        self._enqueue(MERGE, _merge_name(run, round_, number, attempt), run, round_, [number, attempt])

    def judge(self, run: str, round_: int, *, attempt: int) -> None:
        """See `JobQueue`."""
        self._enqueue(JUDGE, _judge_name(run, round_, attempt), run, round_, attempt, queue=self._judging)

    def judges(self) -> int:
        """See `JobQueue`."""
        return self._workers_of(self._judging) + len(resting(self._connection, self._judging.name, self._run))

    def waits_for_worker(self, run: str, round_: int, number: int, *, attempt: int) -> bool:
        """See `JobQueue`."""
        if number == CENTRAL:
            return self._connection.lpos(self._judging.key, _judge_name(run, round_, attempt)) is not None
        return self.waits(_merge_name(run, round_, number, attempt))

    def _enqueue(self, function: str, job_id: str, *args: object, queue: Any = None) -> str:
        with self._connection.pipeline() as step:  # of its own accord RQ asks twice
            (queue or self._queue).enqueue_call(
                function, args=args, job_id=job_id, result_ttl=0, failure_ttl=_KEEP_FAILURES_S, pipeline=step
            )
            step.execute()
        return job_id

    def waits(self, job: str) -> bool:
        """See `JobQueue`."""
        return self._connection.lpos(self._queue.key, job) is not None

    def workers(self) -> int:
        """See `JobQueue`. A killed worker stands in RQ's registry until another worker's upkeep removes it."""
        return self._workers_of(self._queue)

    def _workers_of(self, queue: Any) -> int:
        from rq.worker_registration import get_keys

        if self._is_suspended():
            return 0
        keys = get_keys(queue=queue)
        if keys and self._run:
            away = without(self._connection, queue.name, self._run)
            keys = {key for key in keys if _worker_of(key) not in away}
        return int(self._connection.exists(*keys)) if keys else 0

    def _is_suspended(self) -> bool:
        """Whether an operator holds all workers. RQ asks in a transaction, which a full server refuses."""
        from rq.suspension import WORKERS_SUSPENDED

        return bool(self._connection.exists(WORKERS_SUSPENDED))

    def absence(self) -> str:
        """See `JobQueue`."""
        if self._is_suspended():
            return "`rq suspend` holds every aggregator: let them go on with `rq resume --url URL`"
        if reasons := resting(self._connection, self._queue.name, self._run):
            return f"every aggregator on queue {self._queue.name!r} gives its work back for now: {'; '.join(reasons)}"
        return f"no aggregator listens on queue {self._queue.name!r}: start one with `flavor-agg`"
