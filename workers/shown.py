"""What RQ's own tools, `rq info` and rq-dashboard, show of a job in hand: that it has started, ended or failed.

RQ's worker writes a record of each execution for that, in seven commands and two round trips. Three commands in round
trips that are made anyway keep the same registries true. The index of a worker's executions is left out: rq-dashboard
0.9 reads the job that it names with pickle, with `--json` too, and its page of workers would be an error.
"""

from __future__ import annotations

import time
from typing import Any

from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.results import Result
from rq.utils import now, utcformat

_STARTED_S = 90
"""How long a job counts as started after the newest sign of life of its worker."""
_MOST_TRACE = 64 * 1024


def note_started(step: Any, job: Job, queue: Queue, worker: str) -> None:
    """Record that the worker has begun the job."""
    job.started_at = now()
    fields = {"status": JobStatus.STARTED.value, "started_at": utcformat(job.started_at), "worker_name": worker}
    step.hset(job.key, mapping=fields)
    _note_alive(step, job, queue, worker, xx=False)


def note_alive(step: Any, job: Job, queue: Queue, worker: str) -> None:
    """Record that the worker still has the job in hand."""
    _note_alive(step, job, queue, worker, xx=True)


def _note_alive(step: Any, job: Job, queue: Queue, worker: str, *, xx: bool) -> None:
    if ":" not in job.id:  # RQ takes the name of a started job apart at its colon, and no job of ours has one
        step.zadd(_started(queue), {_execution(job, worker): time.time() + _STARTED_S}, xx=xx)


def note_done(step: Any, job: Job, queue: Queue, worker: str) -> None:
    """Remove the job, which is done."""
    step.zrem(_started(queue), _execution(job, worker))
    step.delete(job.key)


def note_queued(step: Any, job: Job, queue: Queue, worker: str) -> None:
    """Record that the job is in its queue again."""
    step.zrem(_started(queue), _execution(job, worker))
    step.hset(job.key, "status", JobStatus.QUEUED.value)


def note_failed(step: Any, job: Job, queue: Queue, worker: str, trace: str, keep_s: int) -> None:
    """Record that the job has failed, with its trace, for so many seconds."""
    step.zrem(_started(queue), _execution(job, worker))
    _fail(step, queue, job.key, job.id, keep_s)
    Result.create_failure(job, keep_s, exc_string=trace[-_MOST_TRACE:], worker_name=worker, pipeline=step)


def fail_abandoned(connection: Any, queue: Queue, keep_s: int) -> None:
    """Record the jobs of this queue as failed whose worker has ended without a word."""
    for execution in connection.zrangebyscore(_started(queue), 0, time.time(), start=0, num=1000):
        identity = execution.rpartition(b":")[0]
        key = Job.redis_job_namespace_prefix.encode() + identity
        with connection.pipeline() as step:
            step.zrem(_started(queue), execution)
            if connection.exists(key):
                _fail(step, queue, key, identity, keep_s)
            step.execute()


def _fail(step: Any, queue: Queue, key: str | bytes, identity: str | bytes, keep_s: int) -> None:
    step.hset(key, mapping={"status": JobStatus.FAILED.value, "ended_at": utcformat(now())})
    step.expire(key, keep_s)
    step.zadd(FailedJobRegistry.key_template.format(queue.name), {identity: time.time() + keep_s})


def _started(queue: Queue) -> str:
    return StartedJobRegistry.key_template.format(queue.name)


def _execution(job: Job, worker: str) -> str:
    return f"{job.id}:{worker.replace(':', '-')}"
