"""A user's aggregator that is started once: one worker keeps a run's process, and drives it with two events.

The process talks to a server of the worker's own, behind a unix socket in a folder that only this user can enter: it
needs no address or password of the run's Redis. There it is the one client of its run, whose rounds begin with
AggregateStarted and end with AggregateFinished. A failed attempt ends the process, and the next one starts it again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from rq.timeouts import JobTimeoutException

from flavor.bus.connection import Redis, connect
from flavor.bus.embedded import embedded_server
from flavor.bus.events import ClientEvents
from flavor.bus.keys import RunKeys
from flavor.bus.lease import Lease, LeaseKeeper
from flavor.bus.runs import RunStore
from flavor.bus.subscription import Subscription
from flavor.errors import AggregatorFailed, FlavorError
from flavor.programs.process import ChildProcess, quoted
from flavor.records.names import Event
from flavor.records.states import RunState
from workers.combiner import Work
from workers.command import UserCommand, overdue
from workers.folder import RunFolder

CLIENT = "aggregator"
DONE = (Event.AGGREGATE_FINISHED, Event.PROCESS_FINISHED)
"""Either says that the round is done: the ancestors' guide ends an aggregator with ProcessFinished."""
_LOOK_S = 1.0
_END_S = 10.0
"""How long a process may take to end once its run has."""
_GRACE_S = 2.0
_JOIN_S = 30.0
"""More than the end of a process takes; less than a server that is away takes."""


class PrivateBus:
    """The server behind the events between this worker and the processes that it keeps."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.url = self._stack.enter_context(embedded_server())
        self.redis: Redis = connect(self.url, client_name="flavor-agg")

    def close(self) -> None:
        """Stop the server."""
        self.redis.close()
        self._stack.close()


class Resident:
    """The process of one run. One thread at a time has it: a job all the time that it is `at_work`, or who ends it.

    Which rounds are behind it is what stands on its bus, for however many processes it consists of (a shell script is
    one for each event): the newest round that was started, and that round's AggregateFinished, which stays until the
    next round is finished. `restarted` is told why a process is started in place of one that has aggregated already.
    """

    def __init__(
        self,
        bus: PrivateBus,
        command: UserCommand,
        run: str,
        rounds: int,
        *,
        restarted: Callable[[str, int], None] = lambda reason, round_: None,
    ) -> None:
        self._bus, self._command, self._run, self._rounds = bus, command, run, rounds
        self._restarted = restarted
        self._folder: RunFolder | None = None
        self._run_keys = RunKeys(run)
        self._keys = self._run_keys.client(CLIENT)
        self._events = ClientEvents(bus.url, run, CLIENT, redis=bus.redis, starts=Event.AGGREGATE_STARTED)
        self._process: ChildProcess | None = None
        self._behind = 0  # the newest round that this process has aggregated
        self._served = 0  # the newest round that any process has aggregated here
        self._failed = ""  # why the last process was stopped, if it was not left to its end
        self._over = threading.RLock()
        self._closed = False

    @contextlib.contextmanager
    def at_work(self) -> Iterator[RunFolder]:
        """Where the process works, in all rounds, for a job that uses it: it is ended before or after."""
        with self._over:
            if self._closed:
                raise gone(self._run)
            if self._folder is None:
                self._folder = RunFolder(self._command.workspace, self._run)
            yield self._folder

    def __call__(self, work: Work) -> str:
        """Have the process aggregate a round; see `Runner`."""
        with self.at_work() as folder:
            process = self._process
            if process is None or process.exit_code is not None or self._behind >= work.round:
                process = self._start_for(work, folder)
            try:
                if not self._await_finished(work, process):  # it was on its way out when the round began
                    process = self._start_for(work, folder)
                    self._await_finished(work, process)
            except BaseException:
                self._failed = "the last attempt failed"
                self._stop()
                raise
            before, self._behind, self._served = self._behind, work.round, work.round
            if before:
                self._bus.redis.delete(*(self._keys.event(before, event) for event in Event))
            return quoted(process.last_lines)

    def _start_for(self, work: Work, folder: RunFolder) -> ChildProcess:
        """Start a process for this round, and say so if another one has aggregated before."""
        if self._served or self._failed:
            if self._failed:
                why = self._failed
            elif self._process is not None and (code := self._process.exit_code) is not None:
                why = self._command.obituary(code, self._process.last_lines, f"after round {self._behind}")
            else:
                why = f"round {work.round} is aggregated again"
            self._restarted(f"the aggregator is started again: {why}; what it kept in memory is gone", work.round)
        return self._start(folder)

    def _await_finished(self, work: Work, process: ChildProcess) -> bool:
        """Start the round and wait for AggregateFinished; False if the process left without taking the round up."""
        subscription = Subscription(
            self._bus.redis, self._bus.url, channels=[self._keys.state], patterns=[self._keys.events_pattern]
        )
        subscription.open()
        try:
            self._events.start_round(work.round)
            while True:
                ended = process.exit_code is not None
                if any(self._events.is_set(event, work.round) for event in DONE):
                    return True  # asked after the exit code: what it set before it ended counts
                if ended and self._behind and self._events.taken() < work.round:
                    return False
                if ended:
                    code = process.wait()
                    raise AggregatorFailed(
                        self._command.obituary(code or 0, process.last_lines, "before AggregateFinished")
                    )
                if self._events.is_set(Event.ERROR, work.round):
                    raise AggregatorFailed(f"the aggregator set the event Error{quoted(process.last_lines)}")
                subscription.wait(_LOOK_S)
        except JobTimeoutException:
            raise overdue(work, process) from None
        finally:
            subscription.close()

    def _start(self, folder: RunFolder) -> ChildProcess:
        self._stop()
        redis = self._bus.redis
        for key in redis.scan_iter(f"{self._run_keys.prefix}*"):
            redis.delete(key)
        redis.hset(
            self._run_keys.state,
            mapping={"state": RunState.RUNNING, "round": "0", "rounds": str(self._rounds), "config": "{}"},
        )
        redis.set(self._keys.lease, "flavor-agg")  # for ever: this process is its parent
        self._behind, self._failed = 0, ""
        self._process = self._command.start(
            folder,
            self._run,
            self._rounds,
            extra={"FLAVOR_CLIENT": CLIENT, "FLAVOR_REDIS_URL": self._bus.url},
            ended=lambda code: self._wake(),
        )
        return self._process

    def _wake(self) -> None:
        with contextlib.suppress(Exception):  # the worker ends, and its server with it
            self._bus.redis.publish(self._keys.state, "")

    def discard(self) -> None:
        """Forget the process: what it left could not be used, so that the next attempt starts another."""
        with self._over:
            self._failed = "what it left could not be used"
            self._stop()

    def close(self) -> None:
        """End the process, and leave its folder, once no job uses it."""
        with self._over:
            self._close()

    def _close(self) -> None:
        self._closed = True
        self._stop()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop(_GRACE_S)
            self._process = None

    def claim(self) -> bool:
        """Keep all others out until this thread calls `end`; False, and nothing has happened, while it aggregates."""
        return self._over.acquire(blocking=False)

    def end(self, state: RunState, reason: str) -> None:
        """Once claimed: end the process as the run ended, and leave its folder.

        Its next WaitEvent ends it, and after ten seconds a signal does.
        """
        try:
            if self._process is not None:
                with contextlib.suppress(Exception):
                    self._bus.redis.hset(self._run_keys.state, mapping={"state": state, "reason": reason})
                    self._bus.redis.publish(self._run_keys.state, state)
                    self._process.wait(_END_S)
            self._close()
        finally:
            self._over.release()


def gone(run: str) -> AggregatorFailed:
    """What is said to a job whose process went while it was on its way there."""
    return AggregatorFailed(
        f"this worker no longer keeps the aggregator of run {run!r}: the next attempt finds who does"
    )


class Residents:
    """The processes of a worker with `--init-once`, one a run: `Runner`, and who keeps which run's process.

    A run's process belongs to whoever holds the lease `aggregator` of the run. `home` is where the other workers put
    its jobs; it is the token of the lease.

    Jobs run in one thread; each lease has a keeper with one of its own, which may end a process. Who takes a process
    out of `_kept` owns it, and has its run in `_ending` until it has ended and its lease is given up.
    """

    def __init__(
        self, command: UserCommand, home: str, *, run: Callable[[str], RunStore], tell: Callable[[str], None]
    ) -> None:
        self._command, self.home, self._runs, self._tell = command, home, run, tell
        self._bus: PrivateBus | None = None
        self._changed = threading.Condition()  # of the two below
        self._kept: dict[str, tuple[Resident, Lease, LeaseKeeper]] = {}
        self._ending: set[str] = set()

    def elsewhere(self, run: str, rounds: int, ttl_s: float) -> str | None:
        """The home of the other worker that keeps this run's process; None once it is this one."""
        with self._changed:
            self._changed.wait_for(lambda: run not in self._ending)  # its lease would be released under the new one
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
                self._command,
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
        self._tell(f"run {run}: this worker keeps its aggregator")
        return None

    def _say_restarted(self, run: str, reason: str, round_: int) -> None:
        self._tell(f"run {run}, round {round_}: {reason}")
        with contextlib.suppress(FlavorError):  # the round matters more than its log
            self._runs(run).log("aggregator.restarted", reason=reason, round_=round_)

    def folder(self, run: str) -> AbstractContextManager[RunFolder]:
        """See `Runner`: that of the process, which lives on. Raises `AggregatorFailed` once this worker has lost it."""
        return self._resident(run).at_work()

    def __call__(self, work: Work, folder: RunFolder) -> str:
        """See `Runner`."""
        return self._resident(work.run)(work)

    def discard(self, run: str) -> None:
        """End the process of this run: its result could not be used."""
        with contextlib.suppress(AggregatorFailed):  # whoever took it ends it
            self._resident(run).discard()

    def _resident(self, run: str) -> Resident:
        with self._changed:
            if kept := self._kept.get(run):
                return kept[0]
        raise gone(run)

    def _look(self, run: str) -> None:
        """Let go of a run that is over. In the lease keeper's thread."""
        with contextlib.suppress(FlavorError):
            view = self._runs(run).find()
            if view is None:
                self._release(run, RunState.STOPPED, "the run was removed")
            elif view.state.ended:
                self._release(run, view.state, view.reason)

    def _lost(self, run: str) -> None:
        """Another worker took the lease, which had lapsed."""
        with self._changed:
            kept = self._kept.pop(run, None)
            if kept is None:
                return
            self._ending.add(run)
        try:
            self._tell(f"run {run}: another worker keeps its aggregator now")
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
        """End all processes as their runs have, or because this worker ends, and give the runs up to other workers."""
        for run in list(self._kept):
            self._look(run)
        for run in list(self._kept):
            self._release(run, RunState.STOPPED, "this aggregator ends")
        with self._changed:  # what keepers are ending needs the bus
            self._changed.wait_for(lambda: not self._ending, _JOIN_S)
        if self._bus is not None:
            self._bus.close()
