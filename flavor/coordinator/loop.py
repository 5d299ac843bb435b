"""The coordinator: acts on the decisions. Its state is in Redis; what it holds in memory it can read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from flavor.bus.connection import ServerWatch, connect, shown, translated, wait_for_server
from flavor.bus.jobs import JobQueue, RqJobQueue
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC, Subscription
from flavor.config import RunConfig
from flavor.coordinator.beginning import create_or_find
from flavor.coordinator.context import RunContext
from flavor.coordinator.current_run import CurrentRun
from flavor.coordinator.heard import Heard
from flavor.coordinator.inspections import Inspections
from flavor.coordinator.late_updates import LateUpdates
from flavor.coordinator.members import Members
from flavor.coordinator.pruning import Pruning
from flavor.coordinator.stages import Stages, stages_of
from flavor.coordinator.store_wait import CoordinatorWait
from flavor.coordinator.tenure import Tenure
from flavor.coordinator.waits import Waits
from flavor.errors import IllegalMove, LeaseLost, RunNotFound, StoreError
from flavor.ledger.archive import Archive
from flavor.ledger.history import History
from flavor.policy.policy import policy_of
from flavor.records.model import GlobalModel
from flavor.records.run import RunView
from flavor.records.states import RoundState, RunState
from flavor.store.protocol import ObjectStore
from flavor.view.observer import Observer, notices
from flavor.view.round_events import RunFailed, RunFinished, RunStopped

_RESYNC_S = 5.0
_ENDINGS = {RunState.FINISHED: RunFinished, RunState.FAILED: RunFailed, RunState.STOPPED: RunStopped}


class Coordinator:
    """One run's rounds, from waiting for clients to its end. `run()` returns the run as it ended.

    Killed at any point and started again, it carries on. Only the holder of the run's lease can change anything: a
    second coordinator waits for the lease, and `LeaseHeld` is raised when its holder is alive. `only` names the
    clients that may take part; everyone may when it is None. `warnings` gives what to warn of in the run's settings.

    `config` is how the run begins. The settings of a run that is there may have been changed by `flavor resume`, so
    nothing is made of `config` before the run was read.
    """

    def __init__(
        self,
        run: str,
        config: RunConfig,
        *,
        redis_url: str,
        store: ObjectStore,
        observer: Observer,
        initial: GlobalModel | None = None,
        jobs: JobQueue | None = None,
        patience_s: float = 60.0,
        only: frozenset[str] | None = None,
        warnings: Callable[[RunConfig], Iterable[str]] = lambda _: (),
    ) -> None:
        self._config, self._url = config, redis_url
        self._stopped = threading.Event()
        self.closed = 0
        """Rounds that were closed when the run ended."""
        self._store, self._initial, self._patience_s = store, initial, patience_s
        self._observer, self._tell = observer, notices(observer)
        self._redis = connect(redis_url, patience_s=patience_s, client_name=f"flavor-serve:{run}")
        self._runs = RunStore(self._redis, run, redis_url)
        self._only, self._given_jobs, self._warnings = only, jobs, warnings
        self._history = History(self._runs, Archive(store, run), self._tell)
        self._heard = Heard(self._runs, observer)
        self._waits = Waits(self._runs, self._heard, observer)
        self._store_wait = CoordinatorWait(store, self._heard, self._waits, observer=observer, stopped=self._stopped)
        self._watch = ServerWatch(self._redis, redis_url)

    # -- from start to end

    def stop(self) -> None:
        """Make `run` return within about a second, from another thread; the run itself goes on waiting for another."""
        self._stopped.set()

    def run(self) -> RunView:
        """Serve the run until it ends, or `stop` is called. The reason of one that ended is the operator's."""
        wait_for_server(self._redis, self._url)
        was_there, config = create_or_find(
            self._runs,
            self._config,
            self._history,
            url=self._url,
            store_url=self._store.url,
            initial=self._initial,
            observer=self._observer,
            pause=self._stopped.wait,
        )
        for line in self._warnings(config):
            self._tell(line)
        pruning = Pruning(self._runs, self._store, config, self._tell)
        tenure = Tenure(self._runs, lease_s=config.heartbeat_timeout_s, tell=self._tell)
        if was_there:  # whatever ended the last coordinator may have ended the edges too
            view = self._runs.read()
            if self._runs.closed(view)[0] != view.resumed_round:  # of a run that was resumed the sites have ended
                tenure.give_grace()
            if not view.state.ended:
                self._tell(f"run {self._runs.run!r} goes on from round {view.round}")
        tenure.start()
        name, keys = self._runs.run, self._runs.keys
        subscription = Subscription(
            connect(self._url, patience_s=self._patience_s, client_name=f"flavor-serve:{name}:events"),
            self._url,
            channels=[keys.state],
            patterns=[*keys.client_patterns, keys.rounds_pattern],
        )
        try:
            context = self._context(config, tenure, pruning)
            self._serve(context, subscription)
            return self._ended(context)
        finally:
            pruning.close()
            tenure.end()
            subscription.close()

    def _context(self, config: RunConfig, tenure: Tenure, pruning: Pruning) -> RunContext:
        """All that the stages of a round work with."""
        runs, heard, observer = self._runs, self._heard, self._observer
        members = Members(
            runs,
            observer,
            heard,
            quarantine_after=config.quarantine_after,
            lease_s=config.heartbeat_timeout_s,
            only=self._only,
        )
        jobs = self._given_jobs or RqJobQueue(
            self._url,
            config.queue,
            timeout_s=config.aggregation_timeout_s,
            patience_s=self._patience_s,
            run=runs.run,
        )
        late = LateUpdates(runs, heard)
        current = CurrentRun(runs, config, members=members, heard=heard, late=late, tenure=tenure, observer=observer)
        inspections = Inspections(runs, config, current, jobs=jobs, members=members, heard=heard)
        return RunContext(
            runs=runs,
            config=config,
            store=self._store,
            policy=policy_of(config),
            current=current,
            members=members,
            jobs=jobs,
            inspections=inspections,
            tenure=tenure,
            history=self._history,
            pruning=pruning,
            heard=heard,
            late=late,
            waits=self._waits,
            observer=observer,
        )

    def _ended(self, context: RunContext) -> RunView:
        """The run as it ended, or as it goes on where `stop` was called."""
        current = context.current
        if current.view.state.ended:
            self._store_wait.until_done(lambda: _settle(context), current.view)
            self.closed = self._runs.closed(current.view)[0]
            current.view = replace(current.view, reason=self._runs.how_it_ended() or current.view.reason)
            self._observer.hear(_ENDINGS[current.view.state](current.view.reason, run=self._runs.run))
        return current.view

    # -- the turn

    def _serve(self, context: RunContext, subscription: Subscription) -> None:
        """Act on what happens until the run ends, or `stop` is called."""
        current, tenure, stages = context.current, context.tenure, stages_of(context)
        with translated(shown(self._url)):
            self._store_wait.until_done(self._history.check, current.view)
            subscription.open()
            self._watch.was_away()  # from here on
            self._redis.publish(self._runs.keys.state, "serving")  # every edge announces itself
            current.read_all()
            self._waits.take_over(current.awaited_round)
            resync_at = time.monotonic() + _RESYNC_S
            woken: list[str] = []
            while not (current.view.state.ended or self._stopped.is_set()):
                try:
                    if RESYNC in woken or not resync_at:  # it may be another server, or have forgotten something
                        self._history.check()
                    if RESYNC in woken:
                        tenure.keep()
                        if self._watch.was_away():  # and everybody's lease may have lapsed
                            tenure.give_grace()
                    if RESYNC in woken or time.monotonic() > resync_at:
                        current.read_all()
                        resync_at = time.monotonic() + _RESYNC_S
                    _step(context, stages)
                    woken = [] if current.view.state.ended else subscription.wait(current.pause_s())
                    current.read(woken)
                    self._store_wait.is_back()
                except IllegalMove:  # somebody stopped it, or a repeated command had been carried out after all
                    resync_at = 0.0
                except LeaseLost:  # unless it only lapsed
                    tenure.keep()
                    resync_at = 0.0
                except (StoreError, OSError) as error:
                    self._store_wait.wait(error, current.view, current.awaited_round)
                    resync_at = 0.0
                except RunNotFound:
                    self._history.check()
                    raise
                tenure.keep_if_lost()


def _step(context: RunContext, stages: Stages) -> None:
    """Do everything that can be done now."""
    current, has_moved = context.current, True
    while has_moved and not current.view.state.ended:
        steps = [stages[round_.view.state if round_ else None].step(round_) for round_ in current.rounds]
        has_moved = any(steps)
        if has_moved:
            context.waits.has_moved()


def _settle(context: RunContext) -> None:
    """See that the newest closed round has its manifest, also if its worker died right after the commit.

    And that nothing was handed in too late without an answer.
    """
    context.late.refuse_unheard()
    context.heard.run_is_over()
    run = context.current.view
    view = context.runs.read_round(run.round) if run.round else None
    if view is not None and view.state is RoundState.CLOSED:
        context.history.settle(view.round, view.manifest)
