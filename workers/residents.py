"""Decide which worker keeps which run's aggregator, where an aggregator is started once for a run.

One worker keeps a run's process. The run's lease `aggregator` names it, and the other workers hand the run's jobs to
it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ClassVar

from flavor.bus.lease import Lease, LeaseKeeper
from flavor.bus.runs import RunStore
from flavor.errors import AggregatorFailed, FlavorError
from flavor.programs.aggregator import UserAggregator
from flavor.programs.aggregator_folder import AggregatorFolder
from flavor.records.states import RunState
from flavor.view.event import Notice
from flavor.view.observer import Observer
from flavor.view.round_events import AggregatorRestarted
from workers.combiner import Work
from workers.resident import PrivateBus, Resident, gone

_JOIN_S = 30.0
"""Longer than the end of a process takes; shorter than an outage of the server."""


class Residents:
    """The processes that a worker with `--init-once` keeps, one for each run; the worker's `Runner`.

    A run's process belongs to the worker that holds the run's lease `aggregator`. `home` is the queue into which the
    other workers put the run's jobs; it is the token of the lease.

    Jobs run in one thread; each lease has a keeper with a thread of its own, which may end a process. The thread that
    takes a process out of `_kept` owns it, and keeps its run in `_ending` until the process has ended and its lease is
    released.
    """

    ends: ClassVar[bool] = False

    def __init__(
        self, aggregator: UserAggregator, home: str, *, run: Callable[[str], RunStore], observer: Observer
    ) -> None:
        self._aggregator, self.home, self._runs, self._observer = aggregator, home, run, observer
        self._bus: PrivateBus | None = None
        self._changed = threading.Condition()  # of the two below
        self._kept: dict[str, tuple[Resident, Lease, LeaseKeeper]] = {}
        self._ending: set[str] = set()

    def elsewhere(self, run: str, rounds: int, ttl_s: float) -> str | None:
        """Return the home of another worker that keeps this run's process; None once this worker keeps it."""
        with self._changed:
            self._changed.wait_for(lambda: run not in self._ending)  # else its release would end the new lease
            if run in self._kept:
                return None
        runs = self._runs(run)
        lease = Lease(
            runs.redis, runs.keys.aggregator, ttl_s=ttl_s, what=f"the aggregator of run {run!r}", token=self.home
        )
        while not lease.try_acquire():
            if home := runs.redis.get(runs.keys.aggregator):
                return str(home)
        try:
            if self._bus is None:
                self._bus = PrivateBus()
            resident = Resident(
                self._bus,
                self._aggregator,
                run,
                rounds,
                restarted=lambda reason, round_: self._say_restarted(run, reason, round_),
            )
            keeper = LeaseKeeper(lease, lost=lambda: self._lost(run), beat=lambda: self._look(run))
            with self._changed:
                self._kept[run] = (resident, lease, keeper)
            keeper.start()
        except BaseException:
            with self._changed:
                self._kept.pop(run, None)
            with contextlib.suppress(Exception):  # the lease runs out by itself
                lease.release()
            raise
        self._observer.hear(Notice(f"run {run}: this worker keeps its aggregator"))
        return None

    def _say_restarted(self, run: str, reason: str, round_: int) -> None:
        self._observer.hear(AggregatorRestarted(reason, round_, run=run))
        with contextlib.suppress(FlavorError):  # a round goes on without its log entry
            self._runs(run).log("aggregator.restarted", reason=reason, round_=round_)

    def folder(self, run: str) -> AbstractContextManager[AggregatorFolder]:
        """See `Runner`: the folder of the process, which lives on; raises `AggregatorFailed` where it was lost."""
        return self._resident(run).at_work()

    def __call__(self, work: Work, folder: AggregatorFolder) -> str:
        """See `Runner`."""
        return self._resident(work.run)(work)

    def discard(self, run: str) -> None:
        """End the process of this run, because its result could not be used."""
        with contextlib.suppress(AggregatorFailed):  # the thread that took it ends it
            self._resident(run).discard()

    def _resident(self, run: str) -> Resident:
        with self._changed:
            if kept := self._kept.get(run):
                return kept[0]
        raise gone(run)

    def _look(self, run: str) -> None:
        """Release a run that is over. Runs in the lease keeper's thread."""
        with contextlib.suppress(FlavorError):
            view = self._runs(run).find()
            if view is None:
                self._release(run, RunState.STOPPED, "the run was removed")
            elif view.state.ended:
                self._release(run, view.state, view.reason)

    def _lost(self, run: str) -> None:
        """End the process of a run whose lease lapsed and was taken by another worker."""
        with self._changed:
            kept = self._kept.pop(run, None)
            if kept is None:
                return
            self._ending.add(run)
        try:
            self._observer.hear(Notice(f"run {run}: another worker keeps its aggregator now"))
            kept[0].close()
        finally:
            self._ended(run)

    def _release(self, run: str, state: RunState, reason: str) -> None:
        with self._changed:
            kept = self._kept.get(run)
            if kept is None or not kept[0].claim():
                return
            del self._kept[run]
            self._ending.add(run)
        resident, lease, keeper = kept
        try:
            resident.end(state, reason)
            keeper.stop()
            with contextlib.suppress(Exception):  # the lease runs out by itself
                lease.release()
        finally:
            self._ended(run)

    def _ended(self, run: str) -> None:
        with self._changed:
            self._ending.discard(run)
            self._changed.notify_all()

    def close(self) -> None:
        """End all processes as at the end of their runs, and release the runs to other workers."""
        for run in list(self._kept):
            self._look(run)
        for run in list(self._kept):
            self._release(run, RunState.STOPPED, "this aggregator ends")
        with self._changed:  # what keepers are ending needs the bus
            self._changed.wait_for(lambda: not self._ending, _JOIN_S)
        if self._bus is not None:
            self._bus.close()
