"""The RQ worker behind `flavor-agg`: one queue, the JSON serializer, only its own two functions.

Jobs run inside this process, not in a fork for each: they are numpy and files, they hold no foreign code, and a
fork would cost more than most of them. What would kill a forked job kills this process instead; the round's lease
runs out then, and the coordinator starts another attempt wherever another worker listens.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException
from rq.worker import SimpleWorker, WorkerStatus

from flavor.bus.connection import connect, options, wait_for_server
from flavor.errors import MisuseError
from flavor.store.objects import ObjectStore
from workers.context import WorkerContext, set_context
from workers.jobs import ALLOWED

_KEEP_FAILURES_S = 86_400


class ForeignJob(MisuseError):
    """A job that names a function that is not this project's; it was dropped."""


class OwnJob(Job):
    """A job that can run nothing but this project's functions, whatever its hash in Redis says.

    Callbacks and webhooks, which RQ would import and call by name, are forgotten as the job is read.
    """

    def restore(self, raw_data: Any) -> Any:
        """Read the job's hash, without what could make us call something else."""
        result = super().restore(raw_data)
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks = []
        return result

    @property
    def func(self) -> Callable[..., None]:
        """The function of the allow-list; `ForeignJob` for any other name."""
        name = self.func_name
        if name not in ALLOWED or self.instance:
            raise ForeignJob(f"job {self.id} asks for {name!r}, which no aggregator runs: it is dropped")
        return ALLOWED[name]


class OwnWorker(SimpleWorker):
    """RQ's worker without what costs more than jobs that take a millisecond each.

    RQ writes a record of each execution, so that another worker may find an abandoned job after a minute and run it
    again; here the coordinator asks again for whatever was not done, within the lease that it was given. And RQ's own
    heartbeat, which keeps a key alive for minutes, is written up to five times a job; once a second is enough.
    """

    _REPEAT_S = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._beaten_at = self._asked_at = 0.0

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one job in this process; one that fails goes to RQ's registry of failed jobs with its trace."""
        with self.connection.pipeline() as step:
            self.set_state(WorkerStatus.BUSY, step)  # SIGTERM lets a busy worker finish its job
            step.lrem(queue.intermediate_queue_key, 1, job.id)
            step.execute()
        try:
            with self.death_penalty_class(job.timeout or queue.DEFAULT_TIMEOUT, JobTimeoutException, job_id=job.id):
                job.perform()
        except Exception:
            self.log.error("job %s failed", job.id, exc_info=True)
            queue.failed_job_registry.add(job, ttl=_KEEP_FAILURES_S, exc_string=traceback.format_exc())
            self.set_state(WorkerStatus.IDLE)
        else:
            with self.connection.pipeline() as step:
                self.set_state(WorkerStatus.IDLE, step)
                step.delete(job.key)
                step.execute()

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Say that this worker lives; on its own at most once a second."""
        now = time.monotonic()
        if pipeline is None and timeout is None and now - self._beaten_at < self._REPEAT_S:
            return
        self._beaten_at = now
        super().heartbeat(timeout, pipeline)

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Record a new state; the one it is in already is not written again."""
        if state != self._state:
            super().set_state(state, pipeline)

    def check_for_suspension(self, burst: bool) -> None:
        """Look for `rq suspend`, at most once a second."""
        now = time.monotonic()
        if burst or now - self._asked_at >= self._REPEAT_S:
            self._asked_at = now
            super().check_for_suspension(burst)


def serve(
    url: str,
    store: ObjectStore,
    *,
    queue: str,
    threads: int,
    tell: Callable[[str], None],
    patience_s: float = 60.0,
) -> None:
    """Work on `queue` until told to stop by SIGINT or SIGTERM; the job in hand is finished first."""
    redis = connect(url, patience_s=patience_s, client_name="flavor-agg")
    wait_for_server(redis, url)
    set_context(WorkerContext(redis, url, store, threads=threads, tell=tell))
    connection = Redis.from_url(url, **options(url, patience_s))
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    worker = make_worker(connection, queue)
    tell(f"aggregator {worker.name[:12]} listens on queue {queue!r}")
    worker.work(with_scheduler=False, logging_level="WARNING")


def make_worker(connection: Redis, queue: str) -> OwnWorker:
    """A worker on one queue: with exactly one, RQ moves jobs atomically and loses none."""
    only = Queue(queue, connection=connection, serializer=JSONSerializer, job_class=OwnJob)
    return OwnWorker([only], connection=connection, serializer=JSONSerializer, job_class=OwnJob)
