"""Marks of a file as it is now, by which a change of it is seen without reading it."""

from __future__ import annotations

import functools
import os
import time

from flavor.store.protocol import ObjectStore

_PAUSES_S = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
_WITHIN_NS = 900_000
"""Less than any clock tick of a kernel."""


def seal_of(found: os.stat_result, *, strict: bool) -> str:
    """A file's inode, size and time of modification; `strict` the time of its last change, too (`ObjectStore.seal`)."""
    changed = f":{found.st_ctime_ns}" if strict else ""
    return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}{changed}"


def is_strict(seal: str) -> bool:
    """Whether it has the time of the last change."""
    return seal.count(":") == 3


def has_settled(store: ObjectStore, changed_ns: int) -> bool:
    """Whether a change that is made from now on gives a file of this folder another time than `changed_ns`, its last.

    A file system's clock goes in ticks, of milliseconds mostly; what is written twice in one tick has one time. It is
    waited for, not longer than a moment: False where that was not enough.
    """
    if _tells_changes_apart(store):  # type: ignore[arg-type]
        return True
    for pause_s in _PAUSES_S:
        time.sleep(pause_s)
        if changed_ns < _now_ns(store):
            return True
    return False


def _now_ns(store: ObjectStore) -> int:
    """The time that a change made now is given, by the clock of the machine that keeps the folder."""
    with store.stage() as probe:
        probe.touch()
        return probe.stat().st_ctime_ns


@functools.lru_cache(8)
def _tells_changes_apart(store: ObjectStore) -> bool:
    """Whether two changes, the first of which was looked at, never have one time there (Linux 6.13 and newer).

    Three of them within less than a tick show it.
    """
    with store.stage() as probe:
        probe.touch()
        begun_ns, times = time.monotonic_ns(), [probe.stat().st_ctime_ns]
        for mode in (0o600, 0o400):
            probe.chmod(mode)
            times.append(probe.stat().st_ctime_ns)
        return times[0] < times[1] < times[2] and time.monotonic_ns() - begun_ns < _WITHIN_NS
