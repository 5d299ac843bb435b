"""The operator's own commands of `flavor-agg`: an aggregator (`-m`) and an evaluator (`-e`), confined alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flavor.errors import InvalidSetting

if TYPE_CHECKING:
    from flavor.programs.aggregator import UserAggregator
    from flavor.programs.confinement import Confinement
    from flavor.programs.own_evaluator import OwnEvaluator

_FOLDERS = ("OUTPUT_PATH", "LOG_PATH")
"""Variables that may name the folders of the user's aggregator."""


@dataclass(frozen=True)
class OwnCommands:
    """The options that hold for both commands: the variables that they get, and their limits."""

    passed: tuple[str, ...]
    only: bool
    memory_limit: str | None
    cpu_limit_s: int | None
    file_size_limit: str | None
    user: str | None

    def of(
        self,
        main: str | None,
        evaluate: str | None,
        evaluate_input: Path | None,
        workspace: Path,
        tell: Callable[[str], None],
    ) -> tuple[UserAggregator | None, OwnEvaluator | None]:
        """Return the aggregator and the evaluator, with their folders made; None for a command that is not given.

        Raises `InvalidSetting` for options that do not go together, and `CommandNotFound`.
        """
        if evaluate is None and evaluate_input is not None:
            raise InvalidSetting("--evaluate-input is for an evaluator of your own: flavor-agg -e CMD")
        if evaluate is not None and evaluate_input is None:
            raise InvalidSetting(
                "-e: name the folder of your own data, on which models are judged: --evaluate-input DIR"
            )
        if main is None and evaluate is None:
            if self.memory_limit or self.cpu_limit_s or self.file_size_limit or self.user:
                raise InvalidSetting("limits and --user are for commands of your own: flavor-agg -m CMD, or -e CMD")
            return None, None
        confinement = self._confinement()
        judges = None
        if evaluate is not None and evaluate_input is not None:
            judges = self._evaluator(evaluate, evaluate_input, workspace, confinement)
        own = self._aggregator(main, workspace, confinement) if main is not None else None
        self._tell_hidden(tell)
        return own, judges

    def _confinement(self) -> Confinement:
        from flavor.programs.account import Account
        from flavor.programs.confinement import Confinement
        from flavor.sizes import parse_size

        return Confinement(
            parse_size(self.memory_limit, "--memory-limit") if self.memory_limit else None,
            self.cpu_limit_s,
            parse_size(self.file_size_limit, "--file-size-limit") if self.file_size_limit else None,
            Account.of(self.user, "--user") if self.user else None,
        )

    def _evaluator(self, command: str, folder: Path, workspace: Path, confinement: Confinement) -> OwnEvaluator:
        from flavor.programs.command import parse_command
        from flavor.programs.own_evaluator import OwnEvaluator

        words = tuple(parse_command(command, "-e"))
        evaluator = OwnEvaluator(words, folder.absolute(), workspace, self.passed, confinement, only=self.only)
        evaluator.check_folders()
        return evaluator

    def _aggregator(self, command: str, workspace: Path, confinement: Confinement) -> UserAggregator:
        from flavor.programs.aggregator import UserAggregator
        from flavor.programs.command import parse_command

        output, log = (Path(os.environ[name]) if os.environ.get(name) else None for name in _FOLDERS)
        aggregator = UserAggregator(
            tuple(parse_command(command, "-m")),
            workspace,
            self.passed,
            confinement,
            only=self.only,
            output=output and output.absolute(),
            logs=log and log.absolute(),
        )
        aggregator.check_folders()
        aggregator.take_output()
        return aggregator

    def _tell_hidden(self, tell: Callable[[str], None]) -> None:
        from flavor.programs.aggregator_environment import withheld

        hidden = [name for name in withheld(os.environ) if name not in self.passed and not name.startswith("FLAVOR_")]
        if hidden and not self.only:
            names = ", ".join(sorted(hidden))
            tell(f"not passed on to the command, as they may hold secrets (--env NAME): {names}")
