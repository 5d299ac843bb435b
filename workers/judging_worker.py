"""The RQ worker that judges models, in a thread beside the worker that aggregates, so that no round waits for it."""

from __future__ import annotations

import threading
from typing import Any

from redis import Redis
from rq.timeouts import BaseDeathPenalty

from flavor.bus.jobs import judging_queue
from workers.central_judge import CentralJudge
from workers.worker import OwnWorker, make_worker

_END_S = 10.0
"""Longer than the end of an evaluator takes."""


class Untimed(BaseDeathPenalty):
    """No limit of RQ's, which needs the main thread: the job limits the evaluator's time itself."""

    def setup_death_penalty(self) -> None:
        """Set no alarm."""

    def cancel_death_penalty(self) -> None:
        """Cancel no alarm."""


class JudgingWorker:
    """A worker on the queue of evaluations on the operator's own data, and its thread."""

    def __init__(self, worker: OwnWorker, judge: CentralJudge) -> None:
        self._worker, self._judge = worker, judge
        self._thread = threading.Thread(target=self._work, name="judging", daemon=True)

    @classmethod
    def begin(cls, connection: Redis, queue: str, judge: CentralJudge, *, beside: OwnWorker) -> JudgingWorker:
        """Register the worker, so that coordinators know of it, and start its thread.

        The process ends only when neither this worker nor the one `beside` it has a job in hand.
        """
        worker = make_worker(connection, judging_queue(queue), observer=beside.observer, name=f"{beside.name}-judges")
        penalty: Any = Untimed
        worker.death_penalty_class = penalty
        worker.errand = beside.errand
        worker.register_birth()
        judging = cls(worker, judge)
        judging._thread.start()
        return judging

    def _work(self) -> None:
        self._worker.work(with_scheduler=False, logging_level="WARNING")

    def end(self) -> None:
        """Stop the evaluator, give its job back, and wait for the thread's end."""
        self._judge.over.set()
        self._thread.join(_END_S)
