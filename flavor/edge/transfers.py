"""Runs an edge's transfers in a thread, while the edge hears what happens, and tells how far each transfer is."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any, Literal, TypeVar

from flavor.durations import shown_duration
from flavor.edge.speed import Speed
from flavor.errors import LocalFault, ShareAway, StoreError, StoreFull, StoreUnavailable, TransferStopped
from flavor.say import say
from flavor.silence import is_silent
from flavor.store.aside import begun, with_patience
from flavor.store.trouble import FAULTS, StoreHealth, Trouble
from flavor.store.waiting import StoreWait
from flavor.view.observer import Observer
from flavor.view.site_events import StoreAwaited, StoreBack, TransferAwaited, TransferMoved
from flavor.watch import Progress, Watch, watched

T = TypeVar("T")

_REPORT_S = 1.0
_TELL_S, _TELL_LIVE_S = 5.0, 0.5
_UNWIND_S = 1.5
"""How long to wait for the end of a transfer that was given up; the next transfer waits until it has ended."""


class Transfers:
    """Runs one transfer at a time. Items that come into `inbox` during a transfer are looked at and put back.

    An item that is `broken` ends the transfer; the bytes that have moved are kept for the next process. A store that
    `health` finds full, read-only, unmounted or faulty is waited for as long as `patience_s`; the observer is told of
    the wait and of its end.

    `report` is called about once a second with the progress of a transfer that takes longer than that, and its speed
    in bytes per second, and with an empty progress at its end. `awaits` is called with what the transfer waits for at
    the store, and with '' once it goes on.
    """

    def __init__(
        self,
        inbox: queue.SimpleQueue[Any],
        *,
        broken: Callable[[Any], bool],
        report: Callable[[Progress, int | None], None],
        observer: Observer,
        patience_s: float = 0.0,
        awaits: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._inbox, self._broken, self.report, self.observer = inbox, broken, report, observer
        self._patience_s, self.awaits = patience_s, awaits
        self._awaited = ""  # what the work waits for at the store, as its thread has found
        self.health: StoreHealth | None = None
        """Judges the faults of the run's store; None until the store is known."""
        self.moving: Literal["", "up", "down"] = ""
        """Which way the present transfer goes, unless it is a quick one; read by other threads."""
        self._given_up: Future[Any] | None = None  # a transfer that was told to end, and has not ended yet

    def carry(
        self,
        work: Callable[[], T],
        *,
        quick: bool = False,
        writes: bool = False,
        over: Callable[[Any], bool] = lambda _: False,
    ) -> T:
        """Do the work, until `over` says of an item of the inbox that the work is no longer wanted.

        The work is ended at once in that case, with `TransferStopped`, and when this thread is interrupted, with the
        interruption. `quick` work is done by this thread: on a busy machine handing it to another thread takes longer.
        If the work `writes` to the store, a store that takes no writes is waited for as well. Raises `StoreUnavailable`
        once the wait has taken too long.
        """
        if self._given_up is not None:  # it might still replace a newer model by an older one
            if not with_patience(self._given_up, _TELL_S):
                self.observer.hear(TransferAwaited())
                wait([self._given_up])
            self._given_up = None
        if quick:
            with self._put_off(writes):
                return work()
        watch, done, held = Watch(), object(), list[Any]()
        ended = threading.Lock()  # taken by the first of two: the work when it is done, or the waiter when it gives up
        telling = _Telling(self, watch)

        def watched_work() -> T:
            with watched(watch):
                return self._while_away(work, watch, writes)

        self.moving = "up" if writes else "down"
        future = begun(watched_work)
        future.add_done_callback(lambda _: self._inbox.put(done) if ended.acquire(blocking=False) else None)
        try:
            while True:
                try:
                    item = self._inbox.get(timeout=_TELL_LIVE_S)
                except queue.Empty:
                    item = None
                if item is done:
                    return future.result()
                if item is not None:
                    held.append(item)
                    broken = self._broken(item)
                    if broken or over(item):
                        watch.stop(unwanted=not broken)
                        self._let_go(future)
                        raise TransferStopped("the transfer was ended: what it was for is over")
                telling.look()
        except BaseException:
            watch.stop()
            self._let_go(future)
            raise
        finally:
            self.moving = ""
            telling.end()
            if not ended.acquire(blocking=False):  # its item is in the inbox, unless it was taken out
                held += [item for item in self._emptied() if item is not done]
            for item in held:
                self._inbox.put(item)
            telling.take_back()

    def what_is_awaited(self) -> str:
        """What the work waits for at the store; '' for nothing."""
        if not self._awaited and self.health is not None and is_silent(self.health.store.url):
            return "the object store, which gives no answer"
        return self._awaited

    def _let_go(self, future: Future[Any]) -> None:
        if not with_patience(future, _UNWIND_S):
            self._given_up = future

    def _while_away(self, work: Callable[[], T], watch: Watch, writes: bool) -> T:
        """Do the work; repeat it as long as the store keeps it from being done."""
        self._awaited = ""
        return StoreWait(
            lambda error: self._trouble(error, writes),
            _StoreTelling(self),
            pause=lambda seconds: watch.pause(seconds, unless=lambda: False),
            patience_s=self._patience_s,
            given_up=self._given_up_on,
        ).until_done(work)

    def await_store(self, trouble: Trouble) -> None:
        """Note and tell that the work waits for the store."""
        if isinstance(trouble.error, StoreFull):
            what, self._awaited = "room", "room in the object store"
        else:
            what, self._awaited = "the store", "the object store, which cannot be used for now"
        self.observer.hear(StoreAwaited(str(trouble.error), what=what, patience_s=self._patience_s))

    @contextlib.contextmanager
    def _put_off(self, writes: bool) -> Iterator[None]:
        """Swallow a fault of the store, so that a second attempt, in a thread, waits for it; raise other errors."""
        try:
            yield
        except FAULTS as error:
            self._trouble(error, writes)

    def _trouble(self, error: Exception, writes: bool) -> Trouble:
        """What is wrong with the store; raises an error that is not the store's fault."""
        if isinstance(error, ShareAway):  # the store is not open yet
            return Trouble(error)
        trouble = self.health.trouble(error, writes=writes) if self.health is not None else None
        if trouble is not None:
            return trouble
        if isinstance(error, StoreFull):  # it is another disk that is full
            raise LocalFault(str(error), path=error.path) from error
        raise error

    def _given_up_on(self, trouble: Trouble) -> StoreError:
        error = trouble.error
        if isinstance(error, StoreFull):
            return LocalFault(str(error), path=error.path) if trouble.is_own else error
        waited = f"waited for {shown_duration(self._patience_s)} (--patience-s)"
        return StoreUnavailable(f"{error}; {waited}: start this again once it can be used", passing=True)

    def _emptied(self) -> Iterator[Any]:
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._inbox.get_nowait()


class _StoreTelling:
    """Tells once that the work waits for the store, and why, and once that the work goes on."""

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers
        self._end = ""  # what to tell once the work goes on

    def waits(self, trouble: Trouble) -> None:
        if not self._end:
            is_full = isinstance(trouble.error, StoreFull)
            self._end = "there is room again" if is_full else "the store can be used again"
            self._transfers.await_store(trouble)

    def is_back(self) -> None:
        if self._end:
            self._transfers.observer.hear(StoreBack(self._end))


class _Telling:
    """Tells of one transfer while it goes on: the site's user, and the run."""

    def __init__(self, transfers: Transfers, watch: Watch) -> None:
        self._transfers, self._watch, self._line = transfers, watch, _Line(transfers.observer)
        self._reported_at = self._began = time.monotonic()
        self._speed = Speed()
        self._awaited = ""

    def look(self) -> None:
        """Tell what has changed."""
        if (awaited := self._transfers.what_is_awaited()) != self._awaited:
            self._awaited = awaited
            self._transfers.awaits(awaited)
        now, progress = time.monotonic(), self._watch.progress
        bytes_s = self._speed.of(progress, now)
        if progress.phase and now - self._began >= _REPORT_S:
            self._line.show(progress, bytes_s)
            if now - self._reported_at >= _REPORT_S:
                self._reported_at = now
                self._transfers.report(progress, bytes_s)

    def end(self) -> None:
        """Remove the line at the site."""
        self._line.end()

    def take_back(self) -> None:
        """Tell the run that nothing moves any more, if it was told of the transfer."""
        if self._reported_at != self._began:
            self._transfers.report(Progress(), None)
        if self._awaited:
            self._transfers.awaits("")


class _Line:
    """Shows how far a transfer is: in a terminal in one line on stderr, else as an event every few seconds."""

    def __init__(self, observer: Observer) -> None:
        self._observer, self._live, self._shown_at = observer, sys.stderr.isatty(), 0.0

    def show(self, progress: Progress, bytes_s: int | None) -> None:
        now = time.monotonic()
        if now - self._shown_at < (_TELL_LIVE_S if self._live else _TELL_S):
            return
        self._shown_at = now
        moved = TransferMoved(progress.phase, progress.done, progress.total, bytes_s)
        if self._live:
            say(f"\r{moved.line}\033[K", end="")
        else:
            self._observer.hear(moved)

    def end(self) -> None:
        if self._live and self._shown_at:
            say("\r\033[K", end="")
