"""Starts flavor's programs without the time that their imports take: a process that has imported them forks itself.

What a test gets is a process of its own that runs the program's entry point as `python -m` does, with the arguments,
environment, folder, pipes and session that were asked for, also in what /proc shows of it. The interpreter's start and
the imports alone have been done before, once for each process of pytest: two thirds of what a short command costs.

A program is started cold, by `subprocess`, wherever that might make a difference: see `Starter.popen`. All are with
FLAVOR_TEST_COLD=1 in the environment.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import io
import json
import math
import os
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

from flavor.programs.parent_death import die_with_parent

PROGRAMS = ("flavor.cli.main", "flavor.cli.edge", "flavor.cli.aggregator", "aumai_fedtrain.cli")
"""Modules that are run. They are not among those that are imported before: they are executed anew in each process."""
IMPORTED = (
    *PROGRAMS,
    "flavor.cli.enroll",
    "flavor.cli.get",
    "flavor.cli.runs",
    "flavor.cli.verify",
    "flavor.cli.resume",
    "flavor.cli.run",
    "flavor.cli.serve",
    "flavor.cli.status",
    "flavor.cli.event",
    "flavor.coordinator.loop",
    "flavor.edge.agent",
    "flavor.ledger.recover",
    "flavor.local.federation",
    "rich.progress",
    "workers.resident",
    "workers.serving",
)
READ_THE_ENVIRONMENT = ("flavor.edge.acknowledged", "flavor.failpoints")
"""Modules that do so when they are imported; `tests/unit/test_warm.py` finds any other."""
_MAY_DIFFER = re.compile(
    r"(FLAVOR|AWS|XDG|TEST|PYTEST)_\w+|(INPUT|OUTPUT|LOG|LOCAL_MODEL|GLOBAL_MODEL)_PATH|HOME|PWD|OLDPWD|COLUMNS"
    r"|(KMP|PYTORCH|TORCHINDUCTOR)_\w+"  # which torch sets where it is imported: by pytest, and not by the programs
    r"|PYTHONPATH|PYTHONUNBUFFERED"  # which the child follows
)
"""Variables that nothing which is imported here reads at its import, but for these two modules."""
_ROOM = {"arguments": 8 * 1024, "environment": 64 * 1024}
"""Bytes for what /proc shows as a process's command line and environment."""
_HERE = str(Path(__file__).parents[1])
_UNPLOTTED = str(Path(__file__).parent / "unplotted")
_LARGEST = 160 * 1024  # a message
COLD = "FLAVOR_TEST_COLD"
"""With this in its environment a program is started cold, and with it in that of pytest each is."""
_UNBUFFERED = "PYTHONUNBUFFERED"
_SPAWNED: list[Callable[..., Any]] = []
"""What a local run starts its processes by where they are not warm."""


class Starter:
    """Starts programs for one process: that of pytest, or that of a local run, which starts its own."""

    def __init__(self, channel: socket.socket | None = None) -> None:
        self._lock = threading.Lock()
        self._zygote: subprocess.Popen[bytes] | None = None
        self._channel = channel
        self._asked = 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # more threads than one would not survive a fork
        self._environment = {name: value for name, value in environment.items() if name != _UNBUFFERED or channel}

    def popen(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Any:
        """Start a command in a session of its own, with pipes for its output; returns what `Popen` does.

        Cold when it is not `python -P -m PROGRAM …`, or when the environment says anything that an interpreter or an
        imported module may have read at its start.
        """
        if not self._warm(command, env):
            return cold(command, env=env, cwd=cwd)
        out, err = os.pipe(), os.pipe()
        try:
            pid = self.fork(command, env, str(cwd), out[1], err[1])
        finally:
            os.close(out[1])
            os.close(err[1])
        return Forked(self, pid, command, os.fdopen(out[0], "rb", 0), os.fdopen(err[0], "rb", 0))

    def spawned(self, command: Sequence[str], environment: Mapping[str, str], log: Path, folder: str) -> Any:
        """What `flavor.local.processes` does: output goes to the end of a file, and all end with this process."""
        if not self._warm(command, environment):
            return _SPAWNED[0](command, environment, log, folder)
        with log.open("ab") as output:
            handle = output.fileno()
            return Forked(self, self.fork(command, environment, folder, handle, handle, bound=True), command)

    def _warm(self, command: Sequence[str], env: Mapping[str, str]) -> bool:
        if env.get(COLD) or os.environ.get(COLD) or not sys.platform.startswith("linux"):
            return False
        if list(command[:3]) != [sys.executable, "-P", "-m"] or command[3] not in PROGRAMS:
            return False
        if env.get("PYTHONPATH") not in (_HERE, os.pathsep.join([_UNPLOTTED, _HERE])):
            return False
        before = self._environment
        differ = {name for name in {*env, *before} if env.get(name) != before.get(name)}
        if _UNBUFFERED in differ and not env.get(_UNBUFFERED):
            return False
        room = _bytes(command) < _ROOM["arguments"] and _bytes(_lines(env)) < _ROOM["environment"]
        return room and all(_MAY_DIFFER.fullmatch(name) for name in differ)

    def fork(
        self, command: Sequence[str], env: Mapping[str, str], cwd: str, out: int, err: int, *, bound: bool = False
    ) -> int:
        """Have the zygote fork a process that runs the command, and return its number."""
        asked = {"command": list(command), "env": dict(env), "cwd": cwd, "umask": _umask(), "bound": bound}
        return self._ask(asked, out, err)

    def reap(self, pid: int) -> int:
        """The exit code of a process that has ended, whose number is free from then on."""
        return self._ask({"reap": pid})

    def _ask(self, request: Mapping[str, Any], *descriptors: int) -> int:
        with self._lock:
            if self._channel is None:
                self._begin()
            assert self._channel is not None
            self._asked += 1
            message = json.dumps({"number": self._asked, **request}).encode()
            socket.send_fds(self._channel, [message], descriptors)
            while (answer := self._answer())[0] != self._asked:  # one whose question a signal has cut short
                pass
            return answer[1]

    def _answer(self) -> tuple[int, int]:
        assert self._channel is not None
        if not (answer := self._channel.recv(64)):
            said = self._zygote.stderr.read().decode() if self._zygote and self._zygote.stderr else ""
            raise AssertionError(f"the process that starts programs has ended: {said}")
        number, value = map(int, answer.split())
        return number, value

    def _begin(self) -> None:
        self._channel, theirs = _channel()
        words = ["-P", str(Path(__file__)), str(theirs.fileno()), " " * _ROOM["arguments"]]
        env = {**self._environment, "PYTHONPATH": _HERE, "FLAVOR_TEST_ROOM": " " * _ROOM["environment"]}
        with theirs:
            self._zygote = subprocess.Popen(
                [sys.executable, *words],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # as its children's: no terminal
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.close)
        self._answer()

    def close(self) -> None:
        """End the zygote; what it has started goes on, as after the end of any parent."""
        if self._channel is not None:
            self._channel.close()
        if self._zygote is not None:
            atexit.unregister(self.close)
            self._zygote.communicate()
        self._channel = self._zygote = None


class Forked:
    """A process that a zygote has forked, as `subprocess.Popen` shows one: it is reaped when its end is seen."""

    def __init__(
        self,
        starter: Starter,
        pid: int,
        args: Sequence[str],
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> None:
        self.pid, self.args, self.stdout, self.stderr = pid, args, stdout, stderr
        self.returncode: int | None = None
        self._starter = starter
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
            os.kill(self.pid, number)  # its number is nobody else's until this process has it reaped

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
                self.returncode = self._starter.reap(self.pid)
            return self.returncode

    def __del__(self) -> None:
        os.close(self._handle)


def cold(command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    """Start a command by itself."""
    return subprocess.Popen(
        list(command),
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _lines(env: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in env.items()]


def _bytes(words: Sequence[str]) -> int:
    return sum(len(os.fsencode(word)) + 1 for word in words)


def _umask() -> int:
    return int(re.search(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1], 8)  # type: ignore[index]


# -- in the zygote


def _main() -> None:
    """Fork whenever asked to, until pytest's process has closed its end; each child runs a program."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    _import()
    channel.send(b"0 0")
    module = _serve(channel)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _serve(channel: socket.socket) -> str:
    """Fork whenever asked to, until the other end is closed. Returns in each child: the module that it is to run."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, _LARGEST, 2)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            channel.send(f"{request['number']} {os.waitstatus_to_exitcode(status)}".encode())
            continue
        ready, theirs = os.pipe()
        bind = die_with_parent() if request["bound"] else None
        child = os.fork()
        if child == 0:
            if bind is not None:
                bind()
            os.close(ready)
            channel.close()
            _become(request, descriptors)
            os.close(theirs)
            module, *words = request["command"][3:]
            return _local(module) if module == "flavor.cli.main" and words[:1] in (["run"], ["demo"]) else module
        for descriptor in (theirs, *descriptors):
            os.close(descriptor)
        os.read(ready, 1)  # until it has become what was asked for, as `Popen` waits for the exec
        os.close(ready)
        channel.send(f"{request['number']} {child}".encode())


def _local(module: str) -> str:
    """Have a local run start its own processes warm: from a child of it that was forked before it did anything.

    Returns in the run's process, and in each process that it starts.
    """
    channel, theirs = _channel()
    bind = die_with_parent()
    zygote = os.fork()
    if zygote == 0:
        assert bind is not None
        bind()
        os.setsid()
        channel.close()
        _show([], [])  # it is no process of the test's
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (1, 2):
            os.dup2(nothing, number)
        os.close(nothing)
        return _serve(theirs)
    theirs.close()
    starter = Starter(channel)
    sys.modules["flavor.local.processes"]._spawned = starter.spawned  # type: ignore[attr-defined]

    def ended() -> None:
        starter.close()
        os.waitpid(zygote, 0)

    atexit.register(ended)
    return module


def _channel() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _import() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    for name in PROGRAMS:
        del sys.modules[name]
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"an import has started a thread, which no child would have: {threads}"
    _SPAWNED.append(sys.modules["flavor.local.processes"]._spawned)
    gc.collect()
    gc.freeze()


def _become(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Be as a process that was started by `exec`."""
    os.setsid()
    os.umask(request["umask"])
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    env, command = request["env"], request["command"]
    if env.get(_UNBUFFERED):
        for number, name in ((1, "stdout"), (2, "stderr")):
            setattr(sys, name, _unbuffered(number, getattr(sys, name)))
            setattr(sys, f"__{name}__", getattr(sys, name))
    os.environ.clear()
    os.environ.update(env)  # copies, so that the memory where the first environment stood can be written over
    _show(command, _lines(env))
    sys.orig_argv[:] = command
    sys.argv[:] = ["-m", *command[4:]]
    own = env["PYTHONPATH"].split(os.pathsep)
    sys.path[:] = [*own, *(entry for entry in sys.path if entry not in own)]
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # `random` does so by itself
    for name in READ_THE_ENVIRONMENT:
        importlib.reload(sys.modules[name])  # in place: who has a function of it has the new one's globals


def _unbuffered(number: int, like: TextIO) -> TextIO:
    raw = io.FileIO(number, "wb", closefd=False)
    options = {"newline": "\n", "line_buffering": number == 2, "write_through": True}
    return io.TextIOWrapper(raw, like.encoding, like.errors, **options)  # type: ignore[arg-type]


def _show(command: Sequence[str], environment: Sequence[str]) -> None:
    """Write what /proc shows of this process: the memory in which the kernel laid what the zygote was started with."""
    places = list(map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:49]))
    for (start, end), words in zip((places[:2], places[2:]), (command, environment), strict=True):
        text = b"".join(os.fsencode(word) + b"\0" for word in words)
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, text, min(len(text), end - start))


if __name__ == "__main__":
    _main()
