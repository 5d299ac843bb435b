"""The step between a trainer's rounds in a check, which makes the next global model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flavor.atomic import write_json
from flavor.check import model
from flavor.check.fake_bus import CLIENT
from flavor.checkpoints import Checkpoint, Format, write
from flavor.parts import WHOLE, Parts
from flavor.records.info import FILE_NAME, Info
from flavor.records.merging import merge_infos, summed


@dataclass(frozen=True)
class Sent:
    """The trainer's update: the file, its content (None if it has no tensors), and its info if valid."""

    path: Path
    content: tuple[Checkpoint, Format] | None
    info: Info | None


@dataclass(frozen=True)
class Made:
    """A global model, and the model whose weights moved with coins that the trainer cannot know.

    The two are the same where this program aggregates.
    """

    tensors: model.Tensors
    coins: model.Tensors


class Aggregation(Protocol):
    """Makes the global model of a round at a path, with the merged info.json beside it. May raise `Over`."""

    def start(self) -> None:
        """Prepare, before the trainer is started."""

    def watch(self) -> None:
        """Look after the aggregator; called repeatedly while the trainer is waited for."""

    def make(self, round_: int, sent: Sent, target: Path) -> Made | None:
        """Aggregate a round; return None if the content is not inspected."""

    def taken_up(self, round_: int, *, finished: bool) -> None:
        """Record whether the trainer finished `round_`, which began with the global model of the round before."""

    def end(self) -> None:
        """End the aggregator after the last round; the run is marked as finished."""

    def stop(self) -> None:
        """Stop the aggregator at the end of the check, with any result."""


class Mean:
    """Computes the mean of the trainer's model and a second client's. Those not shared stay the trainer's."""

    def __init__(self, parts: Parts = WHOLE) -> None:
        self._parts = parts

    def start(self) -> None:
        """Do nothing: no process starts."""

    def watch(self) -> None:
        """Do nothing: no process runs."""

    def make(self, round_: int, sent: Sent, target: Path) -> Made | None:
        """Write the mean; copy the file if its content is not inspected."""
        if sent.info is not None:
            write_json(target.with_name(FILE_NAME), summed(merge_infos([CLIENT], [sent.info])))
        if sent.content is None:
            shutil.copyfile(sent.path, target)
            return None
        local, format_ = sent.content
        shared = {name: local.tensors[name] for name in self._parts.shared(local.tensors)}
        made = {**local.tensors, **model.mean([shared, model.other(shared, seed=round_)])}
        write(target, Checkpoint(made, local.structure, local.metadata, local.beside), format_)
        return Made(made, made)

    def taken_up(self, round_: int, *, finished: bool) -> None:
        """Do nothing: the trainer's own checks record it."""

    def end(self) -> None:
        """Do nothing: no process ends."""

    def stop(self) -> None:
        """Do nothing: no process runs."""
