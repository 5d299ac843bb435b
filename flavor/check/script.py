"""One process of the user during a check: start it, wait for it, and describe its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from flavor.check.output import Screen
from flavor.programs.process import (
    FLAVOR_ON_PATH,
    INSTALL_FLAVOR,
    ChildProcess,
    described_exit,
    lacks_flavor,
    lacks_program,
    shortened,
)

_TICK_S = 1.0
_LAST_LINES = 8
_LINE_SHOWN = 300
"""Characters of a line before the last that a report quotes."""
_LAST_SHOWN = 4000
"""The same of the last line, which says what went wrong."""
END_S = 60.0
"""A script that has not ended this long after the run will not end."""


class Over(Exception):
    """The run cannot go on after a failed check; the checks that it does not reach are skipped."""


class Ended(Exception):
    """The script ended during a wait for something else."""


class Late(Exception):
    """The time limit of a wait has passed."""


class Failure(NamedTuple):
    """Why a script has failed, and a hint about it; None for the check's own hint."""

    detail: str
    hint: str | None = None


class Bell(Protocol):
    """Ends a wait for a script: the bus that the script uses, or `QuietBell`."""

    def wait(self, timeout_s: float) -> None:
        """Return at `wake`, or after the time."""

    def wake(self) -> None:
        """End a `wait`; from any thread."""


class QuietBell:
    """The bell of a script without a bus: only the script's end rings it."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def wait(self, timeout_s: float) -> None:
        """Return at `wake`, or after the time."""
        self._rung.wait(timeout_s)
        self._rung.clear()

    def wake(self) -> None:
        """End a `wait`; from any thread."""
        self._rung.set()


class Script:
    """A script that is started once or repeatedly; `alarm` is called during each wait, and may raise."""

    def __init__(
        self, bell: Bell, screen: Screen, timeout_s: float, *, mark: str, alarm: Callable[[], None] = lambda: None
    ) -> None:
        self._bell, self._screen, self._timeout_s = bell, screen, timeout_s
        self._mark, self._alarm = mark, alarm
        self._process: ChildProcess | None = None

    @property
    def limit(self) -> str:
        """The time limit of a step, in words."""
        return f"{self._timeout_s:g} s (--timeout-s)"

    def launch(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start it; raises `CommandNotFound`."""
        self._process = ChildProcess(
            command,
            environment=environment,
            log=log,
            prefix=self._mark,
            echo=self._screen.echo,  # type: ignore[arg-type]
            ended=lambda code: self._bell.wake(),
        )

    def wait(self, what: str, ready: Callable[[], bool], *, limit_s: float | None = None) -> None:
        """Return once `ready()`; raises `Ended` when the script ends first, `Late` after the time limit."""
        limit_s = self._timeout_s if limit_s is None else limit_s
        began = time.monotonic()
        try:
            while True:
                ended = self.has_ended
                if ready():  # read after the exit code: an event that the script set before its end counts
                    return
                if ended:
                    raise Ended
                self._alarm()
                waited_s = time.monotonic() - began
                if waited_s >= limit_s:
                    raise Late
                self._screen.waiting(what, waited_s, limit_s)
                self._bell.wait(min(_TICK_S, limit_s - waited_s))
        finally:
            self._screen.waited()

    @property
    def pid(self) -> int | None:
        """The id of its process; None before its start."""
        return None if self._process is None else self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the script was started and has ended."""
        return self._process is not None and self._process.exit_code is not None

    def exit_code(self) -> int:
        """Return its exit code, once it has ended."""
        assert self._process is not None
        code = self._process.wait(_TICK_S)  # its last lines have been read then
        assert code is not None
        return code

    def obituary(self, who: str, where: str) -> str:
        """Say how the script ended, with its last lines."""
        code = self.exit_code()
        text = " ".join(filter(None, [f"{who} {'was ' if code < 0 else 'ended with '}{described_exit(code)}", where]))
        return text + self.last_words()

    def death_hint(self, input_is_empty: bool) -> str | None:
        """Return a hint about its end with an error; None, for the check's own hint, if it ended without one."""
        code, last = self.exit_code(), self.last_words().splitlines()
        if lacks_program(last):  # also of a shell that went on after it
            return FLAVOR_ON_PATH
        if code == 0:
            return None
        if lacks_flavor(last):
            return INSTALL_FLAVOR
        hint = "repair what its last lines say"
        return f"{hint}, or set INPUT_PATH to the data" if input_is_empty else hint

    def last_words(self) -> str:
        """Return its last lines, each on a line of its own after a bar; empty if it printed nothing."""
        lines = [line for line in self._process.last_lines if line.strip()] if self._process else []
        told = [shortened(line, _LINE_SHOWN) for line in lines[-_LAST_LINES:-1]]
        return "".join(f"\n| {line}" for line in [*told, *(shortened(line, _LAST_SHOWN) for line in lines[-1:])])

    def preprocessed(self, launch: Callable[[], None], input_is_empty: bool) -> Failure | None:
        """Start the preprocess command with `launch`, and wait for its end; return its failure, None without one."""
        self._screen.tell("preprocessing")
        launch()
        try:
            self.wait("the preprocess command to end", lambda: False)
        except Ended:
            if self.exit_code() != 0:
                return Failure(self.obituary("the preprocess command", ""), self.death_hint(input_is_empty))
        except Late:
            return Failure(f"the preprocess command runs longer than {self.limit}")
        return None

    def stop(self) -> None:
        """Stop it and every process that it started, if it runs."""
        if self._process is not None:
            self._process.stop(2.0)
