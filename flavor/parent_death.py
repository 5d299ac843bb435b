"""Make the kernel end a child process when its parent ends in any way."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_SYSTEM = "/usr/bin:/bin"
_TRIAL_S = 10.0


def die_with_parent() -> Callable[[], None] | None:
    """Return what a child calls before exec so that the kernel kills it when its parent ends; None outside Linux.

    The function looks everything up before the fork: between fork and exec only async-signal-safe work is allowed.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return bind


def bound_by_programs() -> list[str]:
    """Return the words before a command by which it binds itself as above, without a fork; empty if this system cannot.

    A function that is called before exec needs a fork, which copies the page tables of this process: with 50 MB of
    memory and several threads that takes 10 ms of CPU time, more than many commands.
    """
    setpriv, env = _programs()
    if not setpriv:
        return []
    # The folder of a parent that has ended is not there: so a parent that died before the binding leaves no child.
    return [setpriv, "--pdeathsig", "KILL", env, "-C", f"/proc/{os.getpid()}/cwd", "--"]


@functools.cache
def _programs() -> tuple[str, str]:
    """Return the paths of util-linux's `setpriv` and coreutils' `env`; '' where they are missing or too old."""
    setpriv, env = shutil.which("setpriv", path=_SYSTEM), shutil.which("env", path=_SYSTEM)
    if not (sys.platform.startswith("linux") and setpriv and env):
        return "", ""
    trial = [setpriv, "--pdeathsig", "KILL", env, "-C", "/proc/self/cwd", "--", env]
    nothing = subprocess.DEVNULL
    try:
        done = subprocess.run(trial, stdin=nothing, stdout=nothing, stderr=nothing, timeout=_TRIAL_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return "", ""
    return (setpriv, env) if done.returncode == 0 else ("", "")
