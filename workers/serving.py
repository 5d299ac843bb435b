"""What `flavor-agg` does until it is told to stop."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import threading
from collections.abc import Callable

from redis import Redis
from redis import exceptions as redis_errors

from flavor import alive
from flavor.bus.connection import connect, options, shown, wait_for_server, way_to
from flavor.bus.countdown import countdown
from flavor.errors import BusUnavailable
from flavor.ledger.keys import SigningKey
from flavor.programs.aggregator import UserAggregator
from flavor.programs.own_evaluator import OwnEvaluator
from flavor.signals import Listener, asked_to_end, hung_up_or_ended
from flavor.store.protocol import ObjectStore
from flavor.view.blocked import noting
from flavor.view.observer import Lines
from workers.builtin import Engine
from workers.central_judge import CentralJudge
from workers.command import CommandCombiner, StartedAnew
from workers.context import WorkerContext, set_context
from workers.jobs import AGGREGATE
from workers.judging_worker import JudgingWorker
from workers.own_jobs import queue_named
from workers.residents import Residents
from workers.worker import make_worker

_KEEP_FAILURES_S = 86_400


def serve(
    url: str,
    store: ObjectStore,
    *,
    queue: str,
    threads: int,
    tell: Callable[[str], None],
    patience_s: float = 60.0,
    aggregator: UserAggregator | None = None,
    init_once: bool = False,
    evaluator: OwnEvaluator | None = None,
    key: SigningKey | None = None,
    name: str | None = None,
) -> None:
    """Work on `queue` until told to stop by SIGINT or SIGTERM; the job in hand is finished first.

    With `aggregator` it aggregates by that, started for each round, or with `init_once` once for each run. With
    `evaluator` it judges models by that, in a thread beside its other jobs. `key` signs its manifests; without one, a
    key that lives as long as the process. `name` is that of a worker that has died, whose place this one takes.
    """
    connection = Redis.from_url(url, **options(url, patience_s))
    home = ""
    redis = connect(url, patience_s=patience_s, client_name="flavor-agg")
    key = key or SigningKey.generate()
    observer = noting(os.environ, Lines(tell, name_runs=True))
    context = WorkerContext(redis, url, store, combiner=Engine(threads), observer=observer, key=key)
    queues = [queue]
    if aggregator is not None and init_once:
        home = f"{queue}@{context.name}"
        queues.append(home)
        context.residents = Residents(aggregator, home, run=context.run, observer=observer)
        context.combiner = CommandCombiner(aggregator, context.residents)
        context.hand_over = HandOver(connection)
    elif aggregator is not None:
        context.combiner = CommandCombiner(aggregator, StartedAnew(aggregator))
    if way := way_to(url):
        tell(way)
    wait_for_server(redis, url)
    countdown.is_endless(shown(url))
    set_context(context)
    worker = make_worker(connection, *queues, observer=observer, name=name)
    judging = None
    if evaluator is not None:
        context.judge = CentralJudge(evaluator, tell)
        judging = JudgingWorker.begin(connection, queue, context.judge, beside=worker)
    if threading.current_thread() is threading.main_thread():
        Listener(worker.errand.idle, code=0, twice=True)
        for number in (signal.SIGINT, *hung_up_or_ended()):
            signal.signal(number, lambda *_: None)  # heard by the listener; the main thread goes on
    also = " and judges models" if evaluator is not None else ""
    tell(f"aggregator {worker.name[:12]} listens on queue {queue!r}{also} and signs with key {key.public.fingerprint}")
    try:
        with alive.looping():
            worker.work(with_scheduler=False, logging_level="WARNING")
        if worker.refusal is not None:
            raise worker.refusal
        if not asked_to_end():
            raise BusUnavailable(f"the queue {queue!r} cannot be worked on any more; the lines above say why")
    except redis_errors.ConnectionError:
        if not asked_to_end():  # then nothing is waited for, the server's return neither
            raise
    finally:
        if judging is not None:
            judging.end()
        if context.residents is not None:
            with worker.errand.in_hand():
                context.residents.close()
            with contextlib.suppress(redis_errors.RedisError):  # it expires by itself
                queue_named(connection, home).delete(delete_jobs=True)


class HandOver:
    """Puts the aggregation of a round into the queue of the worker that keeps the run's process."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection

    def __call__(self, home: str, run: str, round_: int, attempt: int, timeout_s: float) -> None:
        """Enqueue it. A worker that is gone leaves it there; the coordinator asks again."""
        queue = queue_named(self._connection, home)
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
