"""The one way to wait for what nothing announces: look again and again, up to a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 30.0
"""How long a test waits for anything before it fails."""
PAUSE_S = 0.02
START_PAUSE_S = 0.2
"""The pause of a look that starts a process, which takes more processor time than the pause of other looks is long."""


def eventually(
    what: str,
    look: Callable[[], T],
    timeout_s: float = DEADLINE_S,
    *,
    told: Callable[[], object] | None = None,
    pause_s: float = PAUSE_S,
) -> T:
    """Return what `look()` gives once that is truthy; else the test fails after `timeout_s` seconds.

    The failure names `what` was waited for, and adds what `told()` gives then, such as the log of a server. `look` may
    raise to fail at once, because what it waits for can no longer come.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {timeout_s} s" + (f"; there is {told()}" if told else ""))
        time.sleep(pause_s)
    return found
