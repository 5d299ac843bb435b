"""Places where a test can have a process killed, to see that nothing is lost there.

`FLAVOR_FAILPOINT=NAME` makes the process that reaches NAME die by SIGKILL, as in a power cut, `NAME:3` when it does so
for the third time. Without it a failpoint costs one comparison.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Mapping

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


_armed = ""
_times = 1
_reached = itertools.count(1)


def arm(environment: Mapping[str, str]) -> None:
    """For entry points: take what the environment says, also that nothing is armed."""
    global _armed, _times, _reached
    _armed, _, times = environment.get("FLAVOR_FAILPOINT", "").partition(":")
    _times, _reached = int(times or 1), itertools.count(1)


def reach(name: str) -> None:
    """Die here if this failpoint is armed, and reached as often as was said."""
    if name == _armed and next(_reached) == _times:
        for process in (*_taken_along, os.getpid()):
            os.kill(process, signal.SIGKILL)
