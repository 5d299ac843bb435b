"""The RQ worker behind `flavor-agg`: its queue, the JSON serializer, and the only functions that it runs.

Jobs run inside this process, not in a fork for each: they are numpy and files, they hold no foreign code, and a fork
would cost more than most of them. A fault that would kill a forked job kills this process instead. The round's lease
then runs out, the coordinator starts another attempt on another worker of the queue, and `flavor-agg` starts this
worker again (`flavor.programs.supervision`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from typing import Any

import redis
from redis import Redis
from redis.exceptions import ResponseError
from rq import Queue
from rq.exceptions import DequeueTimeout, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.suspension import is_suspended
from rq.timeouts import JobTimeoutException
from rq.utils import now
from rq.worker import SimpleWorker, WorkerStatus
from rq.worker_registration import WORKERS_BY_QUEUE_KEY, clean_worker_registry, register, unregister

from flavor import alive
from flavor.bus.countdown import countdown, told_if_silent
from flavor.bus.patience import REFUSALS, where_of
from flavor.bus.resting import note_resting, note_working
from flavor.errors import BusUnavailable
from flavor.signals import Errand, asked_to_end, pause
from flavor.view.observer import Lines, Observer, notices
from flavor.view.worker_events import WorkGivenBack, WorkTaken
from workers.context import silent
from workers.fault import GivenBack
from workers.own_jobs import OwnJob, OwnQueue, queue_named
from workers.rest import Rest
from workers.shown import fail_abandoned, note_alive, note_done, note_failed, note_queued, note_started

_KEEP_FAILURES_S = 86_400
_ALIVE_S = 30
"""How long after its newest heartbeat a worker counts as alive, with a job in hand or without."""
_BEAT_S = 10.0
"""The interval of heartbeats during a job."""
_END_S = 2.0
_PASSED_S = 0.1
"""How long to leave a queue alone that holds only work of runs whose store this worker does not have."""
_POLL_S = 0.5
"""How long one look into the queue lasts; after it the worker reads signals."""


def _run_of(job: Job) -> str:
    """Return the run of one of this project's jobs."""
    return str(job.args[0])


class OwnWorker(SimpleWorker):
    """RQ's worker without the parts that cost more than jobs that take a millisecond each.

    RQ writes a record of each execution, so that another worker may find an abandoned job after a minute and run it
    again. Here the coordinator asks again for any job that was not done, within the lease that the job was given, and
    `workers.shown` keeps true what RQ's own tools show. RQ's own heartbeat keeps a key alive for minutes, and during a
    job for as long as the job may take; it is written up to five times a job. Here it is written once a second, and
    during a job every ten seconds from a thread of its own. A worker that was killed stops counting half a minute after
    its last heartbeat, so that people are told when there is no worker.

    The worker listens to no commands: any party that may publish on its channel could end it. `rq suspend` pauses it,
    SIGTERM ends it. RQ's own signal handler raises wherever the main thread stands, so that a job just taken may be
    lost; here the signal is noted (`flavor.signals`), and the worker reads it at each place where it can end.

    The worker gives back a job that it cannot do for a fault of its own, and then takes no work for a while; see
    `Rest`. Where it only lacks the store of one run, it takes no job of that run, and goes on with the jobs of others.
    """

    _REPEAT_S, _LONGEST_PAUSE_S = 1.0, 5.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._beaten_at = self._asked_at = 0.0
        self.refusal: BaseException | None = None
        self.errand = Errand()
        """In hand from the moment a job is taken until it is done or given back."""
        self.rest = Rest()
        self.aside: dict[str, Rest] = {}
        """Runs whose store this worker does not have, as far as it knows."""
        self._passed: set[str] = set()
        """Jobs of these runs that it has put behind the others since it last did one of them."""
        self.observer: Observer = Lines(silent)
        self._in_hand: tuple[Job, Queue] | None = None
        self._over = threading.Event()

    def subscribe(self) -> None:
        """Do not listen to the channel of this worker."""

    def _set_ip_address(self, connection: Redis) -> None:
        """Do not ask Redis who is connected: the user of an aggregator may not."""
        self.ip_address = "unknown"

    def work(self, burst: bool = False, logging_level: str | None = None, **_: Any) -> bool:  # type: ignore[override]
        """Do jobs until asked to end, or with `burst` until the queue is empty; return whether any was done.

        Waits without limit for a server that is away or stands still, and says so. Unlike RQ's worker, it does not wait
        for a server that refuses it: `refusal` then holds the server's answer.
        """
        jobs, wait_s, is_registered = 0, 1.0, False
        beat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beat.start()
        try:
            while True:
                try:
                    if not is_registered:
                        self.bootstrap(logging_level)
                        is_registered = True
                    found = self._next_job(burst)
                    if found is None:
                        break
                    self.execute_job(*found)
                    jobs, wait_s = jobs + 1, 1.0
                except (*REFUSALS, redis.exceptions.NoPermissionError) as error:
                    self.refusal = error
                    break
                except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                    if asked_to_end():
                        break
                    countdown.beyond(where_of(self.connection), error)
                    pause(wait_s)
                    wait_s = min(2 * wait_s, self._LONGEST_PAUSE_S)
        except StopRequested:
            pass
        except Exception:
            self.log.error("the worker cannot go on", exc_info=True)
        finally:
            self._over.set()
            beat.join(_END_S)  # a heartbeat that is under way would register the worker again after its death
            self.teardown()
        return bool(jobs)

    def _beat(self) -> None:
        """Send heartbeats during a job, and report a server that stands still.

        Registers the worker again at a server that was away for so long that it, or another worker, has forgotten this
        one.
        """
        while not self._over.wait(_BEAT_S):
            # after an error of the server, or at a limit of threads or memory, the next heartbeat may succeed
            with (
                contextlib.suppress(redis.exceptions.RedisError, OSError, RuntimeError, MemoryError),
                told_if_silent(where_of(self.connection)),
            ):
                if (in_hand := self._in_hand) is None:
                    self.connection.exists(self.key)
                    continue
                if self._is_known():
                    self.connection.expire(self.key, _ALIVE_S)
                else:
                    self._register_again()
                note_alive(self.connection, *in_hand, self.name)

    def _next_job(self, burst: bool) -> tuple[Job, Queue] | None:
        """Return the next job, with the errand in hand; None in a burst without one. Raises `StopRequested` to end."""
        while not asked_to_end():
            self.check_for_suspension(burst)
            self._take_a_rest()
            self.set_state(WorkerStatus.IDLE)
            self.heartbeat()
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
            with contextlib.suppress(DequeueTimeout):
                look_s: Any = None if burst else _POLL_S
                found = OwnQueue.dequeue_any(
                    self._ordered_queues, look_s, self.connection, serializer=self.serializer, errand=self.errand
                )
                if found is not None:
                    self.reorder_queues(reference_queue=found[1])
                    if self._passes(*found):
                        if burst:
                            return None
                        continue
                return found
        raise StopRequested

    def _passes(self, job: Job, queue: Queue) -> bool:
        """Put a job of a run that was set aside behind the others; return whether it was such a job."""
        rest = self.aside.get(_run_of(job))
        if rest is None or rest.left_s() <= 0:
            return False
        with self.connection.pipeline() as step:
            step.lrem(queue.intermediate_queue_key, 1, job.id)
            step.rpush(queue.key, job.id)
            step.execute()
        self.errand.put_down()
        if job.id in self._passed:  # the queue holds nothing else
            pause(_PASSED_S)
        self._passed.add(job.id)
        return True

    def _take_a_rest(self) -> None:
        while (left_s := self.rest.left_s()) > 0 and not asked_to_end():
            self.heartbeat()
            note_resting(self.connection, self.queue_names(), self.name, self.rest.reason)
            pause(min(left_s, 5.0))
        if asked_to_end():
            raise StopRequested

    def run_maintenance_tasks(self) -> None:
        """Remove dead workers and the jobs that they had taken. Skips RQ's groups and other registries: unused."""
        self.last_cleaned_at = now()  # type: ignore[assignment]
        for queue in self.queues:
            assert isinstance(queue, OwnQueue)
            if queue.acquire_maintenance_lock():
                try:
                    clean_worker_registry(queue)
                    queue.failed_job_registry.cleanup()
                    queue.forget_abandoned()
                    fail_abandoned(self.connection, queue, _KEEP_FAILURES_S)
                except (ResponseError, ValueError) as error:  # another party wrote there what is not RQ's
                    queue.tell(f"the upkeep of queue {queue.name!r} was given up: {error}")
                finally:
                    queue.release_maintenance_lock()  # type: ignore[no-untyped-call]

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one job in this process; a job that fails goes to RQ's registry of failed jobs with its trace."""
        self._in_hand = job, queue
        try:
            self._execute(job, queue)
        finally:
            self._in_hand = None
            self.errand.put_down()

    def _execute(self, job: Job, queue: Queue) -> None:
        with self.connection.pipeline() as step:
            self._state = WorkerStatus.BUSY
            step.hset(self.key, mapping={"state": WorkerStatus.BUSY.value, "current_job": job.id})
            step.expire(self.key, _ALIVE_S)
            step.lrem(queue.intermediate_queue_key, 1, job.id)
            note_started(step, job, queue, self.name)
            step.execute()
        began = time.monotonic()
        try:
            with self.death_penalty_class(job.timeout or queue.DEFAULT_TIMEOUT, JobTimeoutException, job_id=job.id):
                done = job.perform()
        except (GivenBack, BusUnavailable) as fault:
            self._give_back(job, queue, str(fault), getattr(fault, "run", ""), began)
        except Exception:
            self.log.error("job %s failed", job.id, exc_info=True)
            self.failed_job_count += 1
            with contextlib.suppress(ResponseError), self.connection.pipeline() as step:
                note_failed(step, job, queue, self.name, traceback.format_exc(), _KEEP_FAILURES_S)
                step.execute()
            self._be_idle(self.connection, began)
        else:
            self.successful_job_count += 1
            with self.connection.pipeline() as step:
                self._be_idle(step, began)
                note_done(step, job, queue, self.name)
                step.execute()
            self._passed.clear()
            if not done:  # a job of a round that is over shows nothing about the store or the disk
                return
            if self.aside.pop(_run_of(job), None):
                note_working(self.connection, self.queue_names(), self.name, [_run_of(job)])
                self.observer.hear(WorkTaken(of_run=_run_of(job)))
            if self.rest.over():
                note_working(self.connection, self.queue_names(), self.name)
                self.register_birth()
                self.observer.hear(WorkTaken())

    def _be_idle(self, step: Any, began: float) -> None:
        """Record the end of a job that began at this time of the monotonic clock."""
        self.total_working_time += time.monotonic() - began
        self._state = WorkerStatus.IDLE
        step.hset(self.key, mapping={"state": WorkerStatus.IDLE.value, "current_job": "", **self._counts()})

    def _doing(self) -> dict[Any, Any]:
        in_hand = self._in_hand
        return {"state": self._state, "current_job": in_hand[0].id if in_hand is not None else ""}

    def _counts(self) -> dict[Any, Any]:
        return {
            "successful_job_count": self.successful_job_count,
            "failed_job_count": self.failed_job_count,
            "total_working_time": self.total_working_time,
        }

    def _give_back(self, job: Job, queue: Queue, reason: str, run: str, began: float) -> None:
        """Put the job behind the others in its queue, and leave the queue, or the jobs of `run`, until one is done."""
        if run:
            self._set_aside(job, queue, reason, run, began)
            return
        if self.rest.begin(reason):
            self.observer.hear(WorkGivenBack(reason))
        try:
            with self.connection.pipeline() as step:
                step.rpush(queue.key, job.id)
                note_queued(step, job, queue, self.name)
                unregister(self, step)
                step.execute()
            self._be_idle(self.connection, began)
            note_resting(self.connection, self.queue_names(), self.name, reason)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            pass  # the coordinator asks again

    def _set_aside(self, job: Job, queue: Queue, reason: str, run: str, began: float) -> None:
        if self.aside.setdefault(run, Rest()).begin(reason):
            self.observer.hear(WorkGivenBack(reason, run))
        try:
            with self.connection.pipeline() as step:
                step.rpush(queue.key, job.id)
                note_queued(step, job, queue, self.name)
                step.execute()
            self._be_idle(self.connection, began)
            note_resting(self.connection, self.queue_names(), self.name, reason, run)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            pass  # the coordinator asks again

    def register_birth(self) -> None:
        """Register this worker; its name is unique, so any record under this name is its own."""
        self.birth_date = self.last_heartbeat = now()
        with self.connection.pipeline() as step:
            step.delete(self.key)
            step.hset(self.key, mapping={**self.serialize(), **self._counts(), **self._doing()})
            register(self, step)
            step.expire(self.key, _ALIVE_S)
            step.execute()

    def _register_again(self) -> None:
        self.register_birth()
        if self.rest.reason:
            unregister(self)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Send a heartbeat, at most once a second; a server that lost this worker is told its identity too."""
        if pipeline is None:
            if timeout is None and time.monotonic() - self._beaten_at < self._REPEAT_S:
                return
            self._beaten_at = time.monotonic()
            if not self._is_known():
                self._register_again()
        super().heartbeat(timeout or _ALIVE_S, pipeline)
        if pipeline is None:
            countdown.over(where_of(self.connection), reads_only=True)

    def _is_known(self) -> bool:
        """Return whether the server has every key that registers this worker: each key can be lost alone."""
        alive.turned()  # asked once a second, and every ten seconds during a job, whose time is limited
        with self.connection.pipeline(transaction=False) as reads:
            reads.hexists(self.key, "birth")
            if not self.rest.reason:
                for name in self.queue_names():
                    reads.sismember(WORKERS_BY_QUEUE_KEY % name, self.key)
            return all(reads.execute())

    def teardown(self) -> None:
        """Unregister this worker; skipped where the server is away or refuses it."""
        with contextlib.suppress(redis.exceptions.RedisError):
            super().teardown()  # type: ignore[no-untyped-call]
            note_working(self.connection, self.queue_names(), self.name, list(self.aside))

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Record a new state; writes nothing where the state is the same."""
        if state != self._state:
            super().set_state(state, pipeline)

    def check_for_suspension(self, burst: bool) -> None:
        """Look for `rq suspend`, at most once a second, and wait while the queue is suspended."""
        at = time.monotonic()
        if not burst and at - self._asked_at < self._REPEAT_S:
            return
        self._asked_at = at
        while is_suspended(self.connection):  # given the worker, RQ would write a heartbeat without identity
            if burst or asked_to_end():
                raise StopRequested
            self.heartbeat()
            self.set_state(WorkerStatus.SUSPENDED)
            pause(self._REPEAT_S)


def make_worker(
    connection: Redis, *queues: str, observer: Observer | None = None, name: str | None = None
) -> OwnWorker:
    """Return a worker on these queues; it reports the jobs that it drops and gives back.

    From exactly one queue, RQ moves jobs atomically and loses none. From two queues, the jobs that a worker takes
    before it is killed are lost; the coordinator asks for them again.
    """
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    observer = observer or Lines(silent)
    own = [queue_named(connection, queue) for queue in queues]
    for queue in own:
        queue.tell = notices(observer)
    worker = OwnWorker(
        own, name=name, connection=connection, serializer=JSONSerializer, job_class=OwnJob, queue_class=OwnQueue
    )
    worker.observer = observer
    return worker
