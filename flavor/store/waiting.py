"""Wait for a store that cannot be used for now: at the start of a program, while a run is served, and at a site.

Each of these decides which faults can pass, and how to report the wait. This module decides how often the work is
tried, and when the wait is given up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from flavor import alive
from flavor.store.trouble import FAULTS, MOST_UNSURE, Trouble

T = TypeVar("T")

AGAIN_S = 1.0
"""Seconds between two attempts."""


class Telling(Protocol):
    """Reports one wait."""

    def waits(self, trouble: Trouble) -> None:
        """The store cannot be used: called after each attempt that shows this for sure."""
        ...

    def is_back(self) -> None:
        """The work was done; also called where there was no wait."""
        ...


class StoreWait:
    """Does work that needs the store, as soon as the store can be used.

    `judge` returns the store's trouble; for an error that is not a passing fault of the store it returns None or
    raises. `pause` sleeps for so many seconds, and returns True where the process was asked to end: then the error is
    raised. After `patience_s` seconds the wait ends with the error that `given_up` returns.
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
        self._unsure = 0  # faults in a row that may or may not be the store's

    def until_done(self, work: Callable[[], T]) -> T:
        """Do the work, and repeat it while the store is at fault. Raises what `wait` raises."""
        while True:
            try:
                done = work()
            except FAULTS as error:
                self.wait(error)
            else:
                self.is_back()
                return done

    def wait(self, error: Exception) -> None:
        """Wait a moment for the store, because work has failed with this error; raise the error if it cannot pass."""
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
        alive.turned()
        if self._pause(AGAIN_S):
            raise error

    def is_back(self) -> None:
        """The work was done: the wait is over."""
        self._since, self._unsure = None, 0
        self._telling.is_back()
