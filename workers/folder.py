"""A worker's folder for one run, which is its own as long as it, or anything that it started there, lives."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from flavor.locks import take


class RunFolder:
    """The first of `RUN`, `RUN+2`, `RUN+3`, … below `workspace` that nobody works in; to be closed.

    That it is taken is a lock on it, which whoever is given the descriptor `lock` inherits. So what a worker that was
    killed has left running, a command behind a shell for instance, keeps its folder and can spoil nothing of a worker
    that comes after it; nor do two workers with one workspace disturb each other.
    """

    def __init__(self, workspace: Path, run: str) -> None:
        for number in itertools.count(1):
            self.path = workspace / (run if number == 1 else f"{run}+{number}")  # no run has a + in its name
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            if take(self.lock):
                break
            os.close(self.lock)
        self.logs.mkdir(exist_ok=True)
        self.output.mkdir(exist_ok=True)

    @property
    def output(self) -> Path:
        """A command's `$OUTPUT_PATH`."""
        return self.path / "output"

    @property
    def logs(self) -> Path:
        """A command's `$LOG_PATH`."""
        return self.path / "logs"

    def close(self) -> None:
        """Leave it to the next, unless something that was started here lives on."""
        os.close(self.lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
