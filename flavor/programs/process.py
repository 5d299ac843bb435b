"""A child process with a command of the user's: reads its output by lines, and stops its whole process group."""

from __future__ import annotations

import array
import collections
import contextlib
import fcntl
import os
import re
import selectors
import signal
import subprocess
import termios
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from flavor.errors import CommandNotFound
from flavor.programs.confinement import Confinement
from flavor.programs.output_log import OutputLog
from flavor.spawn import spawn

LAST_LINES = 20
"""How many lines are kept for the report of a failure."""
_MAX_LINE = 64 * 1024
_LINE_SHOWN = 500
"""Characters of a line that a report of a failure quotes."""
_LINES_SHOWN = 5
_DRAIN_S = 0.3


class ChildProcess:
    """A command in a process group of its own; its output is copied to `log` and, with `prefix`, to `echo`.

    `confinement` limits what the process may use. It inherits the descriptors in `inherited`. A thread of this object
    calls `ended` once the process has ended and its output has been read. With `private`, only this user can read the
    log and the files that the process makes. The last `keep` lines are kept for `tail`. `again` is as in `spawn`, and
    `most` as in `OutputLog`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        prefix: str = "",
        echo: IO[str] | None = None,
        ended: Callable[[int], None] | None = None,
        inherited: Sequence[int] = (),
        confinement: Confinement | None = None,
        private: bool = False,
        keep: int = LAST_LINES,
        again: bool = False,
        most: int | None = None,
    ) -> None:
        self._prefix, self._echo, self._ended = prefix, echo, ended
        self._lines: collections.deque[str] = collections.deque(maxlen=max(keep, LAST_LINES))
        self._lock = threading.Condition()  # notified when something was read
        self._code: int | None = None
        self._ending = threading.Lock()
        self._reaped = False  # after that its number may be another group's
        self._log = OutputLog(log, private=private, most=most)
        try:
            self._process = spawn(
                command,
                environment=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                inherited=inherited,
                limits=confinement.limits if confinement is not None else (),
                umask=0o077 if private or confinement is not None else -1,
                again=again,
                **(confinement.identity if confinement is not None else {}),
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._log.close()
            reason = getattr(error, "strerror", None) or str(error)
            raise CommandNotFound(f"{command[0]!r} cannot be started: {reason}") from None
        self._reader = threading.Thread(target=self._read, name="output", daemon=True)
        self._over = threading.Event()
        for thread in (self._reader, threading.Thread(target=self._wait, name="waiter", daemon=True)):
            thread.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code once the process has ended; negative for the signal that ended it."""
        return self._code

    @property
    def last_lines(self) -> list[str]:
        """The last lines that it has printed until now, at most `LAST_LINES`, oldest first."""
        with self._lock:
            self._lock.wait_for(lambda: not self._unread, _DRAIN_S)
            return list(self._lines)[-LAST_LINES:]

    def tail(self) -> list[str]:
        """Return the last lines that were read until now, at most `keep` or `LAST_LINES`, oldest first."""
        with self._lock:
            return list(self._lines)

    @property
    def _unread(self) -> bool:
        """Whether a pipe still holds output that was not read."""
        count = array.array("i", [0])
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed:
                fcntl.ioctl(pipe, termios.FIONREAD, count)
                if count[0]:
                    return True
        return False

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end and return the exit code; None when `timeout_s` ran out."""
        # By an event: an alarm that raises in `Thread.join` leaves a thread that counts as ended, in Python 3.11.
        return self._code if self._over.wait(timeout_s) else None

    def stop(self, grace_s: float) -> None:
        """End the whole process group: SIGTERM, then SIGKILL after `grace_s` seconds.

        That includes processes that an ended process has left in its group. Until then the ended process stays a
        zombie, so that no other process or group gets its number.
        """
        with self._ending:
            if self._reaped:
                return
            if self._code is None:
                self._signal(signal.SIGTERM)
                self.wait(grace_s)
            self._signal(signal.SIGKILL)  # also processes that it has left behind
            self.wait(5.0)
            self._reap()

    def __del__(self) -> None:
        """Leave no zombie of a process that ended by itself and was never stopped."""
        if hasattr(self, "_process"):
            self._reap()

    def _reap(self) -> None:
        if self._code is not None and not self._reaped:
            self._reaped = True  # first, should an alarm interrupt this: no signal after it
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        """Read the output to its end, also when log and terminal cannot be written: a full pipe would stop the child.

        One thread reads both pipes, so that lines keep their order. Where both have output, stderr comes last: a
        program says there why it ends.
        """
        out, err = self._process.stdout, self._process.stderr
        assert out is not None
        assert err is not None
        unfinished = {out.fileno(): b"", err.fileno(): b""}
        with selectors.DefaultSelector() as selector:
            for order, pipe in enumerate((out, err)):
                selector.register(pipe, selectors.EVENT_READ, order)
            while selector.get_map():
                for key, _ in sorted(selector.select(), key=lambda ready: ready[0].data):
                    with self._lock:
                        data = os.read(key.fd, _MAX_LINE)
                        if not data:
                            selector.unregister(key.fileobj)
                        *lines, rest = (unfinished[key.fd] + data).split(b"\n")
                        if rest and (not data or len(rest) >= _MAX_LINE):
                            lines, rest = [*lines, rest], b""
                        unfinished[key.fd] = rest
                        for line in lines:
                            self._take(line)
                        self._lock.notify_all()
        with self._lock:
            out.close()
            err.close()

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._lines.append(text)
        shown = self._log.write(line)
        if self._echo is not None and shown:
            self._print(shown)

    def _print(self, text: str) -> None:
        assert self._echo is not None
        encoding = getattr(self._echo, "encoding", None) or "utf-8"
        printable = text.encode(encoding, errors="replace").decode(encoding)
        with contextlib.suppress(OSError, ValueError):  # the terminal is closed
            self._echo.write(f"{self._prefix}{printable}")
            self._echo.flush()

    def _awaited(self) -> int:
        """Wait for its end; returns the exit code. `_reap` reaps it later, where the system can wait without that."""
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored: the system reaps, and tells nothing
                found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
                assert found is not None
                return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        code = self._process.wait()
        self._reaped = True
        return code

    def _wait(self) -> None:
        try:
            self._code = code = self._awaited()
            self._reader.join(_DRAIN_S)  # a grandchild may hold the pipe open
            with self._lock:
                self._log.close()
            if self._ended is not None:
                self._ended(code)
        finally:
            self._over.set()


def described_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"killed by signal {-code}"


_OF_SRUN = re.compile(r"srun: error: \S+: tasks? [0-9,-]+: Exited with exit code \d+|srun: Terminating StepId=\S+")
"""What srun prints after the script's own last line, and says no more than the exit code."""


def obituary(who: str, code: int, lines: Sequence[str], where: str = "") -> str:
    """One line about the end of a program: how it ended, its last line, and the lines before that."""
    told = _told(lines)
    told = [line for line in told if not _OF_SRUN.fullmatch(line)] or told
    how = f"{who} ended {where + ' ' if where else ''}({described_exit(code)})"
    if not told:
        return f"{how}, silently"
    before = f"; before that: {' | '.join(told[:-1])}" if told[:-1] else ""
    advice = f": {INSTALL_FLAVOR}" if lacks_flavor(told) else f": {FLAVOR_ON_PATH}" if lacks_program(told) else ""
    return f"{how}: {told[-1]}{advice}{before}"


INSTALL_FLAVOR = "install flavor in the environment that runs the script, too"
FLAVOR_ON_PATH = (
    "the program `flavor` is not on the script's PATH: activate the environment in which flavor is installed"
)


def lacks_flavor(lines: Iterable[str]) -> bool:
    """Whether what a Python script printed says that its environment has no flavor."""
    return any(re.search(r"No module named '?(flavor|aggregators)\b", line) for line in lines)


def lacks_program(lines: Iterable[str]) -> bool:
    """Whether what a shell printed says that there is no program `flavor`."""
    return any(re.search(r"\bflavor: (command )?not found|command not found: flavor\b", line) for line in lines)


def quoted(lines: Sequence[str]) -> str:
    """The last lines of an output, as the end of a sentence about the program."""
    told = _told(lines)
    return f"; its last lines: {' | '.join(told)}" if told else "; it printed nothing"


def _told(lines: Sequence[str]) -> list[str]:
    told = [line.strip() for line in lines if line.strip(" ^~")]
    return [shortened(line, _LINE_SHOWN) for line in told[-_LINES_SHOWN:]]


def shortened(line: str, most: int) -> str:
    """Cut a line longer than `most` characters in its middle.

    An error's name stands at the beginning of its line, and the newest state of a progress bar at the end.
    """
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-(most // 2) :]}"
