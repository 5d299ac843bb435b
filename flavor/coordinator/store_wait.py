"""The store that cannot be used for now, while a run is served: waited for, as long as it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flavor.coordinator.heard import Heard
from flavor.coordinator.waits import Waits
from flavor.disk import file_of
from flavor.errors import LocalFault, StoreError, StoreUnavailable
from flavor.records.run import RunView
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import MOST_UNSURE, StoreHealth

_AGAIN_S = 1.0


class StoreWait:
    """Tells once that the store of one run cannot be used and why, and once that it can be used again."""

    def __init__(
        self,
        store: ObjectStore,
        heard: Heard,
        waits: Waits,
        *,
        tell: Callable[[str], None],
        stopped: threading.Event,
    ) -> None:
        self._store, self._heard, self._waits, self._tell, self._stopped = store, heard, waits, tell, stopped
        self._told = ""  # why it cannot be used for now
        self._unsure = 0  # faults in a row that may be the store's, and may not

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
        passing = error if isinstance(error, StoreUnavailable) and error.passing else None
        if passing is None:
            trouble = StoreHealth(self._store, run.run, run.run_id).trouble(error, writes=True)
            if trouble is None or (not trouble.is_sure and self._unsure >= MOST_UNSURE):
                if not isinstance(error, OSError):
                    raise error
                where = file_of(error, "this machine")
                raise LocalFault(f"{where}: {error.strerror}: check this machine, its disks and its limits") from error
            passing = trouble.error if trouble.is_sure else None
        self._unsure = 0 if passing else self._unsure + 1
        if passing is not None and (why := str(passing)) != self._told and self._heard.may_tell_of_store():
            self._told = why
            reason = f"{why}; trying again until it can be used"
            self._tell(f"waiting: {reason}")
            if not run.state.ended:
                self._waits.for_store(round_, reason)
        self._stopped.wait(_AGAIN_S)

    def is_back(self) -> None:
        """What needed the store could be done."""
        self._unsure = 0
        if self._told:
            self._told = ""
            self._tell("the store can be used again: going on")
