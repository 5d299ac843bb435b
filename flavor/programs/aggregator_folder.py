"""The folder in which a user's aggregator works for one run, and the part of it that belongs to the aggregator."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from flavor.errors import InvalidSetting
from flavor.locks import take
from flavor.programs.account import Account, check_way


class AggregatorFolder:
    """The first of the folders `RUN`, `RUN+2`, `RUN+3`, … below `workspace` in which no process works.

    The caller closes it. A lock on the folder says that it is taken. Every process that gets the descriptor `lock`
    holds the lock, too. So a process that a killed worker has left running, a command behind a shell for instance,
    keeps its folder, and cannot disturb the next worker; nor do two workers with one workspace disturb each other.

    `output` and `logs` are the aggregator's `$OUTPUT_PATH` and `$LOG_PATH`, by default folders in this one. `account`
    is the user that the aggregator runs as, unless it is this process's own.
    """

    def __init__(
        self,
        workspace: Path,
        run: str,
        *,
        output: Path | None = None,
        logs: Path | None = None,
        account: Account | None = None,
    ) -> None:
        for number in itertools.count(1):
            self.path = workspace / (run if number == 1 else f"{run}+{number}")  # no run has a + in its name
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            if take(self.lock):
                break
            os.close(self.lock)
        self._account = account
        self._own_logs, own_output = self.path / "logs", self.path / "output"
        self._own_logs.mkdir(exist_ok=True)
        own_output.mkdir(exist_ok=True)
        self.output = output or own_output
        # our log is in no folder of another user's
        self.logs = logs or (self._own_logs if account is None else self._own_logs / "own")
        self.log_file = (self.logs if account is None else self._own_logs) / "aggregator.log"
        """The file that gets a copy of the aggregator's output."""

    def open_to_aggregator(self) -> None:
        """Make `$OUTPUT_PATH` and `$LOG_PATH`, and give them to the account; folders around them stay ours."""
        for folder in (self.output, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        if self._account is not None:
            self._account.let_through(self.path, self._own_logs)
            self._account.give(self.logs)
            self._account.give(self.output)

    def close(self) -> None:
        """Unlock the folder for others; a process that was started here and still lives keeps the lock."""
        os.close(self.lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def check_folder(name: str, folder: Path, account: Account | None, *, within: bool) -> None:
    """Make a folder, which `name` names, and raise `InvalidSetting` where it cannot be used.

    It cannot be used where this process cannot write to it, or where the account cannot reach it or can replace it; see
    `check_way`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidSetting(f"{name} {folder}: {error.strerror}") from None
    if account is not None:
        check_way(account, name, folder, within=within)


def take_output(output: Path) -> None:
    """Keep other workers away from this `$OUTPUT_PATH` as long as this process lives.

    Raises `InvalidSetting` if another worker has it.
    """
    handle = os.open(output, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if not take(handle):
        os.close(handle)
        raise InvalidSetting(
            f"OUTPUT_PATH {output} is another flavor-agg's on this machine: give each its own, or none"
        )
