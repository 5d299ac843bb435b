"""The user's aggregator: its command, its environment and limits, and its folders.

`flavor-agg` starts it for runs (`workers.command`, `workers.resident`), and `check-agg` tests it (`flavor.check`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flavor.programs.account import Account
from flavor.programs.aggregator_environment import aggregator_environment
from flavor.programs.aggregator_folder import AggregatorFolder, check_folder, take_output
from flavor.programs.confinement import UNLIMITED, Confinement
from flavor.programs.process import ChildProcess, obituary


@dataclass(frozen=True)
class UserAggregator:
    """The aggregator that `flavor-agg -m` or `check-agg -m` names."""

    command: tuple[str, ...]
    workspace: Path
    """The folder that holds a folder for each run."""
    passed: tuple[str, ...] = ()
    """Environment variables that the aggregator gets in any case (`--env`)."""
    confinement: Confinement = UNLIMITED
    only: bool = False
    """Whether it gets, of all other variables, only those that every program needs (`--env-only`)."""
    output: Path | None = None
    """Its `$OUTPUT_PATH`, in place of a folder in the workspace; no other worker has it."""
    logs: Path | None = None
    """Its `$LOG_PATH`, in place of a folder in the workspace."""

    @property
    def account(self) -> Account | None:
        """The user that it runs as; None for the worker's own."""
        return self.confinement.account

    def folder(self, run: str) -> AggregatorFolder:
        """Take a folder in the workspace for this run. The caller closes it."""
        return AggregatorFolder(self.workspace, run, output=self.output, logs=self.logs, account=self.account)

    def environment(
        self,
        base: Mapping[str, str],
        run: str,
        rounds: int,
        *,
        output: Path,
        logs: Path,
        extra: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """The aggregator's environment; see `aggregator_environment`."""
        own = {**self.confinement.environment(), **(extra or {})}
        return aggregator_environment(
            base, self.passed, only=self.only, run=run, rounds=rounds, output=output, logs=logs, extra=own
        )

    def start(
        self,
        folder: AggregatorFolder,
        run: str,
        rounds: int,
        *,
        extra: Mapping[str, str] | None = None,
        ended: Callable[[int], None] | None = None,
    ) -> ChildProcess:
        """Start the aggregator for this run. Raises `CommandNotFound`."""
        return ChildProcess(
            self.command,
            environment=self.environment(os.environ, run, rounds, output=folder.output, logs=folder.logs, extra=extra),
            log=folder.log_file,
            prefix=f"[{run} aggregator] ",
            echo=sys.stderr,
            ended=ended,
            inherited=(folder.lock,),
            confinement=self.confinement,
        )

    def check_folders(self) -> None:
        """Make the workspace, `$OUTPUT_PATH` and `$LOG_PATH`.

        Raises `InvalidSetting` where the user that the aggregator runs as cannot reach one of these folders, or can
        replace one of them, or a run's folder in the workspace: root works in them.
        """
        check_folder("--workspace", self.workspace, self.account, within=True)
        for name, folder in (("OUTPUT_PATH", self.output), ("LOG_PATH", self.logs)):
            if folder is not None:
                check_folder(name, folder, self.account, within=False)

    def take_output(self) -> None:
        """Keep other workers away from `$OUTPUT_PATH` as long as this process lives; see `take_output`."""
        if self.output is not None:
            take_output(self.output)

    def obituary(self, code: int, lines: Sequence[str], where: str = "") -> str:
        """Return one line about its end, and which limit it reached."""
        limit = self.confinement.explained(code, lines)
        return obituary(f"the aggregator {limit} and" if limit else "the aggregator", code, lines, where)
