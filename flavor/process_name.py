"""Name a process uniquely among all machines, and find out whether it was started before this one."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path


def own_name() -> str:
    """Return this process's unique name, `HOST:PID:PLACE`. People recognise it by host and number.

    The place distinguishes containers and machines with the same host name; it is empty where it is unknown.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{_place()}"


def _place() -> str:
    """Return the machine and PID namespace in which this process's number is valid."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    except (OSError, ValueError):
        return ""


def lives(token: str) -> bool:
    """Whether the process that a lease's token names is on this machine, and began before this one did.

    A token begins with the process's `own_name`. False also where that is unknown: it is on another machine, in another
    container, or this is no Linux.
    """
    host, pid, place, *_ = (*token.split(":"), "", "", "")
    if (host, place) != (socket.gethostname(), _place()) or not place or not pid.isdecimal():
        return False
    began, own = _began(pid), _began("self")
    return began is not None and own is not None and began <= own  # otherwise the number is another process's by now


def _began(pid: str) -> int | None:
    """Return when a process began, in ticks of the kernel; None for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
