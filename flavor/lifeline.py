"""Whether the process lives that another one depends on; and a child that ends with its parent, whatever ends that."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """What a child runs before exec so that the kernel ends it with its parent; None where that is unknown.

    Everything is looked up before the fork: between fork and exec only async-signal-safe work is allowed.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return bind


def lives(token: str) -> bool:
    """Whether the process that a lease's token names is on this machine, and began before this one did.

    False also where that is unknown: it is on another machine, in another container, or this is no Linux.
    """
    host, _, rest = token.partition(":")
    pid = rest.partition(":")[0]
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    began, own = _began(pid), _began("self")
    return began is not None and own is not None and began <= own  # else the number is another process's by now


def _began(pid: str) -> int | None:
    """When a process began, in ticks of the kernel; None for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
