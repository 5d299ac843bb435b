"""The wait for a store that cannot be used for now: at the start of a program, while a run is served, and at a site.

Each of them says what it takes for a fault that passes, and tells its people in its own way; how often the work is
tried, and when the wait is given up, stands here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from flavor.store.trouble import FAULTS, MOST_UNSURE, Trouble

T = TypeVar("T")

AGAIN_S = 1.0
"""The work is tried again after so long."""


class Telling(Protocol):
    """What people are told of one wait."""

    def waits(self, trouble: Trouble) -> None:
        """The store cannot be used, again: called after each attempt that shows so for sure."""
        ...

    def is_back(self) -> None:
        """What needed the store could be done; also called where nothing was waited for."""
        ...


class StoreWait:
    """Does what needs the store, as soon as that can be used.

    `judge` returns what is wrong with the store, or None, or raises, when an error is none of the store's that passes.
    `pause` sleeps for so many seconds; when it returns True, the end is asked for, and the error is raised. After
    `patience_s` seconds the wait is given up, with the error that `given_up` returns.
    """

    def __init__(
        self,
        judge: Callable[[Exception], Trouble | None],
        telling: Telling,
        *,
        pause: Callable[[float], bool],
        patience_s: float = math.inf,
        given_up: Callable[[Trouble], Exception] = lambda trouble: trouble.error,
    ) -> None:
        self._judge, self._telling, self._pause = judge, telling, pause
        self._patience_s, self._given_up = patience_s, given_up
        self._since: float | None = None
        self._unsure = 0  # faults in a row that may be the store's, and may not

    def until_done(self, work: Callable[[], T]) -> T:
        """Do the work, again and again while it is the store that keeps it from being done. Raises as `wait`."""
        while True:
            try:
                done = work()
            except FAULTS as error:
                self.wait(error)
            else:
                self.is_back()
                return done

    def wait(self, error: Exception) -> None:
        """Wait a moment for the store, because work has failed with this error; raise it if it does not pass."""
        trouble = self._judge(error)
        if trouble is None:
            raise error
        self._unsure = 0 if trouble.is_sure else self._unsure + 1
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        is_over = now - self._since >= self._patience_s
        if self._unsure > MOST_UNSURE or (is_over and not trouble.is_sure):
            raise error
        if is_over:
            raise self._given_up(trouble) from None
        if trouble.is_sure:
            self._telling.waits(trouble)
        if self._pause(AGAIN_S):
            raise error

    def is_back(self) -> None:
        """What needed the store could be done."""
        self._since, self._unsure = None, 0
        self._telling.is_back()
