"""Starts the processes of a local run by fork, from one process that has imported all they need.

An interpreter's start and the imports of an edge take half a second of processor time and 50 MiB; a fork takes a few
milliseconds, and shares the memory of the imports. Where a fork could differ from a start, the process is started
instead: see `ForkServer.start`. The programs themselves (`flavor serve`, `flavor-fl`, `flavor-agg`) know nothing of it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from flavor.local.fork_server import LARGEST_BYTES, UNBUFFERED
from flavor.local.processes import Process, started
from flavor.parent_death import die_with_parent

PROGRAMS = ("flavor.cli.main", "flavor.cli.serve_local", "flavor.cli.flavor_fl", "flavor.cli.flavor_agg")
"""Modules of the programs that a local run consists of."""
MODULES = (
    *PROGRAMS,
    "flavor.cli.serve",
    "flavor.coordinator.loop",
    "flavor.edge.agent",
    "workers.resident",
    "workers.serving",
    *("flavor.checkpoints.tensors_site", "flavor.coordinator.bounds", "flavor.coordinator.initial_model"),
    *("flavor.programs.supervision", "flavor.results.writer", "flavor.store.local", "difflib", "encodings.ascii"),
    "cryptography.hazmat.primitives.asymmetric.ed25519",  # OpenSSL seeds its random numbers anew in a forked process
    "cryptography.hazmat.primitives.serialization",
)
"""The modules that the programs import, also within functions."""
MAY_DIFFER = re.compile(
    r"(FLAVOR|AWS)_\w+|(INPUT|OUTPUT|LOG|WEIGHT|LOCAL_MODEL|GLOBAL_MODEL)_PATH|HOME|PWD|OLDPWD|COLUMNS|XDG_\w+"
    r"|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER"  # for scripts: flavor uses no GPU
    rf"|{UNBUFFERED}"  # which a child follows
)
"""Variables that nothing reads while it is imported; of any other a child is given what its server was started with."""
ROOM_BYTES = 8 * 1024
"""For the command line that /proc shows of a child."""


class ServerGone(Exception):
    """The fork server has ended, or cannot fork."""


class ForkServer:
    """A fork server for the processes that have about this environment; as a context manager it ends with them.

    Its imports begin when it is made, and the first process that is asked for waits for their end.
    """

    may_differ = MAY_DIFFER

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        programs: Sequence[str] = PROGRAMS,
        modules: Sequence[str] = MODULES,
    ) -> None:
        self._programs, self._environment = programs, dict(environment)
        self._lock = threading.Lock()
        self._asked = 0
        self._began = False
        self._channel, theirs = channel_pair()
        with theirs:
            self._process = self._begin(theirs, modules)

    def _begin(self, theirs: socket.socket, modules: Sequence[str]) -> subprocess.Popen[bytes]:
        handle = str(theirs.fileno())
        words = ["-P", "-m", "flavor.local.fork_server", handle, ",".join(modules), ",".join(self._programs)]
        return subprocess.Popen(
            [sys.executable, *words, " " * ROOM_BYTES],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[theirs.fileno()],
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - the callback is async-signal-safe
        )

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> ForkServer:
        """One for a local run whose processes have about this environment."""
        return cls(environment)

    @staticmethod
    def is_possible() -> bool:
        """Whether this system can fork so: macOS ends a child that uses its libraries after a fork."""
        if not sys.platform.startswith("linux"):
            return False
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError:  # Linux 5.2 and before
            return False
        return True

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path, folder: str) -> Process:
        """Start a process as `flavor.local.processes.started` does: by a fork if the result is the same.

        It is not where the command is no program of the server's, where its environment differs in a variable that an
        interpreter or a library may read at its start, or where the server has ended.
        """
        if self.can_fork(command, environment):
            with contextlib.suppress(ServerGone, ProcessLookupError), log.open("ab") as output:
                handle = output.fileno()
                return ForkedProcess(self, self.fork(command, environment, folder, handle, handle, bound=True), command)
        return started(command, environment, log, folder)

    def can_fork(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether a fork is what a start of this command would be."""
        if list(command[:3]) != [sys.executable, "-P", "-m"] or command[3] not in self._programs:
            return False
        changed, removed = self._differences(environment)
        if any(not self.may_differ.fullmatch(name) for name in (*changed, *removed)) or UNBUFFERED in removed:
            return False
        return len(json.dumps([list(command), changed, removed])) < LARGEST_BYTES // 2

    def _differences(self, environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
        before = self._environment
        changed = {name: value for name, value in environment.items() if before.get(name) != value}
        return changed, [name for name in before if name not in environment]

    def fork(
        self, command: Sequence[str], environment: Mapping[str, str], cwd: str, out: int, err: int, *, bound: bool
    ) -> int:
        """Fork a process that runs the command, and return its number. With `bound` it dies with the server.

        Raises `ServerGone`.
        """
        changed, removed = self._differences(environment)
        asked = {"command": list(command), "changed": changed, "removed": removed, "cwd": cwd}
        pid = self._ask({**asked, "umask": _umask(), "bound": bound}, out, err)
        if pid < 0:
            raise ServerGone(f"no process can be forked: {os.strerror(-pid)}")
        return pid

    def reap(self, pid: int) -> int:
        """The exit code of a process that has ended, whose number is free from then on."""
        try:
            return self._ask({"reap": pid})
        except ServerGone:
            return -signal.SIGKILL  # by the kernel, when its server ended

    def _ask(self, request: Mapping[str, Any], *descriptors: int) -> int:
        with self._lock:
            try:
                if not self._began:
                    self._answer()
                    self._began = True
                self._asked += 1
                message = json.dumps({"number": self._asked, **request}).encode()
                socket.send_fds(self._channel, [message], descriptors)
                while (answer := self._answer())[0] != self._asked:  # one whose question a signal has cut short
                    pass
                return answer[1]
            except OSError as error:
                raise ServerGone(f"the process that forks has ended: {error}") from None

    def _answer(self) -> tuple[int, int]:
        if not (answer := self._channel.recv(64)):
            raise ConnectionResetError("it closed its socket")
        number, value = map(int, answer.split())
        return number, value

    def close(self) -> None:
        """End the server, and the processes that were forked as `bound` to it."""
        self._channel.close()
        self._process.wait()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ForkedProcess:
    """A process that a fork server has forked, as `subprocess.Popen` shows one: it is reaped when its end is seen."""

    def __init__(
        self,
        server: ForkServer,
        pid: int,
        args: Sequence[str],
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> None:
        self.pid, self.args, self.stdout, self.stderr = pid, args, stdout, stderr
        self.returncode: int | None = None
        self._server = server
        self._lock = threading.Lock()
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """The exit code once it has ended."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; `subprocess.TimeoutExpired` after `timeout` seconds."""
        code = self._ended(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)  # no other process has its number until this one has it reaped

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is not None:
            return self.returncode
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        if not poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)):
            return None
        with self._lock:
            if self.returncode is None:
                self.returncode = self._server.reap(self.pid)
            return self.returncode

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of the socket over which a fork server gets its requests."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _umask() -> int:
    found = re.search(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1], 8)
