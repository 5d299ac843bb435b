"""Seals: marks of a file that show a later change without reading the file."""

from __future__ import annotations

import functools
import os
import time

from flavor.store.protocol import ObjectStore

_PAUSES_S = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
_WITHIN_NS = 900_000
"""Shorter than a clock tick of any kernel."""


def seal_of(found: os.stat_result, *, strict: bool) -> str:
    """Return a file's inode, size and time of modification; with `strict` also the time of its last change."""
    changed = f":{found.st_ctime_ns}" if strict else ""
    return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}{changed}"


def is_strict(seal: str) -> bool:
    """Whether the seal has the time of the last change."""
    return seal.count(":") == 3


def has_settled(store: ObjectStore, changed_ns: int) -> bool:
    """Whether each later change gives a file of this folder a time other than `changed_ns`, the time of its last one.

    A file system's clock goes in ticks, mostly of milliseconds, and two changes within one tick have the same time.
    Waits for the next tick, for 63 ms at most; False where that was not enough.
    """
    if _tells_changes_apart(store):  # type: ignore[arg-type]
        return True
    for pause_s in _PAUSES_S:
        time.sleep(pause_s)
        if changed_ns < _now_ns(store):
            return True
    return False


def _now_ns(store: ObjectStore) -> int:
    """Return the time of a change made now, by the clock of the machine that keeps the folder."""
    with store.stage() as probe:
        probe.touch()
        return probe.stat().st_ctime_ns


@functools.lru_cache(8)
def _tells_changes_apart(store: ObjectStore) -> bool:
    """Whether two changes never have the same time there once the first was looked at (Linux 6.13 and newer).

    Three changes within less than a tick show it.
    """
    with store.stage() as probe:
        probe.touch()
        begun_ns, times = time.monotonic_ns(), [probe.stat().st_ctime_ns]
        for mode in (0o600, 0o400):
            probe.chmod(mode)
            times.append(probe.stat().st_ctime_ns)
        return times[0] < times[1] < times[2] and time.monotonic_ns() - begun_ns < _WITHIN_NS
