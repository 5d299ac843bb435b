"""The operator's evaluator: a command that judges a model on the operator's own data, started by `flavor-agg -e`."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flavor.errors import InvalidInfo, NoResult
from flavor.programs.account import Account
from flavor.programs.aggregator_environment import inherited
from flavor.programs.aggregator_folder import AggregatorFolder, check_folder
from flavor.programs.confinement import UNLIMITED, Confinement
from flavor.programs.evaluator_environment import evaluator_environment
from flavor.programs.output_log import EVALUATOR_LOG_BYTES
from flavor.programs.process import ChildProcess, obituary
from flavor.programs.result_file import clear_result, read_result
from flavor.records.evaluated_info import with_report, without_report
from flavor.records.info import FILE_NAME, MAX_BYTES, Info, parse_info

CLIENT = "central"
"""What the evaluator finds as `FLAVOR_CLIENT`."""
_FOLDER = "+evaluator"
"""The folder below the worker's workspace; no run, and no folder of an aggregator, has such a name."""


@dataclass(frozen=True)
class EvaluatorFiles:
    """The folders and files of one evaluation; see `TrainerFiles`."""

    root: Path
    """Made anew for each evaluation, and removed after it."""
    input: Path
    output: Path
    log: Path
    global_model: Path
    local_model: Path

    @property
    def local_info(self) -> Path:
        """The information that the evaluator writes."""
        return self.local_model.with_name(FILE_NAME)


@dataclass(frozen=True)
class OwnEvaluator:
    """The evaluator that `flavor-agg -e` names."""

    command: tuple[str, ...]
    input: Path
    """The folder of the operator's data."""
    workspace: Path
    passed: tuple[str, ...] = ()
    """Environment variables that it gets in any case (`--env`)."""
    confinement: Confinement = UNLIMITED
    only: bool = False
    """Whether it gets, of all other variables, only those that every program needs (`--env-only`)."""

    @property
    def account(self) -> Account | None:
        """The user that it runs as; None for the worker's own."""
        return self.confinement.account

    def check_folders(self) -> None:
        """Make the workspace. Raises `InvalidSetting` where it cannot be used; see `check_folder`."""
        check_folder("--workspace", self.workspace / _FOLDER, self.account, within=True)

    def folder(self, run: str) -> AggregatorFolder:
        """Take a folder in the workspace for this run. The caller closes it."""
        return AggregatorFolder(self.workspace / _FOLDER, run, account=self.account)

    def lay_out(self, folder: AggregatorFolder, round_: int, extension: str) -> EvaluatorFiles:
        """Make the folders of an evaluation; what an earlier one has left is removed."""
        folder.open_to_aggregator()
        clear_result(folder.output)
        for old in folder.path.glob("round-*"):
            shutil.rmtree(old, ignore_errors=True)
        # Never use an existing folder: a process of another user may still write to it.
        root = Path(tempfile.mkdtemp(prefix=f"round-{round_}-", dir=folder.path))
        for name in ("global", "local"):
            (root / name).mkdir(mode=0o700)
        return EvaluatorFiles(
            root,
            self.input,
            folder.output,
            folder.logs,
            root / "global" / f"model{extension}",
            root / "local" / f"model{extension}",
        )

    def start(
        self, folder: AggregatorFolder, files: EvaluatorFiles, *, run: str, round_: int, rounds: int
    ) -> ChildProcess:
        """Start the evaluator for the model in `files`. Raises `CommandNotFound`."""
        if self.account is not None:
            for part in ("global", "local"):
                self.account.give_tree(files.root / part)
            self.account.let_through(files.root)
        base = {**inherited(os.environ, self.passed, only=self.only), **self.confinement.environment()}
        return ChildProcess(
            self.command,
            environment=evaluator_environment(base, files, round_=round_, rounds=rounds, run=run, client=CLIENT),
            log=folder.log_file.with_name("evaluator.log"),
            most=EVALUATOR_LOG_BYTES,
            prefix=f"[{run} evaluator] ",
            echo=sys.stderr,
            inherited=(folder.lock,),
            confinement=self.confinement,
        )

    def measured(self, files: EvaluatorFiles, round_: int) -> Info:
        """Return what the evaluator has measured: its info.json, and the tables of a result.json as metrics.

        Raises `InvalidInfo`. Plots and images of a result.json stay where they are.
        """
        own, written = self._own_info(files.local_info), read_result(files.output)
        if written is not None:
            return without_report(with_report(own, written.report, round_, digest=written.digest))
        if own is None:
            raise NoResult
        return own

    def _own_info(self, path: Path) -> Info | None:
        """Return the information at `path`; None where there is none.

        Reads only a plain file of the evaluator's user, no link and no pipe: a link could lead to a file of the worker.
        """
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError:
            raise InvalidInfo("the evaluator left no plain file as its info.json") from None
        with open(handle, "rb") as file:
            found = os.fstat(handle)
            owner = self.account.uid if self.account is not None else os.geteuid()
            if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
                raise InvalidInfo("the evaluator left no plain file of its own as its info.json")
            return parse_info(file.read(MAX_BYTES + 1), where="the evaluator's info.json")

    def obituary(self, code: int, process: ChildProcess) -> str:
        """Return one line about its end for the worker's operator, and which limit it reached."""
        limit = self.confinement.explained(code, process.last_lines)
        return obituary(f"the evaluator {limit} and" if limit else "the evaluator", code, process.last_lines)
