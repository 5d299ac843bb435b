"""The user's aggregator between the rounds of a trainer: what `check-agg` adds to `check-fl`."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Protocol

from flavor.check.aggregation import Made, Sent
from flavor.check.aggregator_checks import ACCEPTED, ANEW_CHECKS, CONTENT, INFO, ONCE_CHECKS, WEIGHS
from flavor.check.aggregator_kept import Once
from flavor.check.aggregator_process import Anew, CheckedAggregator, Life
from flavor.check.files import FileRound
from flavor.check.folders import Folders
from flavor.check.output import Screen
from flavor.check.report import Report
from flavor.check.round_files import CheckedFiles
from flavor.check.script import Over
from flavor.check.sensitivity import Result, Trial
from flavor.check.tensors import TensorRound
from flavor.check.trainer_checks import without_tensors
from flavor.check.weighing import has_fixed_factors, is_out_of_scale
from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.kinds import TENSORS
from flavor.records.info import FILE_NAME

_FOR_EACH_ROUND = "compute the factors in each round for the local models that are there: their number may change"


class Round(Protocol[Result]):
    """One aggregation: its local models, and the inspection of the global model, a `Result`.

    Every problem becomes a failed check of the life's report, and `Over` is raised.
    """

    files: CheckedFiles

    def look_at(self, life: Life, files: CheckedFiles, where: str) -> Result:
        """Inspect what the command left in these files."""

    def try_changes(self, life: Life, trial: Trial[Result], made: Result) -> None:
        """Check whether the result follows every local model."""

    def hand_over(self, life: Life, where: str, target: Path) -> None:
        """Write the global model to `target`, as the trainer will find it."""

    def total(self, made: Result) -> float | None:
        """Return the sum of the local models' shares in the global model; None if it cannot be determined."""

    def fail_scale(self, life: Life, where: str, sum_: float) -> None:
        """Record that the shares sum to another number than 1 in every round, and raise `Over`."""

    def made(self, made: Result) -> Made | None:
        """Return what the trainer's next model is compared with; None if nothing can be compared."""


class CommandAggregation:
    """Aggregates the trainer and other clients made from it, by the user's command, started in each round or once."""

    def __init__(
        self,
        aggregator: CheckedAggregator,
        folders: Folders,
        *,
        screen: Screen,
        init_once: bool = False,
        checkpoints: CheckpointKind = TENSORS,
    ) -> None:
        self.report = Report(ONCE_CHECKS if init_once else ANEW_CHECKS)
        self._aggregator, self._screen, self._checkpoints = aggregator, screen, checkpoints
        self._kind: type[Once | Anew] = Once if init_once else Anew
        self._tried = 2 if init_once or not checkpoints.has_tensors else 1  # flavor.check.sensitivity says why
        self._root = folders.root / "aggregator"
        self._life = self._new_life(self._root, "aggregator")
        self._history: list[CheckedFiles] = []
        self._sums: list[float | None] = []  # of the local models' shares, round by round
        self._counts: list[int] = []  # of local models
        self._before: Path | None = None  # what the trainer sent in the round before
        if not checkpoints.has_tensors:
            for check in CONTENT:
                self.report.skipped(check, without_tensors(checkpoints))

    def start(self) -> None:
        """Start the command, if it is started once."""
        self._life.start()

    def watch(self) -> None:
        """Check that a command that is started once still runs."""
        self._life.watch()

    def make(self, round_: int, sent: Sent, target: Path) -> Made | None:
        """Aggregate the round with the command and inspect the result; in one round, run the command again too."""
        if sent.info is None:
            raise Over  # the trainer's checks say why
        folder = self._root / f"round-{round_}"
        if self._checkpoints.has_tensors:
            made = self._aggregate(round_, TensorRound(round_, sent, sent.info, folder), target)
        else:
            files = FileRound(sent, sent.info, folder, self._before, self._checkpoints)
            made = self._aggregate(round_, files, target)
        self._before = sent.path
        return made

    def taken_up(self, round_: int, *, finished: bool) -> None:
        """Record whether the trainer could go on from the global model."""
        if finished:
            self.report.passed(ACCEPTED, f"round {round_} was trained from it")
        else:
            self.report.failed(ACCEPTED, f"the trainer did not finish round {round_}: its own checks say how")

    def end(self) -> None:
        """End the command, as the end of a run does."""
        self._life.end()

    def stop(self) -> None:
        """Stop the command if it runs."""
        self._life.stop()

    def _new_life(self, folder: Path, log: str, in_private: bool = False) -> Life:
        report = Report(()) if in_private else self.report
        return self._kind(self._aggregator, folder, report, self._screen, log=log)

    def _aggregate(self, round_: int, work: Round[Result], target: Path) -> Made | None:
        where = f"round {round_}"
        self._screen.tell(f"aggregating {where}")
        self._life.aggregate(round_, work.files, where)
        result = work.look_at(self._life, work.files, where)
        self._look_at_info(work.files, where)
        if round_ == self._tried:
            self._screen.tell(f"aggregating {where} again, with one local model changed at a time")
            trial = Trial(self._new_life, self._root / "again", self._history, work.files, work.look_at)
            work.try_changes(self._life, trial, result)
        self._sums.append(work.total(result))
        if is_out_of_scale(self._sums) and (sum_ := self._sums[-1]) is not None:
            work.fail_scale(self._life, where, sum_)
        self._counts.append(len(work.files.local_models))
        if has_fixed_factors(self._sums, self._counts):
            first, now = self._counts[0], self._counts[-1]
            seen = f"the shares of {now} local models sum to {now / first:.4g}, those of {first} to 1"
            self._life.fail(WEIGHS, f"{where}: {seen}", hint=_FOR_EACH_ROUND)
        work.hand_over(self._life, where, target)
        shutil.copyfile(work.files.global_info, target.with_name(FILE_NAME))
        self._history.append(self._put_away(work.files, round_))
        return work.made(result)

    def _put_away(self, files: CheckedFiles, round_: int) -> CheckedFiles:
        """Move a round's files away: under `flavor-agg`, too, the paths of an old round lead nowhere."""
        old, new = self._root / f"round-{round_}", self._root / "finished" / f"round-{round_}"
        new.parent.mkdir(exist_ok=True)
        old.rename(new)
        return files.moved(old, new)

    def _look_at_info(self, files: CheckedFiles, where: str) -> None:
        """Check that the command left the merged info valid; it may have changed numbers."""
        try:
            metrics = json.loads(files.global_info.read_bytes())["metrics"]
            values = [each for value in metrics.values() for each in (value if isinstance(value, list) else [value])]
            there = [value for value in values if value is not None]  # where a site has none
            odd = [value for value in there if isinstance(value, bool | str) or not math.isfinite(value)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._life.fail(INFO, f"{where}: {type(error).__name__}: {error}".splitlines()[0])
        if odd:
            self._life.fail(INFO, f"{where}: {odd[0]!r} under metrics is no number")
        self.report.passed(INFO)
