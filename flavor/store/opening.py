"""A store that cannot be used when a process starts is waited for, as one that goes away later.

Otherwise a coordinator that its machine starts before the disk or the share is well would have to be started by hand.
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
from flavor.store.trouble import named
from flavor.store.url import folder_of

T = TypeVar("T")

_AGAIN_S = 1.0
_REMIND_S = 60.0
"""What is waited for is told again after so long, then after twice that time, and so on."""


def opened_once_usable(
    url: str, *, create: bool = False, settings: StoreSettings = DEFAULTS, tell: Callable[[str], None]
) -> ObjectStore:
    """`open_store`, as soon as the store can be used. Raises `InvalidSetting` where that does not pass."""
    return once_usable(url, lambda: open_store(url, create=create, settings=settings), tell=tell)


def once_usable(
    url: str,
    work: Callable[[], T],
    *,
    tell: Callable[[str], None],
    pause: Callable[[float], bool] = pause,
) -> T:
    """Do the work with the store at `url`, again and again while it is full, read-only, away or gives errors.

    Raises whatever else keeps it from being done, and that error as well once `pause` says that the end is asked for.
    """
    began, remind_s = 0.0, 0.0
    while True:
        try:
            done = work()
        except (StoreError, OSError) as error:
            passing = passing_fault(url, error)
            if passing is None:
                raise
            began = began or time.monotonic()
            if time.monotonic() - began >= remind_s:
                tell(f"waiting: {passing}; trying again until it can be used")
                remind_s = 2 * remind_s or _REMIND_S
            if pause(_AGAIN_S):
                raise
        else:
            if began:
                tell("the store can be used again: going on")
            return done


def passing_fault(url: str, error: StoreError | OSError) -> StoreUnavailable | None:
    """`error` as one of the store at `url` that passes; None for another, and for one of this machine's own files."""
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
