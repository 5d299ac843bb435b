"""Places where a test can have a process killed, to see that nothing is lost there.

`FLAVOR_FAILPOINT=NAME` makes the process that reaches NAME die by SIGKILL, as in a power cut, `NAME:3` when it does so
for the third time. Without it a failpoint costs one comparison.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal

EDGE = ("edge.trained", "edge.stored", "edge.submitted")
WORKER = (
    "worker.taken",
    "worker.inspected",
    "worker.judged",
    "worker.claimed",
    "worker.combined",
    "worker.stored",
    "worker.committed",
)
COORDINATOR = (
    "coordinator.created",
    "coordinator.opening",
    "coordinator.opened",
    "coordinator.closing",
    "coordinator.aggregating",
    "coordinator.enqueued",
    "coordinator.ending",
    "coordinator.ended",
)

_taken_along: list[int] = []


def take_along(process: int) -> None:
    """Have another process die before this one, which would start it again: in a power cut both do."""
    _taken_along.append(process)


_reached = itertools.count(1)


@functools.cache
def _armed() -> tuple[str, int]:
    """The failpoint that the environment names, and which time it is meant; read where the first one is reached."""
    name, _, times = os.environ.get("FLAVOR_FAILPOINT", "").partition(":")
    return name, int(times or 1)


def reach(name: str) -> None:
    """Die here if the environment says so."""
    armed, times = _armed()
    if name == armed and next(_reached) == times:
        for process in (*_taken_along, os.getpid()):
            os.kill(process, signal.SIGKILL)
