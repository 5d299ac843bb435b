"""A user's aggregator that is started once for a run: its process, driven by two events.

The process talks to a server of the worker, behind a unix socket in a folder that only this user can enter: it needs
neither address nor password of the run's Redis. On that server it is the one client of its run, whose rounds begin with
AggregateStarted and end with AggregateFinished. A failed attempt ends the process, and the next attempt starts it
again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from rq.timeouts import JobTimeoutException

from flavor.bus.connection import Redis, connect
from flavor.bus.embedded import embedded_server
from flavor.bus.solo_run import SoloRun
from flavor.errors import AggregatorFailed
from flavor.programs.aggregator import UserAggregator
from flavor.programs.aggregator_folder import AggregatorFolder
from flavor.programs.process import ChildProcess, quoted
from flavor.records.names import Event
from flavor.records.states import RunState
from workers.combiner import Work
from workers.command import overdue

CLIENT = "aggregator"
DONE = (Event.AGGREGATE_FINISHED, Event.PROCESS_FINISHED)
"""Each of these events ends a round: the ancestors' guide ends an aggregator with ProcessFinished."""
_LOOK_S = 1.0
_END_S = 10.0
"""How long a process may take to end after the end of its run."""
_GRACE_S = 2.0


class PrivateBus:
    """The server for the events between this worker and the processes that it keeps."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.url = self._stack.enter_context(embedded_server())
        self.redis: Redis = connect(self.url, client_name="flavor-agg")

    def close(self) -> None:
        """Stop the server."""
        self.redis.close()
        self._stack.close()


class Resident:
    """The process of one run. One thread at a time owns it: a job while it is `at_work`, or the thread that ends it.

    The bus of the process says which rounds are done, for any number of processes (a shell script has one for each
    event): the newest round that was started, and that round's AggregateFinished, which stays until the next round is
    finished. `restarted` is called with the reason when a process replaces one that has aggregated already.
    """

    def __init__(
        self,
        bus: PrivateBus,
        aggregator: UserAggregator,
        run: str,
        rounds: int,
        *,
        restarted: Callable[[str, int], None] = lambda reason, round_: None,
    ) -> None:
        self._aggregator, self._run, self._rounds = aggregator, run, rounds
        self._restarted = restarted
        self._folder: AggregatorFolder | None = None
        self._url = bus.url
        self._bus = SoloRun(bus.redis, bus.url, run, CLIENT, starts=Event.AGGREGATE_STARTED, holder="flavor-agg")
        self._process: ChildProcess | None = None
        self._behind = 0  # the newest round that this process has aggregated
        self._served = 0  # the newest round that any process has aggregated here
        self._failed = ""  # why the last process was stopped, if it was not left to its end
        self._over = threading.RLock()
        self._closed = False

    @contextlib.contextmanager
    def at_work(self) -> Iterator[AggregatorFolder]:
        """Return the folder of the process, for a job that uses it: the process is ended before or after the job."""
        with self._over:
            if self._closed:
                raise gone(self._run)
            if self._folder is None:
                self._folder = self._aggregator.folder(self._run)
            yield self._folder

    def __call__(self, work: Work) -> str:
        """Have the process aggregate a round; see `Runner`."""
        with self.at_work() as folder:
            process = self._process
            if process is None or process.exit_code is not None or self._behind >= work.round:
                process = self._start_for(work, folder)
            try:
                if not self._await_finished(work, process):  # the process was ending when the round began
                    process = self._start_for(work, folder)
                    self._await_finished(work, process)
            except BaseException:
                self._failed = "the last attempt failed"
                self._stop()
                raise
            before, self._behind, self._served = self._behind, work.round, work.round
            if before:
                self._bus.forget_events(before)
            return quoted(process.last_lines)

    def _start_for(self, work: Work, folder: AggregatorFolder) -> ChildProcess:
        """Start a process for this round, and report it if another process has aggregated before."""
        if self._served or self._failed:
            if self._failed:
                why = self._failed
            elif self._process is not None and (code := self._process.exit_code) is not None:
                why = self._aggregator.obituary(code, self._process.last_lines, f"after round {self._behind}")
            else:
                why = f"round {work.round} is aggregated again"
            self._restarted(f"the aggregator is started again: {why}; what it kept in memory is gone", work.round)
        return self._start(folder)

    def _await_finished(self, work: Work, process: ChildProcess) -> bool:
        """Start the round and wait for AggregateFinished; return False if the process ended before it began."""
        subscription, events = self._bus.subscription(), self._bus.events
        subscription.open()
        try:
            events.start_round(work.round)
            while True:
                ended = process.exit_code is not None
                if any(events.is_set(event, work.round) for event in DONE):
                    return True  # read after the exit code: an event that the process set before its end counts
                if ended and self._behind and events.taken() < work.round:
                    return False
                if ended:
                    code = process.wait()
                    raise AggregatorFailed(
                        self._aggregator.obituary(code or 0, process.last_lines, "before AggregateFinished")
                    )
                if events.is_set(Event.ERROR, work.round):
                    raise AggregatorFailed(f"the aggregator set the event Error{quoted(process.last_lines)}")
                subscription.wait(_LOOK_S)
        except JobTimeoutException:
            raise overdue(work, process) from None
        finally:
            subscription.close()

    def _start(self, folder: AggregatorFolder) -> ChildProcess:
        self._stop()
        self._bus.begin(self._rounds)
        self._behind, self._failed = 0, ""
        self._process = self._aggregator.start(
            folder,
            self._run,
            self._rounds,
            extra={"FLAVOR_CLIENT": CLIENT, "FLAVOR_REDIS_URL": self._url},
            ended=lambda code: self._bus.wake(),
        )
        return self._process

    def discard(self) -> None:
        """Drop the process: its result could not be used, so the next attempt starts another one."""
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
        """Keep all other threads out until this thread calls `end`; return False, without effect, during a job."""
        return self._over.acquire(blocking=False)

    def end(self, state: RunState, reason: str) -> None:
        """End the claimed process as at the end of the run, and leave its folder.

        The next WaitEvent ends the process; after ten seconds a signal does.
        """
        try:
            if self._process is not None:
                with contextlib.suppress(Exception):
                    self._bus.end(state, reason)
                    self._process.wait(_END_S)
            self._close()
        finally:
            self._over.release()


def gone(run: str) -> AggregatorFailed:
    """Return the error of a job whose process ended before the job reached it."""
    return AggregatorFailed(
        f"this worker no longer keeps the aggregator of run {run!r}: the next attempt finds who does"
    )
