"""Places where a test can kill a process, to show that nothing is lost there.

`FLAVOR_FAILPOINT=NAME` kills the process that reaches NAME by SIGKILL, as a power cut would; `NAME:3` kills it at the
third time. Without the variable, a failpoint costs one comparison.
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

EVALUATION = {
    "coordinator": ("coordinator.evaluating", "coordinator.evaluation_opened", "coordinator.merging"),
    "worker": ("worker.result_taken", "worker.evaluated"),
    "edge": ("edge.evaluated", "edge.result_handed_in"),
}
"""Those of an evaluation, by the program that dies."""

CENTRAL = {
    "coordinator": ("coordinator.judging", "coordinator.judging_opened"),
    "worker": ("worker.judging", "worker.judged_centrally"),
}
"""Those of an evaluation on the operator's own data, by the program that dies."""

_taken_along: list[int] = []


def take_along(process: int) -> None:
    """Kill another process before this one, which would start it again. A power cut ends both."""
    _taken_along.append(process)


_armed = ""
_times = 1
_reached = itertools.count(1)


def arm(environment: Mapping[str, str]) -> None:
    """Arm the failpoint that the environment names, or none. Entry points call this."""
    global _armed, _times, _reached
    _armed, _, times = environment.get("FLAVOR_FAILPOINT", "").partition(":")
    _times, _reached = int(times or 1), itertools.count(1)


def reach(name: str) -> None:
    """Kill this process if this failpoint is armed and was reached as often as the variable says."""
    if name == _armed and next(_reached) == _times:
        for process in (*_taken_along, os.getpid()):
            os.kill(process, signal.SIGKILL)
