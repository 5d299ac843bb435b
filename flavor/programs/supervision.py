"""Starts a process again when a signal has killed it: because of its memory, a file that was cut off, or a bug.

The parent only waits for that process and passes signals on. It holds no connection, and little memory.
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
"""A process that has lived for so many seconds is started again after the first pause."""
_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_HEARD = _ENDING | {signal.SIGCHLD}
_BY_KERNEL = 128
"""`si_code` of a signal from a terminal, which the whole process group gets."""


def supervised(tell: Callable[[str], None]) -> None:
    """Fork, and return in the child; fork another child whenever a signal has killed the last one.

    This process itself does not return. It ends with the exit code of a child that ends by itself, or after a signal
    that was sent to either of the two: with 0 if the signal told it to end, since it has no work of its own to finish.
    The next child is forked after a second, or after a longer pause if children are killed again and again. Call this
    before any thread is started or any connection is made. Where the system cannot wait for signals, it returns at
    once, and nothing is forked.
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
    """The exit code of this process for that of its child; 0 for a child that was told to end before it had begun."""
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
