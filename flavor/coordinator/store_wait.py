"""Waits for a store that cannot be used for now while a run is served, without a limit of time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.wait_log import Waits, waiting
from flavor.disk import file_of
from flavor.errors import LocalFault, StoreError, StoreUnavailable
from flavor.records.run import RunView
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import StoreHealth, Trouble
from flavor.store.waiting import StoreWait
from flavor.view.event import Notice
from flavor.view.observer import Observer


class CoordinatorWait:
    """Waits for the store of one run; each wait ends at once when `stopped` is set.

    Reports each new reason why the store cannot be used, and once that the store can be used again.
    """

    def __init__(
        self,
        store: ObjectStore,
        client_log: ClientLog,
        waits: Waits,
        *,
        observer: Observer,
        stopped: threading.Event,
    ) -> None:
        self._store, self._stopped = store, stopped
        self._telling = _Telling(client_log, waits, observer)
        self._wait = StoreWait(self._judge, self._telling, pause=self._pause)

    def until_done(self, work: Callable[[], None], run: RunView) -> None:
        """Do the work; repeat it while the store is full or away. Return without it when `stopped` is set."""
        while not self._stopped.is_set():
            try:
                work()
                self.is_back()
                return
            except (StoreError, OSError) as error:
                self.wait(error, run)

    def wait(self, error: StoreError | OSError, run: RunView, round_: int | None = None) -> None:
        """Wait a moment if the error says that the store is full, away, read-only or unmounted; else raise the error.

        `round_` is the round that waits; None between rounds. Raises `LocalFault` for an error of this machine's own
        files. An error that may not be the store's fault is tolerated a few times, and then raised.
        """
        self._telling.run, self._telling.round = run, round_
        try:
            self._wait.wait(error)
        except OSError as own:
            where = file_of(own, "this machine")
            raise LocalFault(f"{where}: {own.strerror}: check this machine, its disks and its limits") from own

    def is_back(self) -> None:
        """Record that the store could be used."""
        self._wait.is_back()

    def _judge(self, error: Exception) -> Trouble | None:
        run = self._telling.run
        assert run is not None
        if isinstance(error, StoreUnavailable) and error.passing:
            return Trouble(error)
        return StoreHealth(self._store, run.run, run.run_id).trouble(error, writes=True)

    def _pause(self, seconds: float) -> bool:
        self._stopped.wait(seconds)
        return False  # the loop itself looks whether `stopped` is set


class _Telling:
    """Reports why the store cannot be used, as often as `ClientLog` allows, and logs it as what the run waits for."""

    def __init__(self, client_log: ClientLog, waits: Waits, observer: Observer) -> None:
        self._client_log, self._waits, self._observer = client_log, waits, observer
        self.run: RunView | None = None
        self.round: int | None = None
        self._told = ""  # the reason that was reported last; '' while the store can be used

    def waits(self, trouble: Trouble) -> None:
        why = str(trouble.error)
        if why == self._told or not self._client_log.allows_store_line():
            return
        self._told = why
        reason = f"{why}; trying again until it can be used"
        self._observer.hear(waiting(self.round, reason, names_round=False))
        if self.run is not None and not self.run.state.ended:
            self._waits.for_store(self.round, reason)

    def is_back(self) -> None:
        if self._told:
            self._told = ""
            self._observer.hear(Notice("the store can be used again: going on"))
