"""A process that is started again when it is killed: for its memory, for a file that was cut off, for a bug.

Its parent does nothing but wait for it, holds no connection and no memory to speak of, and passes signals on.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from flavor import failpoints
from flavor.parent_death import die_with_parent
from flavor.programs.process import described_exit

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_SETTLED_S = 60.0
"""Who has lived for so long is started again after the first pause."""
_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_HEARD = _ENDING | {signal.SIGCHLD}
_BY_KERNEL = 128
"""`si_code` of a signal from a terminal, which its whole group gets."""


def supervised(tell: Callable[[str], None]) -> None:
    """Return in a child of this process, and in another one whenever a signal has killed it.

    The process itself ends as its child does that ends by itself, or after a signal that was sent to either: with 0 if
    that told it to end, since it has nothing of its own to finish. A child
    that is killed is followed by another after a second, or more if that happens again and again. To be called before
    any thread is started or connection made. Where the system cannot wait for signals it returns at once.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    pause_s = _FIRST_PAUSE_S
    while True:
        bind, began = die_with_parent(), time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            if bind is not None:
                bind()
            failpoints.take_along(os.getppid())
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return
        code, asked = _end_of(child)
        if code >= 0 or asked:
            os._exit(_of_one_that_ended(code))
        if time.monotonic() - began > _SETTLED_S:
            pause_s = _FIRST_PAUSE_S
        tell(f"the aggregator was {described_exit(code)}: it is started again in {pause_s:g} s")
        if signal.sigtimedwait(_ENDING, pause_s):
            os._exit(0)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _of_one_that_ended(code: int) -> int:
    """The exit code for that of the child; one that was told to end before it had begun did as it was told."""
    return 0 if -code in _ENDING else code if code >= 0 else 128 - code


def _end_of(child: int) -> tuple[int, bool]:
    """The exit code of the child, negative for a signal, and whether it was asked to end."""
    asked = False
    while True:
        found = signal.sigwaitinfo(_HEARD)
        if found.si_signo in _ENDING:
            asked = True
            if found.si_code != _BY_KERNEL:
                os.kill(child, found.si_signo)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), asked
