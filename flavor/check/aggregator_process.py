"""One life of the user's aggregator: a command with a bus, an `$OUTPUT_PATH` and a memory of its own.

A check has one life beside the trainer, and a few short lives to try changes. `Anew` is the life of a command that is
started for each round; `flavor.check.aggregator_kept` has the life of a command that is started once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from flavor.check.aggregator_checks import EXITS, INPUTS, STARTS, WRITES
from flavor.check.fake_bus import RUN
from flavor.check.folders import Stamp
from flavor.check.output import Screen
from flavor.check.report import Check, Report
from flavor.check.round_files import CheckedFiles
from flavor.check.script import Bell, Ended, Late, Over, QuietBell, Script
from flavor.checkpoints.npz_suffix import npz_hint
from flavor.programs.aggregator import UserAggregator

REPAIR = "repair what its last lines say"
_NO_EVENTS = "an aggregator that is started anew in each round has no events: leave them out, or pass --init-once"
_NO_LOOP = "let it end after one aggregation; if it loops over AggregateStarted, pass --init-once"


@dataclass(frozen=True)
class CheckedAggregator:
    """The command that is checked, and the limits of the check."""

    program: UserAggregator
    rounds: int
    timeout_s: float
    environment: Mapping[str, str]
    """The environment of the check; the aggregator sees what `flavor-agg` would pass of it."""
    logs: Path


class Life(ABC):
    """Aggregates one round after another. Every method may record a failed check and raise `Over`."""

    def __init__(
        self, aggregator: CheckedAggregator, folder: Path, report: Report, screen: Screen, bell: Bell, *, log: str
    ) -> None:
        self.report = report
        self._aggregator, self._log = aggregator, aggregator.logs / f"{log}.log"
        self._output = folder / "output"
        self._output.mkdir(parents=True)
        self._script = Script(bell, screen, aggregator.timeout_s, mark="agg| ", alarm=self._alarm)
        self._inputs: tuple[Stamp | None, ...] = ()

    @abstractmethod
    def start(self) -> None:
        """Begin the life; raises `CommandNotFound` for a program that cannot be started."""

    @abstractmethod
    def aggregate(self, round_: int, files: CheckedFiles, where: str) -> None:
        """Have the command aggregate these files; `where` names the round in messages."""

    def watch(self) -> None:
        """Check, between two rounds, that the command is as it should be."""
        self._alarm()

    @abstractmethod
    def end(self) -> None:
        """End the life as the end of the run does."""

    def stop(self) -> None:
        """Stop every process of this life."""
        self._script.stop()

    def fail(self, check: Check, detail: str, *, hint: str | None = None) -> NoReturn:
        """Stop the command, record the failed check with its last lines, and raise `Over`."""
        self.stop()  # and all that it has printed is known
        self.report.failed(check, detail + self._script.last_words(), hint=hint)
        raise Over

    def _died(self, check: Check, where: str, hint: str | None) -> NoReturn:
        """Record the failed check of a command that has ended, with its last lines, and raise `Over`."""
        detail = self._script.obituary("the aggregator", where)
        self.stop()
        self.report.failed(check, detail, hint=hint)
        raise Over

    @abstractmethod
    def _alarm(self) -> None:
        """Look after the command; called repeatedly while it is waited for."""

    def _launch(self, extra: Mapping[str, str]) -> None:
        aggregator = self._aggregator
        environment = aggregator.program.environment(
            aggregator.environment, RUN, aggregator.rounds, output=self._output, logs=aggregator.logs, extra=extra
        )
        self._script.launch(aggregator.program.command, environment, self._log)
        self.report.passed(STARTS)

    def _announce(self, files: CheckedFiles) -> None:
        self._inputs = files.stamps()
        files.announce(self._output)

    def _look_at_files(self, files: CheckedFiles, where: str) -> None:
        """Check that the command wrote the global model, and changed no other file."""
        changed = [
            str(index) for index, (was, is_) in enumerate(zip(self._inputs, files.stamps(), strict=True)) if was != is_
        ]
        if changed:
            self.fail(INPUTS, f"{where}: it changed the file at GetPaths('localModels')[{', '.join(changed)}]")
        self.report.passed(INPUTS)
        if not files.global_model.is_file():
            detail = f"{where}: there is no file at GetPaths('globalModel')[0]"
            self.fail(WRITES, detail, hint=npz_hint(files.global_model) or None)
        if not (size := files.global_model.stat().st_size):
            self.fail(WRITES, f"{where}: the file at GetPaths('globalModel')[0] is empty")
        self.report.passed(WRITES, f"{size} bytes")


class Anew(Life):
    """Starts the command for each round. As under `flavor-agg`, the command has no bus."""

    def __init__(
        self, aggregator: CheckedAggregator, folder: Path, report: Report, screen: Screen, *, log: str
    ) -> None:
        super().__init__(aggregator, folder, report, screen, QuietBell(), log=log)

    def start(self) -> None:
        """Do nothing: no process runs before the first round."""

    def end(self) -> None:
        """Do nothing: no process runs after the last round."""

    def _alarm(self) -> None:
        """Do nothing: the end of the command is the only event."""

    def aggregate(self, round_: int, files: CheckedFiles, where: str) -> None:
        """See `Life`: run the command to its end."""
        self._announce(files)
        self._launch({})
        try:
            self._script.wait(f"the aggregator ({where})", lambda: False)
        except Late:
            self.fail(EXITS, f"{where}: still running after {self._script.limit}", hint=_NO_LOOP)
        except Ended:
            if self._script.exit_code() != 0:
                # what the events of flavor.cook.utils say where there is no bus
                no_bus = "started anew in each round has no events" in self._script.last_words()
                self._died(EXITS, f"in {where}", _NO_EVENTS if no_bus else REPAIR)
        self.report.passed(EXITS)
        self._script.stop()  # what it has started, too
        self._look_at_files(files, where)
