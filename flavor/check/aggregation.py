"""What happens between a trainer's rounds in a check: the step that makes the next global model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flavor.atomic import write_json
from flavor.check import model
from flavor.check.fake_bus import CLIENT
from flavor.checkpoints import Checkpoint, Format, write
from flavor.records.info import FILE_NAME, Info, merge_infos, summed


@dataclass(frozen=True)
class Sent:
    """What the trainer has sent in: the file, its content (None if it has no tensors), and its info if valid."""

    path: Path
    content: tuple[Checkpoint, Format] | None
    info: Info | None


@dataclass(frozen=True)
class Made:
    """A global model, and the models whose weights moved with the coins that the trainer cannot know.

    The two are the same where this program aggregates.
    """

    tensors: model.Tensors
    coins: model.Tensors


class Aggregation(Protocol):
    """Makes the global model of a round, at a path, with the merged info.json beside it. May raise `Over`."""

    def start(self) -> None:
        """Before the trainer is started."""

    def watch(self) -> None:
        """While the trainer is waited for, again and again."""

    def make(self, round_: int, sent: Sent, target: Path) -> Made | None:
        """Aggregate a round; None if the content is not looked at."""

    def taken_up(self, round_: int, *, finished: bool) -> None:
        """Whether the trainer has finished `round_`, which began with the global model of the round before."""

    def end(self) -> None:
        """After the last round, the run being marked as finished."""

    def stop(self) -> None:
        """At the end of the check, however it came out."""


class Mean:
    """The mean of the trainer's model and a second client's, made here."""

    def start(self) -> None:
        """Nothing has to start."""

    def watch(self) -> None:
        """Nothing runs."""

    def make(self, round_: int, sent: Sent, target: Path) -> Made | None:
        """The mean; the same bytes again if their content is not looked at."""
        if sent.info is not None:
            write_json(target.with_name(FILE_NAME), summed(merge_infos([CLIENT], [sent.info])))
        if sent.content is None:
            shutil.copyfile(sent.path, target)
            return None
        local, format_ = sent.content
        made = model.mean([local.tensors, model.other(local.tensors, seed=round_)])
        write(target, Checkpoint(made, local.structure, local.metadata), format_)
        return Made(made, made)

    def taken_up(self, round_: int, *, finished: bool) -> None:
        """The trainer's own checks say that."""

    def end(self) -> None:
        """Nothing has to end."""

    def stop(self) -> None:
        """Nothing runs."""
