"""The process that the fork servers of all processes of pytest are forked from, so that a library is imported once.

Four processes of pytest need fork servers (`tests/warm.py`) with the same libraries, each of which takes a second or
more to import. The nursery imports what all of flavor's programs need. It forks a branch of itself for the first
library of a chain such as ("torch", "torch._dynamo"); the branch imports it, forks one of its own for the next, and so
on. A fork server is forked where its chain ends. The process of pytest that has the terminal starts the nursery, or the
only one does when it first needs it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from flavor.local import fork_server, forked
from flavor.local.forked import channel_pair
from tests import starts

HERE = str(Path(__file__).parents[1])
ABSENT = str(Path(__file__).parent / "absent")
"""What the nursery does not find: pyarrow, which starts a thread where it is imported, and pandas, which imports that.
scikit-learn and xgboost import both where they are installed."""
LARGE = ("matplotlib", "mlflow", "sklearn", "torch", "xgboost")
"""Libraries that are imported in branches alone. A fork of a process that has torch takes a third longer."""
ENVIRONMENT_BYTES = 64 * 1024
"""Room for what /proc shows as a process's environment."""
_DESCRIPTORS = 3
_MADV_COLLAPSE, _HUGE = 25, 2 << 20

Born = tuple[dict[str, Any], list[socket.socket]]
"""What a fork server was asked to be, and its sockets."""


class Nursery:
    """The nursery, as the process sees it that has started it."""

    def __init__(
        self, script: str, environment: Mapping[str, str], modules: Sequence[str], programs: Sequence[str]
    ) -> None:
        """`script` calls `main`."""
        self._folder = tempfile.mkdtemp(prefix="flavor-nursery-")
        self.address = f"{self._folder}/socket"
        path = os.pathsep.join([ABSENT, HERE])
        self._life, theirs = channel_pair()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, theirs:
            listener.bind(self.address)
            listener.listen(64)  # from now on: who asks before everything is imported waits
            handles = [listener.fileno(), theirs.fileno()]
            words = [json.dumps(handles), json.dumps(list(modules)), json.dumps(list(programs))]
            self._process = subprocess.Popen(
                [sys.executable, "-P", script, *words, " " * forked.ROOM_BYTES],
                env={**environment, "PYTHONPATH": path, "FLAVOR_TEST_ROOM": " " * ENVIRONMENT_BYTES},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # as the output of what is forked: no terminal
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=handles,
            )

    def close(self) -> None:
        """End it; the fork servers go on. It also ends with the process that has started it."""
        self._life.close()
        self._process.communicate()
        shutil.rmtree(self._folder)


class Newborn:
    """A fork server that the nursery at `address` forks, as the process sees it that has asked for it."""

    def __init__(self, address: str, request: Mapping[str, Any], *sockets: socket.socket) -> None:
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._told.connect(address)
        socket.send_fds(self._told, [json.dumps(request).encode()], [each.fileno() for each in sockets])
        self._said = ""

    def said(self) -> str:
        """Its process number, or why there is no process."""
        if self._told.fileno() >= 0:
            with self._told:
                self._said = self._told.recv(fork_server.LARGEST_BYTES).decode() or "the nursery has ended"
        return self._said

    def wait(self) -> None:
        """Wait until it has ended."""
        try:
            handle = os.pidfd_open(int(self.said()))
        except (ValueError, ProcessLookupError):
            return
        select.select([handle], [], [])
        os.close(handle)


# -- in the nursery


def main() -> Born:
    """Import, then fork whenever asked to. Returns in each process that is to be a fork server."""
    handles, modules, programs = map(json.loads, sys.argv[1:4])
    listener, life = (socket.socket(fileno=handle) for handle in handles)
    os.environ.pop("FLAVOR_TEST_ROOM")
    if place := os.environ.pop(starts.VARIABLE, ""):
        starts.count_at(place)
    failure = _imported(modules) or _large()
    for name in programs:
        sys.modules.pop(name, None)  # executed anew in each process

    def asked() -> Born:
        if life in select.select([listener, life], [], [])[0]:
            os._exit(0)
        told, _ = listener.accept()
        message, descriptors, _, _ = socket.recv_fds(told, fork_server.LARGEST_BYTES, _DESCRIPTORS)
        return json.loads(message), [told, *(socket.socket(fileno=each) for each in descriptors)]

    def close() -> None:
        listener.close()
        life.close()

    request, sockets = _grow(asked, close, failure)
    os.environ.clear()
    os.environ.update(request["environment"])
    own = os.environ["PYTHONPATH"].split(os.pathsep)
    sys.path[:] = [*own, *(entry for entry in sys.path if entry not in (ABSENT, *own))]
    sockets[0].send(str(os.getpid()).encode())
    sockets.pop(0).close()
    return request, sockets


def _imported(modules: Sequence[str]) -> str:
    """Import them; why nothing may be forked after that, or ''."""
    gc.disable()  # next to nothing of what an import makes is garbage
    try:
        for name in modules:
            importlib.import_module(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        gc.enable()
    _use_for_the_first_time()
    _leave_at_the_end()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
    _in_huge_pages()
    if (trial := os.fork()) == 0:
        os._exit(0)  # a BLAS library ends its threads when a process forks
    os.waitpid(trial, 0)
    alone = len(os.listdir("/proc/self/task")) == 1
    return "" if alone else f"to import {', '.join(modules)} starts a thread, which no forked process would have"


def _large() -> str:
    """Why nothing may be forked from a process that has imported this much, or ''."""
    found = [name for name in LARGE if name in sys.modules]
    return f"a module of IMPORTED imports {' and '.join(found)}: leave it out (tests/warm.py)" if found else ""


def _use_for_the_first_time() -> None:
    """Do what takes a library long only once in a process: OpenSSL finds its algorithms for the first key."""
    key = ed25519.Ed25519PrivateKey.generate()
    key.public_key().verify(key.sign(b""), b"")


def _leave_at_the_end() -> None:
    """Have the end of a forked process leave as they are the objects that an import has made.

    torch takes apart each library of its operators, for 10 to 20 ms of each process. It did so with the imported
    modules, and those are left as well (`flavor.local.fork_server.end`).
    """
    for each in weakref.finalize._registry:  # type: ignore[attr-defined]
        each.atexit = False


def _in_huge_pages() -> None:
    """Put what was imported into pages of 2 MiB, where the kernel can (Linux 6.1): a fork and its end cost less then.

    A fork copies an entry for each page, and the end of the process removes them; neither looks at each part of a huge
    page. A child that writes to one copies 4 KiB, as without them.
    """
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, access, _, _, _, *name = line.split()
        first, last = (int(address, 16) for address in place.split("-"))
        start, end = (first + _HUGE - 1) // _HUGE * _HUGE, last // _HUGE * _HUGE
        if access == "rw-p" and name in ([], ["[heap]"]) and start < end:
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE)  # else as they are


def _grow(asked: Callable[[], Born], close: Callable[[], None], failure: str) -> Born:
    """Pass requests on to the branches, or fork. Returns in each fork server."""
    branches: dict[str, socket.socket] = {}
    while True:
        request, sockets = asked()
        _reap()
        name, *rest = request["libraries"] or [""]
        if failure:
            sockets[0].send(failure.encode())
        elif name:
            if name not in branches:
                branches[name], theirs = channel_pair()
                if os.fork() == 0:
                    for each in (*sockets, *branches.values()):
                        each.close()
                    close()
                    return _branch(theirs, name)
                theirs.close()
            passed = json.dumps({**request, "libraries": rest}).encode()
            socket.send_fds(branches[name], [passed], [each.fileno() for each in sockets])
        elif os.fork() == 0:
            for each in branches.values():
                each.close()
            close()
            os.setsid()
            return request, sockets
        for each in sockets:
            each.close()


def _branch(channel: socket.socket, name: str) -> Born:
    def asked() -> Born:
        message, descriptors, _, _ = socket.recv_fds(channel, fork_server.LARGEST_BYTES, _DESCRIPTORS)
        if not message:
            os._exit(0)
        return json.loads(message), [socket.socket(fileno=each) for each in descriptors]

    return _grow(asked, channel.close, _imported([name]))


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
