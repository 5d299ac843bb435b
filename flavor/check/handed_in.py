"""Inspect a trainer's model and information at the end of a round, and compare them with the round before."""

from __future__ import annotations

import filecmp
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from flavor.check import model
from flavor.check.aggregation import Made
from flavor.check.merged_as import merged_as
from flavor.check.report import Check, Report
from flavor.check.script import Over
from flavor.check.trained_from import compared, judge, most_left, not_judged, not_loaded
from flavor.check.trainer_checks import (
    EPOCH,
    FINITE,
    FORGOTTEN,
    INFO,
    INTEGERS,
    PARTS,
    SAME_AGAIN,
    SAVE_THIS_ROUNDS,
    SAVES,
    SHAPES,
    STATE_AVERAGED,
    STATE_BESIDE,
    STATE_DICT,
    TENSORS,
    TIED,
    TRAINS,
)
from flavor.checkpoints import Checkpoint, Format, read
from flavor.checkpoints.compare import same_bits, structure_problems
from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.tied import IF_TIED, Twins, alike, equal, one_in_the_file, refused
from flavor.counted import counted
from flavor.errors import CheckpointError, InvalidInfo
from flavor.parts import WHOLE, Parts
from flavor.patterns import CONTROL_VARIATE
from flavor.records.info import LOCAL_STEPS, Info, read_info
from flavor.sizes import shown_bytes


@dataclass(frozen=True)
class _Round:
    """The result of a round: the script's model as it was sent in, and the global model that was made from it."""

    local: Checkpoint
    made: Made


class HandedIn:
    """Keeps the models and infos so far, and makes the checks on them."""

    def __init__(self, report: Report, rounds: int, parts: Parts = WHOLE) -> None:
        self._report, self._rounds, self._parts = report, rounds, parts
        self._epochs: list[int] = []
        self._previous: _Round | None = None

    def look_at_info(self, round_: int, path: Path) -> Info | None:
        """Return the information of this round; None, with a failed check, if it is not valid."""
        try:
            info = read_info(path)
        except InvalidInfo as error:
            self._report.failed(INFO, f"round {round_}: {_without(error, path)}")
            self._report.skipped(EPOCH, f"round {round_} has no valid info.json")
            return None
        size, steps = counted(info["metadata"]["datasetSize"], "example"), info["metadata"].get(LOCAL_STEPS)
        said = f"localSteps: {steps:g}" if steps is not None else ""
        parts = (f"{round_} of {counted(self._rounds, 'round')}", merged_as(info), f"datasetSize: {size}", said)
        self._report.passed(INFO, "; ".join(filter(None, parts)))
        self._epochs.append(info["metadata"]["epoch"])
        if len(self._epochs) == round_ > 1:
            before, now = self._epochs[-2:]
            seen = f"{before} in round {round_ - 1}, {now} in round {round_}"
            if now > before:
                self._report.passed(EPOCH, seen)
            else:
                self._report.warned(EPOCH, seen)
        return info

    def look_at_model(self, round_: int, path: Path, was_read: bool | None) -> tuple[Checkpoint, Format]:
        """Inspect the model of this round and compare it with the round before; raises `Over` if it cannot be used."""
        try:
            format_ = model.opened(path)
        except CheckpointError as error:
            self._give_up(STATE_DICT, f"round {round_}: {_without(error, path)}")
        self._report.passed(STATE_DICT, format_)
        try:
            local = read(path, format_)
        except CheckpointError as error:
            self._give_up(TENSORS, f"round {round_}: {_without(error, path)}")
        seen = counted(len(local.tensors), "tensor")
        if known := model.statistics(local.tensors):
            seen += f"; statistics, with which no server step is taken: {known}"
        if numbers := model.scalars(local.tensors):
            seen += f"; of no dimensions, and averaged without a server step: {numbers}"
        if local.structure is not None and (texts := local.structure.texts):
            seen += f"; text, which stays at the site and is put back: {model.some(texts)}"
        if state := model.of_training(local.tensors):
            self._report.warned(TENSORS, f"{STATE_AVERAGED}: {state}", hint=STATE_BESIDE)
        self._report.passed(TENSORS, seen)
        if bad := model.nonfinite(local.tensors):
            self._give_up(FINITE, f"round {round_}: NaN or infinity in {bad}")
        self._report.passed(FINITE)
        if odd := model.suspicious(local.tensors):
            self._report.warned(INTEGERS, f"{odd}: a mean of such values means nothing")
        self._report.passed(INTEGERS)
        if self._parts:
            self._look_at_parts(round_, local.tensors)
        if self._previous is not None:
            made = self._previous.made
            if changed := structure_problems(local.tensors, self._previous.local.tensors, f"round {round_ - 1}"):
                self._give_up(SHAPES, f"round {round_}: {changed}")
            self._report.passed(SHAPES)
            now, before = self.shared(local.tensors), self.shared(self._previous.local.tensors)
            made = Made(tensors := self.shared(made.tensors), tensors) if self._parts else made
            self._look_for_training(round_, made.tensors, now)
            if all(np.array_equal(array, before[name]) for name, array in now.items()):
                self._report.warned(TRAINS, f"round {round_}: {SAME_AGAIN} {round_ - 1}", hint=SAVE_THIS_ROUNDS)
            left = compared(before, made, now)
            unloaded = not_loaded(before, made, now)
            most = most_left(before, made, now)
            judge(self._report, round_, left, was_read, unloaded, most, not_judged(before, made))
        return local, format_

    def shared(self, tensors: model.Tensors) -> model.Tensors:
        """Return those of the tensors that are shared."""
        return {name: tensors[name] for name in self._parts.shared(tensors)} if self._parts else tensors

    def _look_at_parts(self, round_: int, tensors: model.Tensors) -> None:
        if problem := self._parts.problem(tensors):
            self._give_up(PARTS, f"round {round_}: {problem}")
        shared = self.shared(tensors)
        for mine, other in one_in_the_file(tensors, frozenset(shared)).items():
            self._give_up(PARTS, f"round {round_}: {refused(mine, other)}", hint=TIED)
        sizes = [sum(array.nbytes for array in each.values()) for each in (shared, tensors)]
        own = [name for name in tensors if name not in shared]
        how_much = f"{shown_bytes(sizes[0])} of {shown_bytes(sizes[1])}"
        shares = f"{len(shared)} of {counted(len(tensors), 'tensor')} are shared, {how_much}: {model.some([*shared])}"
        seen, names = f"{shares}; at the site stay {model.some(own)}", {"shared": [*shared], "local": own}
        hints = []
        if forgotten := self._parts.forgotten({name: array.shape for name, array in tensors.items()}):
            seen = f"{seen}; shared are also the statistics {model.some(forgotten)}"
            hints.append(FORGOTTEN)
        if line := alike(self._moved_alike(tensors, frozenset(shared))):
            seen = f"{seen}; round {round_}: {line}"
            hints.append(IF_TIED)
        if hints:
            self._report.warned(PARTS, seen, hint="; ".join(hints), **names)
        else:
            self._report.passed(PARTS, seen, **names)

    def _moved_alike(self, tensors: model.Tensors, shared: frozenset[str]) -> Twins:
        """Return the own tensors that have changed since the round before, and are equal to a shared one."""
        before = self._previous.local.tensors if self._previous is not None else {}
        return {
            own: twin
            for own, twin in equal(tensors, shared).items()
            if own in before and not same_bits(before[own], tensors[own])
        }

    def described(self, round_: int, path: Path, kind: CheckpointKind) -> str:
        """Describe a file without tensors; raises `Over` if its kind cannot read it."""
        try:
            return kind.describe(path)
        except CheckpointError as error:
            self._give_up(SAVES, f"round {round_}: {_without(error, path)}")

    def look_at_bytes(self, round_: int, given: Path, handed_in: Path, made: Path) -> None:
        """Check that a file without tensors differs from the global model `given`; `made` is the next global model.

        Where that is the same file again, no script could have handed in another: there is nothing more to learn.
        """
        if not filecmp.cmp(given, handed_in, shallow=False):
            self._report.passed(TRAINS)
            return
        same = f"round {round_}: what was handed in is the global model, byte for byte"
        if made.is_file() and filecmp.cmp(given, made, shallow=False):
            nothing_more = "training that has nothing more to learn looks the same as none"
            self._report.unclear(TRAINS, f"{same}, and so is the next global model: {nothing_more}")
        else:
            self._report.failed(TRAINS, same)

    def look_at_start(self, path: Path, local: Checkpoint) -> None:
        """Check that round one changed the weights from which it started."""
        try:
            given = read(path, model.opened(path)).tensors
        except CheckpointError:
            return
        if not structure_problems(local.tensors, given, "the model at the start"):
            self._look_for_training(1, given, local.tensors)

    @property
    def own_variates(self) -> list[str]:
        """The control variates of SCAFFOLD in the script's last model that are not shared."""
        names = self._previous.local.tensors if self._previous is not None else ()
        shared = frozenset(self._parts.shared(names))
        return [name for name in names if CONTROL_VARIATE in name and name not in shared]

    @property
    def last(self) -> tuple[model.Tensors, Made] | None:
        """The script's last model, and the global model that was made from it; None without tensors."""
        if self._previous is None:
            return None
        local, made = self._previous.local.tensors, self._previous.made
        return (local, made) if not self._parts else (self.shared(local), Made(each := self.shared(made.tensors), each))

    def _look_for_training(self, round_: int, given: model.Tensors, handed_in: model.Tensors) -> None:
        if same := model.unchanged(given, handed_in):
            self._report.failed(TRAINS, f"round {round_}: what was handed in is the global model, {same}")
        self._report.passed(TRAINS)

    def remember(self, local: Checkpoint, made: Made) -> None:
        """Keep the models that the next round's model is compared with."""
        self._previous = _Round(local, made)

    def _give_up(self, check: Check, detail: str, *, hint: str | None = None) -> NoReturn:
        self._report.failed(check, detail, hint=hint)
        raise Over


def _without(error: Exception, path: Path) -> str:
    """Return the message without the path at its beginning, which is a copy's path or known."""
    return str(error).removeprefix(f"{path}: ")
