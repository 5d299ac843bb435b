"""The process that the processes of a local run are forked from: it imports what they need once, for all of them.

    python -P -m flavor.local.fork_server FD MODULES PROGRAMS ROOM

The other end of the socket FD (`flavor.local.forked.ForkServer`) asks for a fork or for an exit code; the end of the
socket ends this process. Nothing is done here but importing and forking: this process has one thread, default signal
handlers and no connection, so a child starts as a process does that `exec` has started. Each child takes the session,
folder, environment, output and command line that were asked for, then runs its program's module as `python -m` does.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TextIO

from flavor.parent_death import die_with_parent

LARGEST_BYTES = 128 * 1024
"""Size of a message: the system's limit for one is 208 KiB by default."""
UNBUFFERED = "PYTHONUNBUFFERED"
_NAME = "flavor.local.fork_server"


def main() -> None:
    """Import the modules, then fork; returns in a child, once its program has returned."""
    channel, modules, programs = socket.socket(fileno=int(sys.argv[1])), sys.argv[2].split(","), sys.argv[3].split(",")
    os.set_inheritable(channel.fileno(), False)
    prepare(modules, programs)
    show([*sys.orig_argv[:2], "-m", _NAME], None)
    run(serve(channel))


def prepare(modules: Sequence[str], programs: Sequence[str]) -> None:
    """Import modules; the programs among them are executed anew in each child.

    Ends this process with exit code 1 if a thread is left over after that: no child would have it. The threads of a
    BLAS library do not count: it ends them when a process forks, and starts them again when it needs them.
    """
    gc.disable()  # next to nothing of what an import makes is garbage
    for name in modules:
        importlib.import_module(name)
    gc.enable()
    for name in programs:
        sys.modules.pop(name, None)
    gc.collect()
    gc.freeze()
    if (trial := os.fork()) == 0:
        os._exit(0)
    os.waitpid(trial, 0)
    if len(os.listdir("/proc/self/task")) > 1:
        print("an import has started a thread, which no child would have", file=sys.stderr, flush=True)
        os._exit(1)  # at once: an interpreter that exits waits for its threads


def serve(channel: socket.socket) -> dict[str, Any]:
    """Answer requests until the other end is closed, then end this process. Returns in each child, with its request."""
    bind = die_with_parent()
    _copy_environment()
    with contextlib.suppress(BrokenPipeError):
        channel.send(b"0 0")
    while True:
        message, descriptors = _asked(channel)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            channel.send(f"{request['number']} {os.waitstatus_to_exitcode(status)}".encode())
            continue
        ready, theirs = os.pipe()
        try:
            child = os.fork()
        except OSError as error:  # too many processes
            child = -(error.errno or 1)
        if child == 0:
            if request["bound"] and bind is not None:
                bind()
            os.close(ready)
            channel.close()
            become(request, descriptors)
            os.close(theirs)
            return dict(request)
        for descriptor in (theirs, *descriptors):
            os.close(descriptor)
        os.read(ready, 1)  # until the child is ready, as `Popen` waits for the exec
        os.close(ready)
        channel.send(f"{request['number']} {child}".encode())


def _copy_environment() -> None:
    """Copy the environment once, for all children: each writes over the memory where it stood at first."""
    environment = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)


def _asked(channel: socket.socket) -> tuple[bytes, list[int]]:
    """The next request with its descriptors; an empty one once the other end is closed, also with an answer unread."""
    try:
        return socket.recv_fds(channel, LARGEST_BYTES, 2)[:2]
    except ConnectionResetError:
        return b"", []


def run(request: Mapping[str, Any]) -> None:
    """Run the program that a child was asked to be, and end this process with its exit code.

    Returns only by the exception, if any, that the program has raised.
    """
    try:
        runpy.run_module(request["command"][3], run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        end(ending.code)
    end()


def end(code: object = None) -> NoReturn:
    """End this process as `sys.exit(code)` does, but for taking the imported modules apart.

    The modules lie in memory that is shared with the parent of this process. To take them apart, the interpreter would
    copy and free all of it: for a short command this takes six times as long as the command.
    """
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    status = int(code or 0) & 0xFF
    found = gc.get_objects()  # without what the parent had
    left_open = [
        each
        for kind in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
        for each in found
        if type(each) is kind
    ]
    for file in (sys.stdout, sys.stderr, *left_open):
        try:
            if file is not None and not file.closed:
                file.flush()
        except (OSError, ValueError):
            status = 120 if file is sys.stdout else status  # as the interpreter does
    os._exit(status)


def become(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Take on the session, folder, environment, output and command line that were asked for, as `exec` would.

    A process that an `exec` has started copies its environment before (`_copy_environment`).
    """
    os.setsid()
    os.umask(request["umask"])
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    command, was_buffered = request["command"], not os.environ.get(UNBUFFERED)
    for name in request["removed"]:
        os.environ.pop(name, None)
    os.environ.update(request["changed"])
    if was_buffered and os.environ.get(UNBUFFERED):
        for number, name in ((1, "stdout"), (2, "stderr")):
            setattr(sys, name, _unbuffered(number, getattr(sys, name)))
            setattr(sys, f"__{name}__", getattr(sys, name))
    show(command, os.environ)
    sys.orig_argv[:] = command
    sys.argv[:] = ["-m", *command[4:]]
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # `random` does so by itself


def show(command: Sequence[str], environment: Mapping[str, str] | None) -> None:
    """Have /proc show this command line and environment: write them where the kernel keeps those of the start.

    A command line that does not fit is cut off; an environment that does not fit is not written.
    """
    with open("/proc/self/stat", "rb", buffering=0) as file:
        places = list(map(int, file.read().rpartition(b")")[2].split()[45:49]))
    _write(places[0], places[1], _joined(command)[: places[1] - places[0]])
    if environment is not None:
        text = _joined([f"{name}={value}" for name, value in environment.items()])
        if len(text) <= places[3] - places[2]:
            _write(places[2], places[3], text)


def _write(start: int, end: int, text: bytes) -> None:
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))


def _joined(words: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def _unbuffered(number: int, like: TextIO) -> TextIO:
    raw = io.FileIO(number, "wb", closefd=False)
    options: dict[str, Any] = {"newline": "\n", "line_buffering": number == 2, "write_through": True}
    made: Callable[..., TextIO] = io.TextIOWrapper
    return made(raw, like.encoding, like.errors, **options)


if __name__ == "__main__":
    main()
