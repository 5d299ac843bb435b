"""The processes of a local run: each has a session of its own and a file for its output, and none is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flavor.sizes import shown_bytes
from flavor.spawn import spawn
from flavor.stamp import without_stamp


class Process(Protocol):
    """The methods that a group needs of a process; `subprocess.Popen` has them."""

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its session."""

    def poll(self) -> int | None:
        """The exit code once it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; `subprocess.TimeoutExpired` after `timeout` seconds."""

    def terminate(self) -> None:
        """Send it SIGTERM, unless it has ended."""


Start = Callable[[Sequence[str], Mapping[str, str], Path, str], Process]
"""Starts a command with an environment; appends its output to a file; in a folder."""


@dataclass
class _Member:
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: Process
    restarts: int = 0


def started(command: Sequence[str], environment: Mapping[str, str], log: Path, folder: str) -> Process:
    """Start a command in a session of its own, which ends with this process; append its output to a file."""
    with log.open("ab") as output:
        return spawn(command, environment=environment, folder=folder, stdout=output)


class ProcessGroup:
    """Named child processes in one folder. As a context manager it stops all that still run when it is left."""

    def __init__(self, folder: str = ".", *, start: Start = started) -> None:
        self._folder, self._start = folder, start
        self._members: dict[str, _Member] = {}

    def start(
        self, name: str, module: str, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path
    ) -> None:
        """Run `python -m module arguments` in a process that ends with this one, and that Ctrl-C does not reach.

        The current folder is the user's: -P keeps its modules (a `workers.py`, say) from being imported for ours.
        """
        command = [sys.executable, "-P", "-m", module, *arguments]
        self._members[name] = _Member(command, environment, log, self._start(command, environment, log, self._folder))

    def restart(self, name: str, *, most: int) -> bool:
        """Start a process again that has ended; False when that was done `most` times already."""
        member = self._members[name]
        if member.restarts >= most:
            return False
        member.process = self._start(member.command, member.environment, member.log, self._folder)
        member.restarts += 1
        return True

    def pid(self, name: str) -> int:
        """The process id of this process."""
        return self._members[name].process.pid

    def exit_code(self, name: str) -> int | None:
        """The exit code of this process; None while it runs."""
        return self._members[name].process.poll()

    def last_line(self, name: str) -> str:
        """The last line that this process has printed. Where a log breaks off in a line, says so."""
        log = self._members[name].log
        with contextlib.suppress(OSError):
            text = log.read_text(encoding="utf-8", errors="replace")
            line = without_stamp(next((line for line in reversed(text.splitlines()) if line.strip()), "no output"))
            if text and not text.endswith("\n"):
                free = shown_bytes(shutil.disk_usage(log.parent).free)
                return f"{line}… (its log breaks off here; {free} are free on the disk of {log.parent})"
            return line
        return "no output"

    @property
    def names(self) -> list[str]:
        """The names of all processes, in the order of their start."""
        return list(self._members)

    @property
    def running(self) -> list[str]:
        """The names of the processes that have not ended."""
        return [name for name, member in self._members.items() if member.process.poll() is None]

    def wait(self, names: Sequence[str], timeout_s: float) -> None:
        """Wait until these processes have ended, for at most `timeout_s` seconds in all."""
        deadline = time.monotonic() + timeout_s
        for name in names:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._members[name].process.wait(max(0.0, deadline - time.monotonic()))

    def stop(self, names: Sequence[str], grace_s: float) -> None:
        """Send SIGTERM to these processes, and SIGKILL to the sessions of those that run after `grace_s` seconds."""
        for name in names:
            if self._members[name].process.poll() is None:
                self._members[name].process.terminate()
        self.wait(names, grace_s)
        for name in names:
            process = self._members[name].process
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *exc: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.stop(list(self._members), grace_s=5.0)
            return
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave anything behind
        try:
            self.stop(list(self._members), grace_s=5.0)
        finally:
            signal.signal(signal.SIGINT, before)
