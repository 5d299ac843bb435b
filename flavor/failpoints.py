"""Places where a test can have a process killed, to see that nothing is lost there, and what it was promised by then.

`FLAVOR_FAILPOINT=NAME` makes the process that reaches NAME die by SIGKILL, as in a power cut, `NAME:3` when it does so
for the third time. Without it a failpoint costs one comparison.

`FLAVOR_JOURNAL=FILE` makes an edge append a line `ROUND CLIENT` to FILE whenever Redis has taken an update from it:
what a checker holds against what became of it. Edges may share the file. Without it that costs one comparison, too.
"""

from __future__ import annotations

import itertools
import os
import signal

EDGE = ("edge.trained", "edge.stored", "edge.submitted")
WORKER = (
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

_ARMED, _, _TIMES = os.environ.get("FLAVOR_FAILPOINT", "").partition(":")
_reached = itertools.count(1)
_JOURNAL = os.environ.get("FLAVOR_JOURNAL", "")


def reach(name: str) -> None:
    """Die here if the environment says so."""
    if name == _ARMED and next(_reached) == int(_TIMES or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def note_handed_in(round_: int, client: str) -> None:
    """Note, outside of Redis, that it has acknowledged this client's update, if the environment says where."""
    if _JOURNAL:
        with open(_JOURNAL, "a") as journal:
            journal.write(f"{round_} {client}\n")
