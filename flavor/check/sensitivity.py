"""Run the command again to see whether a global model follows each local model.

A command that was kept since round one has a memory: with momentum, for example, its second model depends on its first
inputs. So running it again in the same process shows nothing, and neither does a process that begins with round two.
Each trial is therefore a whole life: a fresh process, with a bus and an `$OUTPUT_PATH` of its own, is given the same
rounds from the first on, and a local model is changed in the last round only. The command's memory is then the same, so
a difference comes from the change or from chance. A life without any change measures the chance.

The tried round is the first one that can show the difference. For a command that is started in each round, with
tensors, it is round one. For a command that is started once it is round two, in which the command may still use what it
read in round one. For opaque files it is round two as well, because before it there is only one file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from flavor.check.aggregator_process import Life
from flavor.check.round_files import CheckedFiles, Writer

Result = TypeVar("Result")
_NONE: Mapping[int, Writer] = {}
LookAt = Callable[[Life, CheckedFiles, str], Result]


@dataclass(frozen=True)
class Trial(Generic[Result]):
    """Runs a round again, after those before it."""

    new_life: Callable[[Path, str, bool], Life]
    """Makes a life in a folder, with a log of this name; the checks of a private life are in no report."""
    folder: Path
    history: Sequence[CheckedFiles]
    """The files of the rounds before."""
    files: CheckedFiles
    look_at: LookAt[Result]

    def __call__(
        self,
        name: str,
        changes: Mapping[int, Writer],
        sizes: Sequence[int] | None = None,
        *,
        in_private: bool = False,
    ) -> Result:
        """Return the result with these local models changed, by index; raises `Over` if the result is no model.

        With `sizes`, the clients of these models have these numbers of examples in the tried round. With `in_private`,
        no report has what is wrong with the result.
        """
        folder = self.folder / name
        life = self.new_life(folder, f"aggregator-{name}", in_private)
        rounds = [*((files, _NONE) for files in self.history), (self.files, changes)]
        try:
            life.start()
            for round_, (files, change) in enumerate(rounds, start=1):
                others = sizes if files is self.files else None
                again = files.again(folder / f"round-{round_}", change, others)
                where = f"round {round_}, run again ({name})"
                life.aggregate(round_, again, where)
            return self.look_at(life, again, where)
        finally:
            life.stop()
