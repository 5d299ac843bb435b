"""Open a store at the start of a program, and wait while it cannot be used yet.

A machine may start the coordinator before the disk or the share can be used. Without the wait, a person would have to
start the coordinator again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from flavor.disk import AWAY, FULL, causes, found_no_room
from flavor.errors import ShareAway, StoreError, StoreFull, StoreUnavailable
from flavor.signals import pause
from flavor.store.open import open_store
from flavor.store.protocol import ObjectStore
from flavor.store.settings import DEFAULTS, StoreSettings
from flavor.store.trouble import Trouble, named
from flavor.store.url import folder_of
from flavor.store.waiting import StoreWait

T = TypeVar("T")

_REMIND_S = 60.0
"""Seconds until the first reminder of a wait; each further reminder comes after twice the time."""


def opened_once_usable(
    url: str, *, create: bool = False, settings: StoreSettings = DEFAULTS, tell: Callable[[str], None]
) -> ObjectStore:
    """Open the store as soon as it can be used. Raises `InvalidSetting` for a fault that does not pass."""
    return once_usable(url, lambda: open_store(url, create=create, settings=settings), tell=tell)


def once_usable(
    url: str,
    work: Callable[[], T],
    *,
    tell: Callable[[str], None],
    pause: Callable[[float], bool] = pause,
) -> T:
    """Do the work with the store at `url`, and repeat it while the store is full, read-only, away or gives errors.

    Raises other errors at once. When `pause` returns True, because the process was asked to end, raises the store's
    error.
    """

    def judge(error: Exception) -> Trouble | None:
        passing = passing_fault(url, error) if isinstance(error, StoreError | OSError) else None
        return Trouble(passing) if passing is not None else None

    return StoreWait(judge, _Reminders(tell), pause=pause).until_done(work)


class _Reminders:
    """Tells of a wait when it begins, and reminds of it at doubling intervals."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._began: float | None = None
        self._remind_s = 0.0

    def waits(self, trouble: Trouble) -> None:
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        if now - self._began >= self._remind_s:
            self._tell(f"waiting: {trouble.error}; trying again until it can be used")
            self._remind_s = 2 * self._remind_s or _REMIND_S

    def is_back(self) -> None:
        if self._began is not None:
            self._tell("the store can be used again: going on")


def passing_fault(url: str, error: StoreError | OSError) -> StoreUnavailable | None:
    """Return `error` as a fault of the store at `url` that can pass; None otherwise, also for this machine's files."""
    if isinstance(error, StoreUnavailable) and not isinstance(error, StoreFull):
        return error if error.passing else None
    root = folder_of(url)
    if root is None or {Path(name).resolve().is_relative_to(Path(root).resolve()) for name in named(error)} != {True}:
        return None
    if isinstance(error, StoreFull):
        return error
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in FULL:
            return found_no_room(cause, root)
        if isinstance(cause, OSError) and cause.errno in AWAY:
            return ShareAway(f"store {root!r} cannot be used ({cause.strerror}): check its disk and its mount")
    return None
