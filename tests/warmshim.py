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
    if socket_path is None:
        return f'#!/bin/sh\nexec {sys.executable} {" ".join(words)} "$@"\n'
    asked = f'{sys.executable} -I -S {_CLIENT} {socket_path} {" ".join([sys.executable, *words])} "$@"'
    return f"#!/bin/sh\nexec {asked}\n"


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
    while True:
        channel, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _keep(channel, programs)
        channel.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _keep(channel: socket.socket, programs: Sequence[str]) -> dict[str, Any]:
    """Fork the program, tell the client its end, and end it when the client ends. Returns in the program's process."""
    message, descriptors, _, _ = socket.recv_fds(channel, LARGEST_BYTES, 3)
    if not message:
        os._exit(0)
    command, environment, folder, umask = marshal.loads(message)
    changed = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    removed = [name for name in os.environ if name not in environment]
    known = command[1:3] == ["-P", "-m"] and command[3] in programs
    if not (known or is_script(command, folder)) or not _can_differ(environment, [*changed, *removed]):
        starts.cold("a shim's", environment.get("PYTEST_CURRENT_TEST", ""))
        os._exit(0)  # the client executes it
    starts.forked()
    request = {"command": command, "changed": changed, "removed": removed, "cwd": folder, "umask": umask}
    ready, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        channel.close()
        os.dup2(descriptors[0], 0)
        os.close(descriptors[0])
        become(request, descriptors[1:])
        os.close(theirs)
        return request
    for descriptor in (theirs, *descriptors):
        os.close(descriptor)
    show([], {})
    os.read(ready, 1)
    channel.send(str(child).encode())
    handle, poll = os.pidfd_open(child), select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(channel, 0)  # its end
    if handle not in (ended for ended, _ in poll.poll()):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        channel.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _can_differ(environment: Mapping[str, str], names: Sequence[str]) -> bool:
    """Whether a process with this environment may be forked, where it differs in these names."""
    if _HERE not in environment.get("PYTHONPATH", "").split(os.pathsep) or (
        UNBUFFERED in names and UNBUFFERED not in environment
    ):
        return False
    followed = {"PYTHONPATH", *(["LC_ALL"] if environment.get("LC_ALL") == "C" else [])}  # Python is in UTF-8 mode then
    return not any(READ_AT_THE_START.fullmatch(name) for name in names if name not in followed)
