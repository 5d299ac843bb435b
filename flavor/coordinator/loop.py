"""The coordinator's loop: wake up, read what has changed, and take the next step of the run.

`Coordinator._serve` is the loop, and `_step` takes one step; the stages in `stages.py` say what a step is. All state is
in Redis: what this process holds in memory can be read again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from flavor import alive
from flavor.bus.connection import ServerWatch, connect, shown, translated, wait_for_server, way_to
from flavor.bus.jobs import JobQueue, RqJobQueue
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC, Subscription
from flavor.config import RunConfig
from flavor.coordinator.asking import LeftBehind
from flavor.coordinator.beginning import create_or_find
from flavor.coordinator.central import CentralEvaluations
from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.context import RunContext
from flavor.coordinator.coordinator_lease import CoordinatorLease
from flavor.coordinator.current_run import CurrentRun
from flavor.coordinator.deadlines import Deadlines
from flavor.coordinator.evaluations import SiteEvaluations
from flavor.coordinator.inspections import Inspections
from flavor.coordinator.late_updates import LateUpdates
from flavor.coordinator.members import Members
from flavor.coordinator.pruning import Pruning
from flavor.coordinator.set_for import not_enrolled, not_joined
from flavor.coordinator.stages import Stages, stages_of
from flavor.coordinator.store_wait import CoordinatorWait
from flavor.coordinator.url_desk import NoDesk, UrlDesk, opened_desk
from flavor.coordinator.wait_log import Waits
from flavor.errors import IllegalMove, LeaseLost, RunNotFound, StoreError
from flavor.ledger.archive import Archive
from flavor.ledger.history import History
from flavor.ledger.manifest import BegunFrom
from flavor.records.model import GlobalModel
from flavor.records.run import RunView
from flavor.records.states import RoundState, RunState
from flavor.store.protocol import ObjectStore
from flavor.store.signer import Signer
from flavor.view.observer import Observer, notices
from flavor.view.round_events import RunFailed, RunFinished, RunStopped

_RESYNC_S = 5.0
_ENDINGS = {RunState.FINISHED: RunFinished, RunState.FAILED: RunFailed, RunState.STOPPED: RunStopped}


class Coordinator:
    """Coordinates one run, from waiting for clients to the end of the run.

    A coordinator that was killed at any point and is started again goes on with the run. Only the holder of the run's
    lease can change the run: a second coordinator waits for the lease, and raises `LeaseHeld` when the holder is alive.
    `initial` are the weights to begin from, and `begun_from` says which run has made them.
    `only` names the clients that may take part; None admits every client. `warnings` returns what to warn of in the
    run's settings.

    `config` has the settings of a new run. `flavor resume` may have changed the settings of a run that exists, so
    nothing uses `config` before the run was read.
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
        begun_from: BegunFrom | None = None,
        jobs: JobQueue | None = None,
        patience_s: float = 60.0,
        only: frozenset[str] | None = None,
        warnings: Callable[[RunConfig], Iterable[str]] = lambda _: (),
        signer: Signer | None = None,
    ) -> None:
        """`signer` signs URLs for the store, where the run's sites get such; without one, it is opened by `run`."""
        self._config, self._url = config, redis_url
        self._stopped = threading.Event()
        self.closed = 0
        """How many rounds were closed when the run ended."""
        self._store, self._initial, self._patience_s = store, initial, patience_s
        self._begun_from, self._signer = begun_from, signer
        self._observer, self._tell = observer, notices(observer)
        self._redis = connect(redis_url, patience_s=patience_s, client_name=f"flavor-serve:{run}")
        self._runs = RunStore(self._redis, run, redis_url)
        self._only, self._given_jobs, self._warnings = only, jobs, warnings
        self._history = History(self._runs, Archive(store, run), self._tell)
        self._client_log = ClientLog(self._runs, observer)
        self._waits = Waits(self._runs, self._client_log, observer)
        self._store_wait = CoordinatorWait(
            store, self._client_log, self._waits, observer=observer, stopped=self._stopped
        )
        self._watch = ServerWatch(self._redis, redis_url)

    # -- from start to end

    def stop(self) -> None:
        """Make `run` return within about a second. Call it from another thread. The run itself does not end."""
        self._stopped.set()

    def run(self) -> RunView:
        """Serve the run until it ends or `stop` is called, and return it. The reason of its end is the operator's.

        Raises `RunExists` for a run of this name with other settings, `LeaseHeld`, `LeaseLost` when another coordinator
        has taken the run over, `RunNotFound` when Redis has lost the run, and `BusUnavailable`.
        """
        if way := way_to(self._url):
            self._tell(way)
        wait_for_server(self._redis, self._url)
        was_there, config = create_or_find(
            self._runs,
            self._config,
            self._history,
            url=self._url,
            store_url=self._store.url,
            initial=self._initial,
            begun_from=self._begun_from,
            observer=self._observer,
            pause=self._stopped.wait,
        )
        for line in (*self._warnings(config), *not_enrolled(self._runs, config)):
            self._tell(line)
        pruning = Pruning(self._runs, self._store, config, self._tell)
        lease = CoordinatorLease(self._runs, lease_s=config.heartbeat_timeout_s, tell=self._tell)
        if was_there:  # what ended the last coordinator may have ended the edges, too
            view = self._runs.read()
            if self._runs.closed(view)[0] != view.resumed_round:  # the sites of a run that was resumed have ended
                lease.give_grace()
        lease.start()
        name, keys = self._runs.run, self._runs.keys
        subscription = Subscription(
            connect(self._url, patience_s=self._patience_s, client_name=f"flavor-serve:{name}:events"),
            self._url,
            channels=[keys.state],
            patterns=[*keys.client_patterns, keys.rounds_pattern],
        )
        desk: UrlDesk | NoDesk = NoDesk()
        try:
            desk = opened_desk(
                self._runs,
                config,
                self._url,
                self._store,
                token=lease.token,
                tell=self._tell,
                signer=self._signer,
                patience_s=self._patience_s,
            )
            context = self._context(config, lease, pruning)
            with alive.looping():
                self._serve(context, subscription, was_there=was_there)
            view = self._ended(context, subscription)
            desk.end(view)
            return view
        finally:
            desk.close()
            pruning.close()
            lease.end()
            subscription.close()

    def _context(self, config: RunConfig, lease: CoordinatorLease, pruning: Pruning) -> RunContext:
        """Build what the stages of a round work with."""
        runs, client_log, observer = self._runs, self._client_log, self._observer
        view = runs.read()
        members = Members(
            runs,
            observer,
            client_log,
            quarantine_after=config.quarantine_after,
            lease_s=config.heartbeat_timeout_s,
            only=self._only,
            resumed_ms=view.resumed_ms,
            since_ms=max(view.created_ms, view.resumed_ms),
            protocol=view.protocol,
        )
        jobs = self._given_jobs or RqJobQueue(
            self._url,
            config.queue,
            timeout_s=config.aggregation_timeout_s,
            patience_s=self._patience_s,
            run=runs.run,
        )
        late = LateUpdates(runs, client_log)
        current = CurrentRun(
            runs, config, members=members, client_log=client_log, late=late, lease=lease, observer=observer
        )
        inspections = Inspections(runs, config, current, jobs=jobs, members=members, client_log=client_log)
        evaluations = SiteEvaluations(runs, config, current, members=members, jobs=jobs, lease=lease, observer=observer)
        return RunContext(
            runs=runs,
            config=config,
            store=self._store,
            current=current,
            members=members,
            jobs=jobs,
            inspections=inspections,
            evaluations=evaluations,
            central=CentralEvaluations(runs, config, current, jobs=jobs, lease=lease, observer=observer),
            left_behind=LeftBehind(runs, self._store, observer),
            lease=lease,
            history=self._history,
            pruning=pruning,
            client_log=client_log,
            late=late,
            deadlines=Deadlines(runs, config, members),
            waits=self._waits,
            observer=observer,
        )

    def _ended(self, context: RunContext, subscription: Subscription) -> RunView:
        """Finish what the end of the run leaves to do, and return the run; after `stop`, the run as it goes on."""
        current = context.current
        if current.view.state.ended:
            self._store_wait.until_done(lambda: _settle(context, subscription), current.view)
            self.closed = self._runs.closed(current.view)[0]
            for line in not_joined(context.config, self._runs.members()):
                self._tell(line)
            current.view = replace(current.view, reason=self._runs.how_it_ended() or current.view.reason)
            self._observer.hear(_ENDINGS[current.view.state](current.view.reason, run=self._runs.run))
        return current.view

    # -- the turn

    def _serve(self, context: RunContext, subscription: Subscription, *, was_there: bool) -> None:
        """Step, wait for an event and read what it changed, until the run ends or `stop` is called."""
        current, lease, stages = context.current, context.lease, stages_of(context)
        with translated(shown(self._url)):
            self._store_wait.until_done(self._history.check, current.view)
            if was_there and not current.view.state.ended:  # not before it is known to be the run that the store has
                where = f"from round {round_}" if (round_ := current.view.round) else "before its first round"
                self._tell(f"run {self._runs.run!r} goes on {where}")
            subscription.open()
            self._watch.was_away()  # counts from here on
            self._redis.publish(self._runs.keys.state, "serving")  # every edge answers by announcing itself
            current.read_all()
            self._waits.is_lenient = lambda: context.lease.is_lenient
            self._waits.take_over(current.awaited_round)
            resync_at = time.monotonic() + _RESYNC_S
            woken: list[str] = []
            while not (current.view.state.ended or self._stopped.is_set()):
                alive.turned()
                try:
                    if RESYNC in woken or not resync_at:  # this may be another server, or one that lost writes
                        self._history.check()
                    if RESYNC in woken:
                        lease.keep()
                        if self._watch.was_away():  # the leases of all clients may have lapsed
                            lease.give_grace()
                    if RESYNC in woken or time.monotonic() > resync_at:
                        current.read_all()
                        resync_at = time.monotonic() + _RESYNC_S
                    _step(context, stages)
                    woken = [] if current.view.state.ended else subscription.wait(current.pause_s())
                    current.read_changes(woken)
                    self._store_wait.is_back()
                except IllegalMove:  # the run was stopped, or a command that was repeated had been carried out before
                    resync_at = 0.0
                except LeaseLost:  # `keep` raises it again unless the lease only lapsed
                    lease.keep()
                    resync_at = 0.0
                except (StoreError, OSError) as error:
                    self._store_wait.wait(error, current.view, current.awaited_round)
                    resync_at = 0.0
                except RunNotFound:
                    self._history.check()
                    raise
                lease.keep_if_lost()


def _step(context: RunContext, stages: Stages) -> None:
    """Do everything that can be done now: step each round until none moves, or the run has ended."""
    current, has_moved = context.current, True
    context.evaluations.look()
    context.central.look()
    context.left_behind.look()
    while has_moved and not current.view.state.ended:
        steps = [stages[round_.view.state if round_ else None].step(round_) for round_ in current.rounds]
        has_moved = any(steps)
        if has_moved:
            context.waits.has_moved()


def _settle(context: RunContext, subscription: Subscription) -> None:
    """Answer late updates, log what was left out, and see that the newest closed round has its manifest.

    The manifest is missing when the aggregator died right after it had closed the round.
    """
    context.late.refuse_unheard()
    context.evaluations.give_up_open(subscription.wait)
    context.central.give_up_open()
    context.left_behind.look(at_once=True)
    context.client_log.end_run()
    run = context.current.view
    view = context.runs.read_round(run.round) if run.round else None
    if view is not None and view.state is RoundState.CLOSED:
        context.history.settle(view.round, view.manifest)
