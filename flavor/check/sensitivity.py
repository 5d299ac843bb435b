"""Whether a global model follows each local model, tried by running the command again.

A command that was kept since round one remembers: with momentum, say, its second model depends on its first inputs,
so running it again in the same process shows nothing, and neither does a process that begins with round two. So each
trial is a whole life: a fresh process, with a bus and an `$OUTPUT_PATH` of its own, is given the same rounds from the
first on, and only in the last of them is a local model another one. Whatever the command keeps, it has kept the same,
and what differs comes from the change, or from chance, which a life without any change measures.

The round that is tried is the first that can tell: round one for a command that is started anew, with tensors. For one
that is started once it is round two, in which it may be stuck with what it has read in round one; for opaque files,
too, because before round two there is only one of them.
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

    new_life: Callable[[Path, str], Life]
    """A life in a folder, whose log has this name."""
    folder: Path
    history: Sequence[CheckedFiles]
    """The rounds before."""
    files: CheckedFiles
    look_at: LookAt[Result]

    def __call__(self, name: str, changes: Mapping[int, Writer], sizes: Sequence[int] | None = None) -> Result:
        """What comes out when these local models are changed, by index; raises `Over` if that is no model.

        With `sizes` the clients of these models have so many examples in the round that is tried.
        """
        folder = self.folder / name
        life = self.new_life(folder, f"aggregator-{name}")
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
