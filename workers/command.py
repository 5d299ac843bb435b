"""Aggregate by a user's command: its inputs are files in the trainers' format, its result is inspected like an update.

`command_inputs` writes the files, a `Runner` has the command aggregate them, `command_result` takes the result.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from rq.timeouts import JobTimeoutException

from flavor.disk import file_of
from flavor.errors import AggregatorFailed, FlavorError, LocalFault
from flavor.programs.aggregator import UserAggregator
from flavor.programs.aggregator_folder import AggregatorFolder
from flavor.programs.process import ChildProcess, quoted
from flavor.rule_settings import COMMAND
from workers.combiner import Combined, Work
from workers.command_inputs import laid_out
from workers.command_result import copied_result, taken

_GRACE_S = 2.0


class Runner(Protocol):
    """Has the command aggregate the round whose files are announced in its `$OUTPUT_PATH`."""

    @property
    def ends(self) -> bool:
        """Whether the command has ended, with its process group, once it says that it is done."""

    def folder(self, run: str) -> AbstractContextManager[AggregatorFolder]:
        """Return the folder in which the command works for this run."""

    def __call__(self, work: Work, folder: AggregatorFolder) -> str:
        """Wait until the command says that it is done; return its last lines, quoted. Raises `AggregatorFailed`."""

    def discard(self, run: str) -> None:
        """Drop the process that said that it was done, because its result cannot be used."""


@dataclass(frozen=True)
class StartedAnew:
    """A `Runner` that starts the command for every round, and waits until it ends."""

    aggregator: UserAggregator
    ends: ClassVar[bool] = True

    def folder(self, run: str) -> AggregatorFolder:
        """See `Runner`."""
        return self.aggregator.folder(run)

    def __call__(self, work: Work, folder: AggregatorFolder) -> str:
        """See `Runner`."""
        process = self.aggregator.start(folder, work.run, work.config.rounds)
        try:
            code = process.wait()
            assert code is not None
            if code != 0:
                raise AggregatorFailed(self.aggregator.obituary(code, process.last_lines))
            return quoted(process.last_lines)
        except JobTimeoutException:
            raise overdue(work, process) from None
        finally:
            process.stop(_GRACE_S)

    def discard(self, run: str) -> None:
        """See `Runner`: the process has ended already."""


def overdue(work: Work, process: ChildProcess) -> AggregatorFailed:
    """Return the failure of a command that is stopped because it takes too long."""
    limit = f"{work.config.aggregation_timeout_s:g} s (--aggregation-timeout-s)"
    return AggregatorFailed(
        f"the aggregator was still running after {limit} and is stopped{quoted(process.last_lines)}"
    )


@dataclass(frozen=True)
class CommandCombiner:
    """A `Combiner` that runs a user's command."""

    aggregator: UserAggregator
    runner: Runner

    @property
    def made_by(self) -> str:
        """See `Combiner`."""
        return COMMAND

    def combine(self, work: Work, target: Path) -> Combined:
        """See `Combiner`. The folder of a failed attempt stays for people to look into, until the next attempt."""
        config = work.config
        if config.aggregator not in (None, COMMAND):
            raise AggregatorFailed(
                f"run {work.run!r} was started with --aggregator {config.aggregator}, and this worker has an "
                "aggregator of its own (-m): use workers without -m, on another --queue if need be, "
                "or leave out --aggregator"
            )
        if reason := config.not_for_command:
            raise AggregatorFailed(f"run {work.run!r} cannot be aggregated by this worker's -m: {reason}")
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(self.runner.folder(work.run))
                folder.open_to_aggregator()
                for old in folder.path.glob("round-*"):
                    shutil.rmtree(old, ignore_errors=True)
                # Never use an existing folder: a process of another user may still write to it.
                of_round = Path(tempfile.mkdtemp(prefix=f"round-{work.round}-", dir=folder.path))
                files = laid_out(work, of_round)
                if (account := self.aggregator.account) is not None:
                    for part in ("clients", "global"):
                        account.give_tree(of_round / part)
                    account.let_through(of_round)
                files.announce(folder.output)
            except OSError as error:
                where = file_of(error, f"the folder {self.aggregator.workspace}, or an object of the store")
                raise LocalFault(
                    f"{where}: {error.strerror}: check the disk and the aggregator's --workspace"
                ) from error
            said = self.runner(work, folder)
            try:
                if self.aggregator.account is not None:
                    files = copied_result(files, self.aggregator.account, said)
                is_final = self.runner.ends or self.aggregator.account is not None
                combined = taken(work, files, target, said, is_final=is_final)
            except FlavorError:
                self.runner.discard(work.run)
                raise
            shutil.rmtree(of_round, ignore_errors=True)
            return combined
