"""Forks the Python scripts that an edge or an aggregator starts, where the tests have forked that one itself.

An interpreter's start and the imports of numpy and redis are nearly all of what a short script of a trainer costs. The
process that forks them, `_Forker`, is made from the edge before the edge does anything. A script is the edge's own
child, as one that `subprocess` starts: the forker makes it by clone(2) with CLONE_PARENT. So the edge waits for it,
stops it and binds it to its own life as always.

A script is started by `exec` wherever a fork might make a difference: see `Children.can_fork`. All are where the edge
itself was started so (`FLAVOR_TEST_COLD=1`).
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import json
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from flavor.local.fork_server import LARGEST_BYTES, UNBUFFERED, become, end, show
from flavor.local.forked import channel_pair
from flavor.parent_death import die_with_parent
from flavor.spawn import spawn
from tests import starts

READ_AT_THE_START = re.compile(
    r"PYTHON(?!UNBUFFERED|WARNINGS)\w*|LD_\w+|(OMP|MKL|OPENBLAS|KMP)_\w+|LANG|LC_\w+|TZ|MALLOC\w+"
)
"""Environment variables that an interpreter or a library may read once."""
IMPORTED = (
    *("argparse", "pickle", "random", "threading", "numpy", "numpy.random"),
    *("flavor.cook.utils", "flavor.bus.address", "flavor.bus.events"),
)
"""What scripts import, and what an event of theirs does."""
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
_CLONE_PARENT, _SIGCHLD = 0x8000, 17
_MOST_DESCRIPTORS = 16


def run_script(words: Sequence[str]) -> NoReturn:
    """Do what `python WORDS` does with the words `SCRIPT.py …` or `-c CODE …`, and end this process."""
    for option in filter(None, os.environ.get("PYTHONWARNINGS", "").split(",")):
        warnings._setoption(option)  # type: ignore[attr-defined]
    module = types.ModuleType("__main__")
    if words[0] == "-c":
        sys.argv[:], sys.path[:0] = ["-c", *words[2:]], [""]
        code, name = words[1].encode(), "<string>"
    else:
        sys.argv[:], sys.path[:0] = words, [str(Path(words[0]).resolve().parent)]
        code, name = Path(words[0]).read_bytes(), words[0]
        module.__file__ = name
    sys.modules["__main__"] = module
    try:
        exec(compile(code, name, "exec"), module.__dict__)
    except Exception as error:
        trace = error.__traceback__.tb_next if error.__traceback__ else None  # without this function
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        ending: object = 1
    except SystemExit as error:
        ending = error.code
    else:
        ending = None
    end(ending)


def is_script(command: Sequence[str], folder: str = ".") -> bool:
    """Whether its words are `PYTHON SCRIPT.py …` or `PYTHON -c CODE …`, in that folder."""
    first = command[1] if command[1:] else ""
    return (first.endswith(".py") and Path(folder, first).is_file()) or (first == "-c" and len(command) > 2)


def _is_this_python(program: str, environment: Mapping[str, str]) -> bool:
    """Whether that program is the interpreter of this process, or a file that only executes it (`tests/pages.py`)."""
    found = shutil.which(program, path=environment.get("PATH"))
    if found == sys.executable or found is None:
        return found is not None
    with open(found, "rb") as file:
        head = file.read(1024)
    return head.startswith(b"#!/bin/sh\n") and head.endswith(f' {sys.executable} "$@"\n'.encode())


class Child:
    """A child process of this one, as `subprocess.Popen` shows it."""

    def __init__(self, pid: int, stdout: IO[bytes] | None, stderr: IO[bytes] | None) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None

    def wait(self) -> int:
        """The exit code; 0 where the system has reaped it."""
        if self.returncode is None:
            try:
                self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:
                self.returncode = 0
        return self.returncode


class Children:
    """Starts scripts for this process, in place of `flavor.spawn.spawn`."""

    def __init__(self, channel: socket.socket, forker: int) -> None:
        self._channel, self._forker = channel, forker
        self._environment = dict(os.environ)
        self._lock = threading.Lock()

    @staticmethod
    def are_possible() -> bool:
        """Whether the number of the system call is known."""
        return _SYS_CLONE is not None and sys.platform.startswith("linux")

    def can_fork(self, command: Sequence[str], environment: Mapping[str, str], options: Mapping[str, Any]) -> bool:
        """Whether a fork of `python SCRIPT.py` or `python -c CODE` is what its start would be."""
        known = {"stdout", "stderr", "inherited", "limits", "umask", "environment", "again"}
        if options.keys() - known or (options["stdout"], options.get("stderr")) != (subprocess.PIPE, subprocess.PIPE):
            return False
        if any(kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS) for kind, _ in options.get("limits", ())):
            return False  # what has been imported would count
        if not is_script(command) or not _is_this_python(command[0], environment):
            return False
        changed, removed = self._differences(environment)
        if UNBUFFERED in removed or any(READ_AT_THE_START.fullmatch(name) for name in (*changed, *removed)):
            return False
        return len(json.dumps([list(command), changed, removed])) < LARGEST_BYTES // 2

    def _why_cold(self, command: Sequence[str], environment: Mapping[str, str], options: Mapping[str, Any]) -> str:
        changed, removed = self._differences(environment)
        if differ := [name for name in (*changed, *removed) if READ_AT_THE_START.fullmatch(name)]:
            return starts.of_variables(differ)
        return "a script with limits" if is_script(command) and options.get("limits") else "no plain script"

    def _differences(self, environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
        before = self._environment
        changed = {name: value for name, value in environment.items() if before.get(name) != value}
        return changed, [name for name in before if name not in environment]

    def spawn(self, command: Sequence[str], **options: Any) -> Any:
        """What `flavor.spawn.spawn` starts."""
        environment = options.get("environment") or dict(os.environ)
        if not self.can_fork(command, environment, options):
            if _is_this_python(command[0], environment):
                starts.cold(self._why_cold(command, environment, options))
            return spawn(command, **options)
        starts.forked()
        changed, removed = self._differences(environment)
        umask = options.get("umask", -1)
        if umask < 0:
            os.umask(umask := os.umask(0))
        inherited = list(options.get("inherited", ()))
        request = {"command": list(command), "changed": changed, "removed": removed, "cwd": os.getcwd(), "umask": umask}
        request |= {"inherited": inherited, "limits": list(options.get("limits", ()))}
        out, err = os.pipe(), os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._channel, [json.dumps(request).encode()], [out[1], err[1], *inherited])
                pid = int(self._channel.recv(64))
        finally:
            os.close(out[1])
            os.close(err[1])
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return Child(pid, os.fdopen(out[0], "rb", 0), os.fdopen(err[0], "rb", 0))

    def close(self) -> None:
        """End the forker; the scripts go on."""
        self._channel.close()
        os.waitpid(self._forker, 0)


def fork_scripts_of_this_process() -> list[str] | None:
    """From now on have the scripts of this process forked. Returns their words in each of them, and None in this one.

    Called before this process has a second thread.
    """
    if not Children.are_possible():
        return None
    channel, theirs = channel_pair()
    bind, bind_script = die_with_parent(), die_with_parent()
    assert bind is not None
    assert bind_script is not None
    if (pid := os.fork()) == 0:
        bind()
        os.setsid()
        channel.close()
        show([], {})  # it is no process of the test's
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (1, 2):
            os.dup2(nothing, number)
        os.close(nothing)
        return _fork_scripts(theirs, bind_script)
    theirs.close()
    children = Children(channel, pid)
    sys.modules["flavor.programs.process"].spawn = children.spawn  # type: ignore[attr-defined]
    atexit.register(children.close)
    return None


def _fork_scripts(channel: socket.socket, bind: Callable[[], None]) -> list[str]:
    """Fork whenever asked to, until the other end is closed. Returns in each child, with its words."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, LARGEST_BYTES, _MOST_DESCRIPTORS)
        if not message:
            os._exit(0)
        request = json.loads(message)
        ready, theirs = os.pipe()
        child = _fork_sibling()
        if child == 0:
            bind()
            os.close(ready)
            channel.close()
            theirs, *descriptors = _out_of_the_way(theirs, *descriptors)
            for number, handle in zip(request["inherited"], descriptors[2:], strict=True):
                os.dup2(handle, number)
                os.close(handle)
            become(request, descriptors[:2])
            for kind, limits in request["limits"]:
                resource.setrlimit(kind, tuple(limits))
            os.close(theirs)
            return list(request["command"][1:])
        for descriptor in (theirs, *descriptors):
            os.close(descriptor)
        os.read(ready, 1)  # until it has become what was asked for, as `Popen` waits for the exec
        os.close(ready)
        channel.send(str(child).encode())


def _out_of_the_way(*descriptors: int) -> list[int]:
    """The same ones under numbers that no inherited descriptor has."""
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 500) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    return moved


def _fork_sibling() -> int:
    """What `os.fork` does, but for a child of this process's parent; a negative errno where it fails."""
    python, libc = ctypes.pythonapi, ctypes.PyDLL(None, use_errno=True)
    python.PyOS_BeforeFork()
    pid = int(libc.syscall(*map(ctypes.c_long, (_SYS_CLONE, _CLONE_PARENT | _SIGCHLD, 0, 0, 0, 0))))
    failed = ctypes.get_errno()
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    python.PyOS_AfterFork_Parent()
    return pid if pid > 0 else -failed
