"""Drive one evaluator as a site does, without a run: the steps of `check-fv`, in their order."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from flavor.check.evaluator_checks import (
    ENDS,
    EVALUATOR_CHECKS,
    EXAMPLES,
    KEEPS,
    KNOWN,
    MEASURES,
    REPORTS,
    SAME,
    STARTS,
    USES,
)
from flavor.check.fake_bus import CLIENT, RUN
from flavor.check.folders import Folders
from flavor.check.merged_as import merged_as
from flavor.check.model import opened
from flavor.check.output import Screen
from flavor.check.report import Check, Report
from flavor.check.report_names import unknown_names
from flavor.check.script import Ended, Late, Over, QuietBell, Script
from flavor.checkpoints import Checkpoint, Format, detect, read, write
from flavor.counted import counted
from flavor.errors import CheckpointError, InvalidInfo
from flavor.printable import printable
from flavor.programs.evaluator_environment import evaluator_environment
from flavor.programs.result_file import Written, clear_result, read_measured
from flavor.records.info import CONFUSION, UNCOUNTED, Info
from flavor.store.digests import sha256_file

_NEEDS_MODEL = (
    "the made-up model may be the cause: name one of yours with --model, such as global_model.* in the result folder "
    "of one round: flavor run -m 'python main.py' --edges 1 --rounds 1"
)
_OF_TRAINING = (
    "a run gives the script the format in which the training scripts save. If that is this one, check with a file of "
    "`flavor get RUN --format {}`"
)
_NAN = (
    "a metric that is None, NaN or infinite counts as missing at this site: that is right where its data do not give "
    "the metric, as the AUC of one class"
)
_ROUND = 1
_FIRST = "evaluator"
"""The name of the log of the first start."""
_SHOWN = 3
_LONGEST_NAME = 100


@dataclass(frozen=True)
class CheckedEvaluator:
    """The evaluator that is checked, and the settings of the check."""

    command: Sequence[str]
    preprocess: Sequence[str] | None = None
    model: Path | None = None
    """The model that is judged; None for the file at `WEIGHT_PATH`, or else for one that is made."""
    timeout_s: float = 600.0


class EvaluatorCheck:
    """Checks one evaluator. Raises `CommandNotFound` for a program that cannot be started."""

    def __init__(
        self, settings: CheckedEvaluator, folders: Folders, *, environment: Mapping[str, str], screen: Screen
    ) -> None:
        self._settings, self._folders, self._screen = settings, folders, screen
        self._files, self._base = folders.workspace, environment
        self._report = Report(EVALUATOR_CHECKS)
        self._script = Script(QuietBell(), screen, settings.timeout_s, mark="| ")
        self._model = folders.root / "model"

    def run(self) -> Report:
        """Start the script with the model, again with the same, and with one whose weights are 0."""
        try:
            self._prepare()
            first = self._judge(self._model, _FIRST)
            self._again(first)
            self._with_other_model(first)
        except Over:
            pass
        finally:
            self._screen.waited()
            self._script.stop()
        return self._report

    # -- the steps

    def _prepare(self) -> None:
        given = self._settings.model or self._folders.pretrained
        if given is not None:
            shutil.copyfile(given, self._model)
        else:
            rng = np.random.default_rng(0)
            weights = {"weight": rng.normal(size=(4, 3)).astype(np.float32), "bias": np.zeros(3, np.float32)}
            write(self._model, Checkpoint(dict(weights)), Format.PICKLE)
            self._screen.tell("no --model is given: the script gets a pickle with a weight of 4 x 3 and a bias of 3")
        if (command := self._settings.preprocess) is not None:
            launch = partial(self._launch, command, "preprocess")
            if failure := self._script.preprocessed(launch, self._folders.input_is_empty):
                self._give_up(STARTS, *failure)

    def _judge(self, model: Path, log: str) -> Info:
        """Have the script judge this model, and return what it has measured."""
        self._start(model, log)
        self._report.passed(STARTS)
        try:
            self._script.wait("the script to end", lambda: False)
        except Late:
            self._give_up(ENDS, f"still running after {self._script.limit}")
        except Ended:
            if self._script.exit_code() != 0:
                self._died(is_first=model == self._model and log == _FIRST)
        self._report.passed(ENDS, "exit code 0")
        try:
            info, written = read_measured(self._files.output, self._files.local_info, _ROUND)
        except InvalidInfo as error:
            self._give_up(REPORTS, str(error))
        self._report.passed(REPORTS, "; ".join(filter(None, [_described(written), merged_as(info)])))
        if unknown := unknown_names(self._files.output):
            self._report.warned(KNOWN, _first(unknown))
        else:
            self._report.passed(KNOWN)
        self._look_at(info)
        placed = self._files.global_model
        if not placed.is_file() or sha256_file(placed) != sha256_file(model):
            self._report.failed(KEEPS, f"{placed} was {'changed' if placed.is_file() else 'removed'}")
        else:
            self._report.passed(KEEPS)
        return info

    def _died(self, *, is_first: bool) -> NoReturn:
        """Record that the script ended with an error; where the model may be the cause, that nothing is decided."""
        detail = self._script.obituary("the script", "")
        given = self._settings.model or self._folders.pretrained
        cause, undecided = _NEEDS_MODEL, "not decided, because the script may need a model of yours (--model)"
        if given is not None:
            hint = self._death_hint
            try:
                own = opened(given)
            except CheckpointError as error:
                cause = f"the model may be the cause: {error}"
                undecided = f"not decided, because {given} may be the cause"
            else:
                taken = self._format_taken(given, own) if is_first else None
                if taken is None:
                    self._give_up(ENDS, detail, hint=hint)
                has = f"{given} has the format {own}, and the script judges the same model in the format {taken}"
                self._give_no_verdict(detail, f"{has}: {_OF_TRAINING.format(taken)}", f"not decided, because {has}")
        self._give_no_verdict(detail, "; ".join(filter(None, (self._death_hint, cause))), undecided)

    def _give_no_verdict(self, detail: str, hint: str, undecided: str) -> NoReturn:
        self._report.unclear(ENDS, detail, hint=hint)
        self._report.undecided = undecided
        raise Over

    def _format_taken(self, model: Path, own: Format) -> Format | None:
        """Return another format than its own in which the script judges a model; None where it does in none.

        A run gives the script the format in which the training scripts save, and the file may have another one.
        """
        for other in Format:
            target = self._folders.root / f"model-{other}"
            if other is own:
                continue
            try:
                write(target, read(model), other)
            except CheckpointError:
                continue
            self._screen.tell(f"once more, with the model in the format {other}: {model} has the format {own}")
            self._start(target, f"{_FIRST}-{other}")
            try:
                self._script.wait("the script to end", lambda: False)
            except Late:
                continue
            except Ended:
                if self._script.exit_code() == 0:
                    return other
        return None

    def _look_at(self, info: Info) -> None:
        if (examples := info["metadata"]["datasetSize"]) > 0:
            self._report.passed(EXAMPLES, counted(examples, "example"))
        else:
            self._report.warned(EXAMPLES, "metadata.datasetSize is 0")
        found, without = _numbers(info), [name for name, value in info["metrics"].items() if value is None]
        if found and not without:
            self._report.passed(MEASURES, _listed(found))
        elif found:
            self._report.warned(MEASURES, f"no finite number: {_first(without)}; measured: {_listed(found)}", hint=_NAN)
        else:
            self._report.warned(MEASURES, "no metric has a value")

    def _again(self, first: Info) -> None:
        """Start the script again with the same model."""
        self._screen.tell("once more, with the same model")
        before, after = _numbers(first), _numbers(self._judge(self._model, "evaluator-again"))
        differ = [name for name in before if not _is_same(before[name], after.get(name))]
        if differ or before.keys() != after.keys():
            name = (differ or sorted(before.keys() ^ after.keys()))[0]
            self._report.warned(SAME, f"{name} was {before.get(name)}, and is {after.get(name)}")
        else:
            self._report.passed(SAME)

    def _with_other_model(self, first: Info) -> None:
        """Start the script with a model whose weights are 0, which may be none that it can judge."""
        self._screen.tell("once more, with a model whose weights are all 0")
        other = self._folders.root / "zeros"
        try:
            _write_zeros(self._model, other)
        except CheckpointError as error:
            self._report.unclear(USES, f"no model of zeros can be made of this file: {error}")
            return
        self._start(other, "evaluator-zeros")
        try:
            self._script.wait("the script to end", lambda: False)
        except Late:
            self._report.unclear(USES, f"the script runs longer than {self._script.limit} with such a model")
            return
        except Ended:
            if self._script.exit_code() != 0:
                self._report.passed(USES, "the script does not take such a model")
                return
        try:
            info, _ = read_measured(self._files.output, self._files.local_info, _ROUND)
        except InvalidInfo:
            self._report.passed(USES, "the script has no result with such a model")
            return
        before, after = _numbers(first), _numbers(info)
        if before and all(_is_same(value, after.get(name)) for name, value in before.items()):
            self._report.warned(USES, f"such a model gives the same: {_listed(after)}")
        else:
            self._report.passed(USES)

    # -- the script

    def _start(self, model: Path, log: str) -> None:
        self._files.clear_local()
        clear_result(self._files.output)
        self._files.global_model.unlink(missing_ok=True)
        shutil.copyfile(model, self._files.global_model)
        self._launch(self._settings.command, log)

    def _launch(self, command: Sequence[str], log: str) -> None:
        environment = evaluator_environment(self._base, self._files, round_=_ROUND, rounds=1, run=RUN, client=CLIENT)
        environment["CHECK_FL"] = "true"
        self._script.launch(command, environment, self._files.log / f"{log}.log")

    @property
    def _death_hint(self) -> str | None:
        return self._script.death_hint(self._folders.input_is_empty)

    def _give_up(self, check: Check, detail: str, hint: str | None = None) -> NoReturn:
        self._report.failed(check, detail, hint=hint)
        raise Over


def _write_zeros(model: Path, target: Path) -> None:
    """Write the same checkpoint with all floats 0. Raises `CheckpointError` for a file that is no state_dict."""
    found = read(model)
    tensors = {
        name: np.zeros_like(tensor) if tensor.dtype.kind not in "iub" else tensor
        for name, tensor in found.tensors.items()
    }
    made = Checkpoint(tensors, found.structure, found.metadata, found.beside, found.left_out)
    write(target, made, detect(model))


def _numbers(info: Info) -> dict[str, float]:
    """Return the metrics that have a value, without cells of a confusion matrix that are not counted."""
    return {
        name: value
        for name, value in info["metrics"].items()
        if isinstance(value, int | float) and not (name in CONFUSION and value == UNCOUNTED)
    } | {name: math.fsum(value) for name, value in info["metrics"].items() if isinstance(value, list)}


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(printable(name[:_LONGEST_NAME]) for name in names[:_SHOWN]) + more


def _is_same(before: float, after: float | None) -> bool:
    return after is not None and math.isclose(before, after, rel_tol=1e-9, abs_tol=1e-12)


def _listed(numbers: Mapping[str, float]) -> str:
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(f"{name} {value:.4g}" for name, value in list(numbers.items())[:_SHOWN]) + more


def _described(written: Written | None) -> str:
    """Say what is in result.json; '' for none."""
    if written is None:
        return ""
    report = written.report
    kinds = {
        "table": report.tables,
        "bar chart": report.bars,
        "heatmap": report.heatmaps,
        "plot": report.plots,
        "image": report.images,
    }
    return f"result.json: {', '.join(counted(len(of), kind) for kind, of in kinds.items() if of) or 'empty'}"
