"""The RQ worker behind `flavor-agg`: its queue, the JSON serializer, only its own two functions.

Jobs run inside this process, not in a fork for each: they are numpy and files, they hold no foreign code, and a
fork would cost more than most of them. What would kill a forked job kills this process instead; the round's lease
runs out then, and the coordinator starts another attempt wherever another worker listens.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import time
import traceback
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError
from rq import Queue
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException
from rq.utils import now
from rq.worker import SimpleWorker, WorkerStatus
from rq.worker_registration import clean_worker_registry

from flavor.bus.connection import connect, options, wait_for_server
from flavor.errors import BusUnavailable
from flavor.ledger.keys import SigningKey
from flavor.store.objects import ObjectStore
from workers.builtin import Engine
from workers.command import CommandCombiner, StartedAnew, UserCommand
from workers.context import WorkerContext, set_context, silent
from workers.intake import LockedOut, OwnJob, OwnQueue
from workers.jobs import AGGREGATE
from workers.resident import Residents

_KEEP_FAILURES_S = 86_400
_LISTEN_S = 5


class OwnWorker(SimpleWorker):
    """RQ's worker without what costs more than jobs that take a millisecond each.

    RQ writes a record of each execution, so that another worker may find an abandoned job after a minute and run it
    again; here the coordinator asks again for whatever was not done, within the lease that it was given. And RQ's own
    heartbeat, which keeps a key alive for minutes, is written up to five times a job; once a second is enough.

    It listens to no commands: whoever may publish on its channel could end it. `rq suspend` pauses it, SIGTERM ends it.
    """

    _REPEAT_S = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._beaten_at = self._asked_at = 0.0
        self.asked_to_end = False
        self.refusal: BaseException | None = None

    def subscribe(self) -> None:
        """Do not listen to the channel of this worker."""

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """The next job; a server that lets us in no more is not asked for ever, as RQ would."""
        try:
            return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
        except LockedOut as error:
            self.refusal = error.__cause__
            raise StopRequested from error

    @property
    def dequeue_timeout(self) -> int:
        """Seconds to wait for a job at a time: proxies cut connections that are idle for ten, and it is no outage."""
        return _LISTEN_S

    def _set_ip_address(self, connection: Redis) -> None:
        """Do not ask who is connected: the user of an aggregator may not."""
        self.ip_address = "unknown"

    def request_stop(self, signum: Any, frame: Any) -> None:
        """Note that the end was asked for."""
        self.asked_to_end = True
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def run_maintenance_tasks(self) -> None:
        """Forget workers that died and what they had taken. RQ's registries and groups stay unread: we use none."""
        self.last_cleaned_at = now()  # type: ignore[assignment]
        for queue in self.queues:
            assert isinstance(queue, OwnQueue)
            if queue.acquire_maintenance_lock():
                try:
                    clean_worker_registry(queue)
                    queue.failed_job_registry.cleanup()
                    queue.forget_abandoned()
                except (ResponseError, ValueError) as error:  # somebody wrote there what is not RQ's
                    queue.tell(f"the upkeep of queue {queue.name!r} was given up: {error}")
                finally:
                    queue.release_maintenance_lock()  # type: ignore[no-untyped-call]

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
            with contextlib.suppress(ResponseError):
                queue.failed_job_registry.add(job, ttl=_KEEP_FAILURES_S, exc_string=traceback.format_exc())
            self.set_state(WorkerStatus.IDLE)
        else:
            with self.connection.pipeline() as step:
                self.set_state(WorkerStatus.IDLE, step)
                step.delete(job.key)
                step.execute()

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Say that this worker lives, on its own at most once a second; to a server that lost it, also who it is."""
        now = time.monotonic()
        if pipeline is None and timeout is None and now - self._beaten_at < self._REPEAT_S:
            return
        self._beaten_at = now
        if pipeline is None and not self.connection.hexists(self.key, "birth"):
            self.connection.delete(self.key)  # RQ takes what is left there for another worker of this name
            self.register_birth()  # type: ignore[no-untyped-call]
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
    command: UserCommand | None = None,
    init_once: bool = False,
    key: SigningKey | None = None,
) -> None:
    """Work on `queue` until told to stop by SIGINT or SIGTERM; the job in hand is finished first.

    With `command` it aggregates by that, started for each round, or with `init_once` once for each run. `key` signs its
    manifests; a key that lives as long as the process when None.
    """
    redis = connect(url, patience_s=patience_s, client_name="flavor-agg")
    wait_for_server(redis, url)
    connection = Redis.from_url(url, **options(url, patience_s))
    key = key or SigningKey.generate()
    context = WorkerContext(redis, url, store, combiner=Engine(threads), tell=tell, key=key)
    queues = [queue]
    if command is not None and init_once:
        home = f"{queue}@{context.name}"
        queues.append(home)
        context.residents = Residents(command, home, run=context.run, tell=tell)
        context.combiner = CommandCombiner(command, context.residents)
        context.hand_over = HandOver(connection)
    elif command is not None:
        context.combiner = CommandCombiner(command, StartedAnew(command))
    set_context(context)
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    worker = make_worker(connection, *queues, tell=tell)
    tell(f"aggregator {worker.name[:12]} listens on queue {queue!r} and signs with key {key.public.fingerprint}")
    try:
        worker.work(with_scheduler=False, logging_level="WARNING")
        if worker.refusal is not None:
            raise worker.refusal
        if not worker.asked_to_end:
            raise BusUnavailable(f"the queue {queue!r} cannot be worked on any more; the lines above say why")
    finally:
        if context.residents is not None:
            context.residents.close()
            _queue(connection, home).delete(delete_jobs=True)


class HandOver:
    """Puts the aggregation of a round into the queue of the worker that keeps the run's process."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection

    def __call__(self, home: str, run: str, round_: int, attempt: int, timeout_s: float) -> None:
        """Enqueue it. A worker that is gone leaves it there; the coordinator asks again."""
        queue = _queue(self._connection, home)
        queue.enqueue_call(
            AGGREGATE,
            args=(run, round_, attempt),
            job_id=f"at-{secrets.token_hex(8)}",
            timeout=math.ceil(timeout_s),
            ttl=_KEEP_FAILURES_S,
            result_ttl=0,
            failure_ttl=_KEEP_FAILURES_S,
        )
        self._connection.expire(queue.key, _KEEP_FAILURES_S)  # a worker that was killed never empties it


def _queue(connection: Redis, name: str) -> OwnQueue:
    return OwnQueue(name, connection=connection, serializer=JSONSerializer, job_class=OwnJob)


def make_worker(connection: Redis, *queues: str, tell: Callable[[str], None] = silent) -> OwnWorker:
    """A worker on these queues, which tells of what it drops.

    From exactly one, RQ moves jobs atomically and loses none. From two, the jobs that a worker takes and does not live
    to run are lost; the coordinator asks for them again.
    """
    own = [_queue(connection, name) for name in queues]
    for queue in own:
        queue.tell = tell
    return OwnWorker(own, connection=connection, serializer=JSONSerializer, job_class=OwnJob, queue_class=OwnQueue)
