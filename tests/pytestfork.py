"""Forks the processes of pytest-xdist from the one that has the terminal, after that has imported all test files.

Each of them would import the files for itself: three seconds of processor time, and 100 MB of memory. Forked, each has
the imported files, and collects the tests in a second. A process that takes the place of one that has crashed is
started as pytest-xdist does it. So are all where programs start cold (`FLAVOR_TEST_COLD=1`), and where an import has
started a thread, which no forked process would have.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import owncache
import pytest
from _pytest.pathlib import ImportMode, import_path
from warm import SESSION
from warmscripts import possible

from flavor.local.fork_server import end

_PLAIN = "popen"
"""What pytest-xdist is asked for by `--numprocesses`."""


def fork_workers(config: pytest.Config) -> None:
    """Fork the processes that pytest-xdist will start; returns in this process alone."""
    asked = config.getoption("tx", None) or []
    if not possible() or config.getoption("collectonly") or len(asked) < 2 or {*asked} != {_PLAIN}:
        return
    _import_tests(config)
    gc.collect()
    gc.freeze()
    if (trial := os.fork()) == 0:
        os._exit(0)  # a BLAS library ends its threads when a process forks
    os.waitpid(trial, 0)
    if len(os.listdir("/proc/self/task")) == 1:
        _give([_Forked() for _ in asked])


def _import_tests(config: pytest.Config) -> None:
    """Import all test files as their collection does. Where one cannot be imported, its collection says why."""
    namespaces = config.getini("consider_namespace_packages")
    gc.disable()  # next to nothing of what an import makes is garbage
    for path in _files(config):
        with warnings.catch_warnings(), contextlib.suppress(Exception, pytest.skip.Exception):
            import_path(path, mode=ImportMode.prepend, root=config.rootpath, consider_namespace_packages=namespaces)
    gc.enable()


def _files(config: pytest.Config) -> Iterator[Path]:
    for word in config.args:
        place = config.invocation_params.dir / word.partition("::")[0]
        yield from sorted(place.rglob("test_*.py")) if place.is_dir() else [place]


class _Forked:
    """A process that waits for its first line from pytest-xdist, as `subprocess.Popen` shows it."""

    _open: list[int] = []  # noqa: RUF012 - the ends of this process, which no forked one may hold

    def __init__(self) -> None:
        theirs_in, mine_in = os.pipe()
        mine_out, theirs_out = os.pipe()
        self._open += [mine_in, mine_out]
        self.pid = os.fork()
        if self.pid == 0:
            for number in self._open:
                os.close(number)
            _work(theirs_in, theirs_out)
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin, self.stdout = os.fdopen(mine_in, "wb"), os.fdopen(mine_out, "rb")

    def wait(self) -> int:
        """Its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)


def _work(asked: int, answered: int) -> NoReturn:
    """Do what `python -c "import sys;exec(eval(sys.stdin.readline()))"` does, by which execnet starts a process."""
    for number, handle in enumerate((asked, answered)):
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # `random` does so by itself
    owncache.choose()
    SESSION.update(os.environ)
    try:
        exec(eval(sys.stdin.readline()), main.__dict__)
    except SystemExit as ending:
        end(ending.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        end(1)
    end()


def _give(forked: list[_Forked]) -> None:
    """Have execnet take these before it starts any process."""
    from execnet import gateway_io

    class Master(gateway_io.Popen2IOMaster):
        def __init__(self, args: Any, execmodel: Any) -> None:
            if not forked:
                super().__init__(args, execmodel)
                return
            self.popen = forked.pop(0)
            gateway_io.Popen2IO.__init__(self, self.popen.stdin, self.popen.stdout, execmodel=execmodel)

    gateway_io.Popen2IOMaster = Master
