"""A file whose age says that this process is alive, for probes that can only run a command (Kubernetes).

A probe must not need Redis: a process that waits for Redis is alive, and starting it again would help no one. So the
process itself rewrites the file every few seconds. A process that is stopped, or whose threads hold each other up, does
not. A program that has a loop (`flavor serve`, `flavor-agg`) says with each turn that the loop goes round; the file is
not rewritten any more after ten minutes without a turn. The file has one line: `starting`, and `ready` once the program
does its work.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from flavor.errors import InvalidSetting
from flavor.say import say

VARIABLE = "FLAVOR_ALIVE_FILE"
EVERY_S = 5.0
"""Seconds between two writes."""
STUCK_S = 600.0
"""A loop that has not turned for so long is stuck. A turn reads and writes the store, which may take minutes."""


class Life:
    """The file of one process. Raises `InvalidSetting` for a file that cannot be written."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._word, self._told = "starting", False
        self._turned_at: float | None = None  # None outside of the loop
        try:
            self._write()
        except OSError as error:
            raise InvalidSetting(f"{VARIABLE}: {path} cannot be written: {error.strerror}") from None

    def start(self) -> None:
        """Rewrite the file from now on, in a thread that ends with the process."""
        threading.Thread(target=self._keep, name="alive", daemon=True).start()

    def turned(self) -> None:
        """Record that the loop goes round. Outside of a loop, this says nothing."""
        if self._turned_at is not None:
            self._turned_at = self._clock()

    def loops(self, is_in_loop: bool) -> None:
        """Expect turns from now on, or no more."""
        self._turned_at = self._clock() if is_in_loop else None

    def ready(self) -> None:
        """Record that the program does its work from now on."""
        self._word = "ready"
        with contextlib.suppress(OSError):  # `look` says so
            self._write()

    def look(self) -> bool:
        """Rewrite the file unless the loop is stuck; return whether it was rewritten."""
        if self._turned_at is not None and self._clock() - self._turned_at > STUCK_S:
            return False
        try:
            self._touch()
        except OSError as error:
            if not self._told:
                say(f"flavor: {VARIABLE}: {self._path} cannot be written any more: {error.strerror}")
            self._told = True
            return False
        self._told = False
        return True

    def _touch(self) -> None:
        """Make the file young, without a moment in which it is empty."""
        try:
            os.utime(self._path)
        except FileNotFoundError:
            self._write()

    def _write(self) -> None:
        self._path.write_text(f"{self._word}\n", encoding="ascii")

    def _keep(self) -> None:
        while True:
            time.sleep(EVERY_S)
            with contextlib.suppress(Exception):  # stderr is closed, or memory is short for now
                self.look()


_life: Life | None = None


def begin(environment: Mapping[str, str]) -> None:
    """Keep the file that `FLAVOR_ALIVE_FILE` names, if any. Call this in the process that does the work."""
    global _life  # noqa: PLW0603
    if path := environment.get(VARIABLE):
        _life = Life(Path(path))
        _life.start()


@contextlib.contextmanager
def looping() -> Iterator[None]:
    """The program is ready, and its loop has to turn (`turned`) until the end of the block."""
    if (life := _life) is None:
        yield
        return
    life.ready()
    life.loops(True)
    try:
        yield
    finally:
        life.loops(False)


def turned() -> None:
    """Record that the loop of this process goes round; waits for Redis or the store count, too."""
    if _life is not None:
        _life.turned()


def ready() -> None:
    """Record that this process does its work from now on."""
    if _life is not None:
        _life.ready()
