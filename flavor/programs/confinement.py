"""The limits of a child process (memory, processor time, size of its files), and the user that it runs as.

The kernel enforces each limit for each process: a child of the child has the same limits, counted from zero.
"""

from __future__ import annotations

import re
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flavor.programs.account import Account
from flavor.sizes import shown_size
from flavor.spawn import Limit

_MEMORY = resource.RLIMIT_DATA if sys.platform.startswith("linux") else resource.RLIMIT_AS
"""On Linux only private writable memory counts, so that models that are mapped for reading do not."""
_LAST_CPU_S = 5
"""Seconds of processor time between SIGXCPU, which a program may catch, and SIGKILL."""
_OUT_OF_MEMORY = re.compile(
    r"MemoryError|[Uu]nable to allocate|[Cc]annot allocate memory|can't allocate|bad_alloc|[Oo]ut of memory"
    r"|cannot allocate vector"
)
_TOO_LARGE = re.compile(r"File too large|Errno 27\b")
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL)


@dataclass(frozen=True)
class Confinement:
    """The limits of a child process. A core dump, which would hold models, is never written."""

    memory_bytes: int | None = None
    """Of each process: heap, anonymous mappings and thread stacks; not files that it maps for reading, nor memory that
    it shares with others. Outside Linux all of its address space."""
    cpu_s: int | None = None
    """Processor time of each process, over all its threads."""
    file_bytes: int | None = None
    """The largest file that it may write."""
    account: Account | None = None

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits of the child, for `spawn`."""
        limits: list[Limit] = [(resource.RLIMIT_CORE, (0, 0))]
        if self.memory_bytes is not None:
            limits.append((_MEMORY, (self.memory_bytes, self.memory_bytes)))
        if self.cpu_s is not None:
            limits.append((resource.RLIMIT_CPU, (self.cpu_s, self.cpu_s + _LAST_CPU_S)))
        if self.file_bytes is not None:
            limits.append((resource.RLIMIT_FSIZE, (self.file_bytes, self.file_bytes)))
        return tuple(limits)

    @property
    def identity(self) -> dict[str, Any]:
        """The user of the child, for `spawn`; empty for this process's own."""
        if self.account is None:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": self.account.groups}

    def environment(self) -> dict[str, str]:
        """The variables that tell a program about its user."""
        if self.account is None:
            return {}
        return {"HOME": self.account.home, "USER": self.account.name, "LOGNAME": self.account.name}

    def explained(self, code: int, lines: Sequence[str]) -> str:
        """Which limit has ended a process, judged by its exit code and last lines; '' for none."""
        said = "\n".join(lines)
        if self.cpu_s is not None and code == -signal.SIGXCPU:
            return f"used up --cpu-limit-s {self.cpu_s}"
        if self.file_bytes is not None and (code == -signal.SIGXFSZ or (code != 0 and _TOO_LARGE.search(said))):
            return f"wrote a file as large as --file-size-limit {shown_size(self.file_bytes)}"
        possible = []
        if self.cpu_s is not None and code == -signal.SIGKILL:  # also what ends a program that catches SIGXCPU
            possible.append(f"used up --cpu-limit-s {self.cpu_s}")
        if self.memory_bytes is not None and code != 0:
            limit = f"reached --memory-limit {shown_size(self.memory_bytes)}"
            if _OUT_OF_MEMORY.search(said):
                return limit
            if code in [-number for number in _CRASHES]:
                possible.append(limit)
        return f"perhaps {' or '.join(possible)}" if possible else ""


UNLIMITED = Confinement()
