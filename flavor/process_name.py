"""The name of a process among those of all machines, and whether the process of that name still lives."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path


def own_name() -> str:
    """This process's name among all others, `HOST:PID:PLACE`; people know it by host and number.

    The place tells containers and machines apart that have the same host name; it is empty where that is unknown.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{_place()}"


def _place() -> str:
    """Where the numbers of processes are those that this process sees."""
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
    return began is not None and own is not None and began <= own  # else the number is another process's by now


def _began(pid: str) -> int | None:
    """When a process began, in ticks of the kernel; None for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
