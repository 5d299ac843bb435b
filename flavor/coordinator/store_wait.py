"""The wait for a store that cannot be used while a run is served: as long as it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flavor.coordinator.heard import Heard
from flavor.coordinator.waits import Waits, waiting
from flavor.disk import file_of
from flavor.errors import LocalFault, StoreError, StoreUnavailable
from flavor.records.run import RunView
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import StoreHealth, Trouble
from flavor.store.waiting import StoreWait
from flavor.view.event import Notice
from flavor.view.observer import Observer


class CoordinatorWait:
    """Waits for the store of one run, and ends each wait at once when `stopped` is set.

    Tells whenever it is news why the store cannot be used, and once that it can be used again.
    """

    def __init__(
        self,
        store: ObjectStore,
        heard: Heard,
        waits: Waits,
        *,
        observer: Observer,
        stopped: threading.Event,
    ) -> None:
        self._store, self._stopped = store, stopped
        self._telling = _Telling(heard, waits, observer)
        self._wait = StoreWait(self._judge, self._telling, pause=self._pause)

    def until_done(self, work: Callable[[], None], run: RunView) -> None:
        """Do the work, also where the store is full or away for now; not once the end is asked for."""
        while not self._stopped.is_set():
            try:
                work()
                self.is_back()
                return
            except (StoreError, OSError) as error:
                self.wait(error, run)

    def wait(self, error: StoreError | OSError, run: RunView, round_: int | None = None) -> None:
        """Wait a moment if it is the store that cannot be used for now: full, away, read-only, unmounted; else raise.

        `round_` is the round of the run that waits then; None between rounds.

        The coordinator has no other files in hand than the store's. What may be no fault of it is tried a few times.
        """
        self._telling.run, self._telling.round = run, round_
        try:
            self._wait.wait(error)
        except OSError as own:
            where = file_of(own, "this machine")
            raise LocalFault(f"{where}: {own.strerror}: check this machine, its disks and its limits") from own

    def is_back(self) -> None:
        """What needed the store could be done."""
        self._wait.is_back()

    def _judge(self, error: Exception) -> Trouble | None:
        run = self._telling.run
        assert run is not None
        if isinstance(error, StoreUnavailable) and error.passing:
            return Trouble(error)
        return StoreHealth(self._store, run.run, run.run_id).trouble(error, writes=True)

    def _pause(self, seconds: float) -> bool:
        self._stopped.wait(seconds)
        return False  # the loop itself looks whether the end is asked for


class _Telling:
    """Tells why the store cannot be used, as often as `heard` has room for, and writes what the run waits for."""

    def __init__(self, heard: Heard, waits: Waits, observer: Observer) -> None:
        self._heard, self._waits, self._observer = heard, waits, observer
        self.run: RunView | None = None
        self.round: int | None = None
        self._told = ""  # why it cannot be used for now

    def waits(self, trouble: Trouble) -> None:
        why = str(trouble.error)
        if why == self._told or not self._heard.may_tell_of_store():
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
