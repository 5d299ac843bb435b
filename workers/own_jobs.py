"""The jobs that a worker takes from its queue: this project's own, read within bounds. Other jobs are dropped.

A party that can write to `rq:*` chooses the content of a job. RQ reads all of it: names that it imports and calls, web
addresses that it sends to, numbers and dates that end the worker when they are invalid, data of any size that it
unpacks. This module reads only the name of the function, which must be on the list, its arguments, and a time limit.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import redis
from redis import Redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from flavor.bus.dropped_jobs import record_dropped
from flavor.errors import MisuseError
from flavor.signals import Errand
from workers.jobs import ALLOWED, fits

_FIELDS = ("data", "origin", "timeout")
_MOST_BYTES = 4 * 1024 * 1024
"""Bytes of a job, packed and unpacked; an inspection of ten thousand clients takes 0.7 MiB."""
_LONGEST_S = 2**31 - 1
_KEEP_S = 86_400
"""The record of a dropped or lost job stays this long, so that people can look at it with redis-cli."""
_ABANDONED_S = 60
_SHOWN = 200


class ForeignJob(MisuseError):
    """A job that this project did not make; it was dropped."""


class OwnJob(Job):
    """A job that can run only this project's functions, with any hash in Redis."""

    def refresh(self) -> None:
        """Read the needed fields of the job's hash. Raises `ForeignJob`, and RQ's `NoSuchJobError`."""
        with self.connection.pipeline(transaction=False) as step:
            for name in _FIELDS:
                step.hstrlen(self.key, name)
            sizes = step.execute()
        if not sizes[0]:
            raise NoSuchJobError(f"there is no job {self.key!r}")
        if sum(sizes) > _MOST_BYTES:
            raise ForeignJob(f"it has {sum(sizes)} bytes, more than any of ours")
        self.restore(dict(zip(_FIELDS, self.connection.hmget(self.key, _FIELDS), strict=True)))

    def restore(self, raw_data: Any) -> Any:
        """Set the fields; every other attribute keeps the value of a new job, which calls and sends nothing."""
        fields = {(name.decode() if isinstance(name, bytes) else name): value for name, value in raw_data.items()}
        self.data = _unpacked(fields["data"])
        self.origin = (fields.get("origin") or b"").decode(errors="replace")
        timeout = fields.get("timeout") or b""
        self.timeout = min(int(timeout), _LONGEST_S) if re.fullmatch(rb"[0-9]{1,12}", timeout) else None
        self._status = JobStatus.QUEUED

    @property
    def func(self) -> Callable[..., bool]:
        """Return the function of the allow-list; raises `ForeignJob` for another name, or arguments that do not fit."""
        try:
            name, instance, arguments, named = self.func_name, self.instance, self.args, self.kwargs
        except Exception as error:  # the serializer may raise anything for data that is no job
            raise ForeignJob(f"it cannot be read ({type(error).__name__})") from None
        if not isinstance(name, str) or name not in ALLOWED or instance:
            raise ForeignJob(f"it asks for {repr(name)[:_SHOWN]}, which no aggregator runs")
        if named or not fits(name, arguments):
            raise ForeignJob(f"it asks for {name} with arguments that are not such a job's: {repr(arguments)[:_SHOWN]}")
        return ALLOWED[name]


def _unpacked(data: bytes) -> bytes:
    """Unpack the data of a job, which RQ may have packed."""
    try:
        unpacked = zlib.decompressobj().decompress(data, _MOST_BYTES + 1)
    except zlib.error:
        return data
    if len(unpacked) > _MOST_BYTES:
        raise ForeignJob(f"its {len(data)} bytes unpack to more than {_MOST_BYTES}")
    return unpacked


class OwnQueue(Queue):
    """RQ's queue, reduced to this project's jobs. `tell` reports the others, which are visible in Redis too."""

    tell: Callable[[str], None] = staticmethod(lambda _: None)

    @classmethod
    def dequeue_any(
        cls,
        queues: Iterable[Queue],
        timeout: int | None,
        connection: Any,
        job_class: type[Job] | None = None,
        serializer: Any = None,
        death_penalty_class: Any = None,
        errand: Errand | None = None,
    ) -> tuple[Job, Queue] | None:
        """Return the next own job and its queue; None where nothing is waited for. Raises RQ's `DequeueTimeout`.

        The `errand` is in hand once a job has been taken, and is put down for a job that is dropped.
        """
        errand = errand or Errand()
        by_key = {queue.key.encode(): queue for queue in queues}
        while True:
            if len(by_key) == 1:
                taken = cls.lmove(connection, next(iter(by_key.values())).key, timeout)
            else:
                taken = cls.lpop([queue.key for queue in by_key.values()], timeout, connection=connection)
            if taken is None:
                return None
            errand.take_up()
            key, identity = taken
            queue = by_key[key.encode() if isinstance(key, str) else key]
            try:
                job = OwnJob.fetch(identity.decode(), connection=connection, serializer=serializer)
                _ = job.func
            except (
                redis.exceptions.ConnectionError,
                redis.exceptions.TimeoutError,
                redis.exceptions.NoPermissionError,
            ):
                errand.put_down()
                raise
            except NoSuchJobError:
                connection.lrem(queue.intermediate_queue_key, 1, identity)
                errand.put_down()
            except Exception as error:
                cls._dropped(queue, identity, error, errand)
            else:
                return job, queue

    @staticmethod
    def _dropped(queue: Queue, identity: bytes, error: Exception, errand: Errand) -> None:
        assert isinstance(queue, OwnQueue)
        queue.drop(identity, str(error) if isinstance(error, ForeignJob) else type(error).__name__)
        errand.put_down()

    def drop(self, identity: bytes, reason: str) -> None:
        """Drop a foreign job: no worker takes it again, its hash expires after a day, and it is reported."""
        connection: Any = self.connection
        shown = repr(identity[:_SHOWN].decode(errors="replace"))
        connection.lrem(self.intermediate_queue_key, 1, identity)
        connection.expire(Job.redis_job_namespace_prefix.encode() + identity.partition(b":")[0], _KEEP_S)
        self.tell(f"job {shown} in queue {self.name!r} is not this project's and was dropped: {reason}")
        record_dropped(connection, queue=self.name, job=shown, reason=reason)

    def forget_abandoned(self) -> None:
        """Drop jobs that another worker took before it was killed: the coordinator asks again for what is due."""
        connection: Any = self.connection  # it reads bytes
        for identity in connection.lrange(self.intermediate_queue_key, 0, 1000):
            seen = f"{self.intermediate_queue_key}:first_seen:".encode() + identity
            if connection.set(seen, 1, nx=True, ex=_KEEP_S):
                continue
            if connection.ttl(seen) < _KEEP_S - _ABANDONED_S:
                connection.lrem(self.intermediate_queue_key, 1, identity)
                connection.expire(Job.redis_job_namespace_prefix.encode() + identity, _KEEP_S)
                connection.delete(seen)


def queue_named(connection: Redis, name: str) -> OwnQueue:
    """Return the queue of this name, limited to this project's jobs."""
    return OwnQueue(name, connection=connection, serializer=JSONSerializer, job_class=OwnJob)
