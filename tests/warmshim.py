"""Forks what the shells of a test start: the programs of flavor and Python scripts, by their names in a PATH.

A file in that PATH is a shim: it runs `tests/warmclient.py`, which asks the process here for a fork.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flavor.local.fork_server import LARGEST_BYTES, UNBUFFERED, become, show
from flavor.parent_death import die_with_parent
from tests import starts
from tests.warmchild import READ_AT_THE_START, is_script

_CLIENT = Path(__file__).with_name("warmclient.py")
_HERE = str(Path(__file__).parents[1])


def shim(socket_path: str | None, *words: str) -> str:
    """The text of an executable file that does `python WORDS ARGUMENTS`."""
    return f'#!/bin/sh\nexec {" ".join(as_shim(socket_path, *words))} "$@"\n'


def as_shim(socket_path: str | None, *words: str) -> list[str]:
    """The command that does `python WORDS`."""
    command = [sys.executable, *words]
    return command if socket_path is None else [sys.executable, "-I", "-S", str(_CLIENT), socket_path, *command]


def serve_shims(listener: socket.socket, programs: Sequence[str], other: socket.socket) -> dict[str, Any] | None:
    """Fork a process that forks whenever a client asks. Returns None, and in each child its request.

    `other` is a socket that is not to be open there.
    """
    bind = die_with_parent()
    assert bind is not None
    if os.fork():
        return None
    bind()
    os.setsid()
    other.close()
    show([], {})
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(nothing, number)
    os.close(nothing)
    return _Clients(listener, programs).serve()


class _Clients:
    """The clients of the process that forks. It waits for none of them alone."""

    def __init__(self, listener: socket.socket, programs: Sequence[str]) -> None:
        self._listener, self._programs = listener, programs
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._asking: dict[int, socket.socket] = {}
        """By the numbers of the sockets."""
        self._starting: dict[int, tuple[socket.socket, int]] = {}
        """Those whose programs are there in a moment, by the pipe that says so: the sockets, and the processes."""
        self._running: dict[int, tuple[socket.socket, int]] = {}
        """Those whose programs run, by the handles of the processes."""

    def serve(self) -> dict[str, Any]:
        """Fork the programs, tell each client the end of its own, and end that when the client ends.

        Returns in the programs' processes.
        """
        while True:
            for number, _ in self._poll.poll():
                if number == self._listener.fileno():
                    channel, _ = self._listener.accept()
                    self._asking[channel.fileno()] = channel
                    self._poll.register(channel, select.POLLIN)
                elif number in self._asking:
                    if (request := self._answer(self._asking.pop(number))) is not None:
                        return request
                elif number in self._starting:
                    self._started(number)
                elif number in self._running:
                    self._ended(number)
                else:
                    self._end_program_of(number)

    def _answer(self, channel: socket.socket) -> dict[str, Any] | None:
        """Start what a client asks for; returns the request in the new process."""
        self._poll.unregister(channel)
        try:
            message, descriptors, _, _ = socket.recv_fds(channel, LARGEST_BYTES, 3)
        except ConnectionResetError:
            message = b""
        if not message:
            channel.close()
            return None
        command, environment, folder, umask = marshal.loads(message)
        changed = {name: value for name, value in environment.items() if os.environ.get(name) != value}
        removed = [name for name in os.environ if name not in environment]
        known = command[1:3] == ["-P", "-m"] and command[3] in self._programs
        if not (known or is_script(command, folder)) or not _can_differ(environment, [*changed, *removed]):
            starts.cold("a shim's", environment.get("PYTEST_CURRENT_TEST", ""))
            for descriptor in (channel.detach(), *descriptors):
                os.close(descriptor)  # the client executes it
            return None
        starts.forked()
        ready, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ready)
            self._close(channel)
            os.dup2(descriptors[0], 0)
            os.close(descriptors[0])
            request = {"command": command, "changed": changed, "removed": removed, "cwd": folder, "umask": umask}
            become(request, descriptors[1:])
            os.close(theirs)
            return request
        for descriptor in (theirs, *descriptors):
            os.close(descriptor)
        self._starting[ready] = channel, child
        self._poll.register(ready, select.POLLIN)
        return None

    def _close(self, *more: socket.socket) -> None:
        """Close what is not the program's, in its process."""
        others = [channel for channel, _ in (*self._starting.values(), *self._running.values())]
        for channel in (self._listener, *more, *self._asking.values(), *others):
            channel.close()
        for number in (*self._starting, *self._running):
            os.close(number)

    def _started(self, ready: int) -> None:
        channel, child = self._starting.pop(ready)
        self._poll.unregister(ready)
        os.close(ready)
        with contextlib.suppress(OSError):
            channel.send(str(child).encode())
        handle = os.pidfd_open(child)
        self._running[handle] = channel, child
        self._poll.register(handle, select.POLLIN)
        self._poll.register(channel, 0)  # its end

    def _ended(self, handle: int) -> None:
        channel, child = self._running.pop(handle)
        self._poll.unregister(handle)
        os.close(handle)
        with contextlib.suppress(KeyError):
            self._poll.unregister(channel)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(OSError):
            channel.send(str(os.waitstatus_to_exitcode(status)).encode())
        channel.close()

    def _end_program_of(self, number: int) -> None:
        """Kill the program of a client that has ended."""
        with contextlib.suppress(KeyError):  # its program has ended, too
            self._poll.unregister(number)
        for channel, child in self._running.values():
            if channel.fileno() == number:
                os.kill(child, signal.SIGKILL)


def _can_differ(environment: Mapping[str, str], names: Sequence[str]) -> bool:
    """Whether a process with this environment may be forked, where it differs in these names."""
    if _HERE not in environment.get("PYTHONPATH", "").split(os.pathsep) or (
        UNBUFFERED in names and UNBUFFERED not in environment
    ):
        return False
    followed = {"PYTHONPATH", *(["LC_ALL"] if environment.get("LC_ALL") == "C" else [])}  # Python is in UTF-8 mode then
    return not any(READ_AT_THE_START.fullmatch(name) for name in names if name not in followed)
