"""One round of an aggregator on files without tensors; only their kind can read them.

The local models are the trainer's file of this round, once for each client: all of them were trained from the same
global model, as those of a run are. The trials also use the trainer's file of the round before. Two files are enough to
see whether an aggregator follows each local model, unless it refuses a file that was trained from another global model,
as it may. A rule may rightly ignore one model if the others agree, as the majority
of two equal files out of three does. But an aggregator that gives the same bytes for both choices of a model, with
any other models, does not use that model.
"""

from __future__ import annotations

import filecmp
import functools
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

from flavor.check.aggregation import Made, Sent
from flavor.check.aggregator_checks import FOLLOWS, LOADABLE
from flavor.check.aggregator_process import Life
from flavor.check.round_files import CLIENTS, CheckedFiles, Writer
from flavor.check.script import Over
from flavor.check.sensitivity import Trial
from flavor.checkpoints.kind import CheckpointKind
from flavor.errors import CheckpointError
from flavor.records.info import Info

_Choice = tuple[bool, ...]
"""For each client, whether it has the file of this round; else it has the file of the round before."""
_THIS_ROUND: _Choice = (True,) * len(CLIENTS)
_OR_THEY_SAY_THE_SAME = (
    "read all of GetPaths('localModels'), in each round; "
    "if the script trains the same model in both rounds, and only a date in its files differs, this tells nothing"
)
_NOTHING_MORE = (
    "the global model is the script's own file, whichever files of two rounds it is made of: the script may have "
    "nothing more to learn, so there is no other file to try with"
)
_TAKES_NO_OTHER = (
    "the aggregator takes no file of the round before beside files of this round, so there is no other file to try with"
)


class FileRound:
    """The trainer's file of this round for each client; `before` is its file of the round before."""

    def __init__(self, sent: Sent, info: Info, folder: Path, before: Path | None, kind: CheckpointKind) -> None:
        self._kind = kind
        self._new, self._old = sent.path, before or sent.path
        writers = [self._writer(is_new=True) for _ in CLIENTS]
        self.files = CheckedFiles.lay_out(folder, writers, info, extension=sent.path.suffix)

    def look_at(self, life: Life, files: CheckedFiles, where: str) -> Path:
        """Return the global model, if its kind can read it."""
        try:
            self._kind.describe(files.global_model)
        except CheckpointError as error:
            life.fail(LOADABLE, f"{where}: {str(error).removeprefix(f'{files.global_model}: ')}")
        return files.global_model

    def try_changes(self, life: Life, trial: Trial[Path], made: Path) -> None:
        """Run the round again: on the same files, then with files of the round before in place of some."""
        if _same(self._new, self._old):
            life.report.unclear(
                FOLLOWS, "the script's files of two rounds are the same, so there is no other file to try with"
            )
            return
        if not _same(made, trial("unchanged", {})):
            life.report.unclear(FOLLOWS, "two runs on the same files differ, so a difference shows nothing")
            return

        @functools.cache
        def result(choice: _Choice) -> Path:
            if choice == _THIS_ROUND:
                return made
            other = {i: self._writer(is_new=is_new) for i, is_new in enumerate(choice) if is_new != _THIS_ROUND[i]}
            return trial("-".join("new" if is_new else "old" for is_new in choice), other, in_private=True)

        try:
            followed = [_matters(index, lambda a, b: _same(result(a), result(b))) for index in range(len(CLIENTS))]
        except Over:
            life.report.unclear(FOLLOWS, _TAKES_NO_OTHER)
            return
        deaf = [index for index, is_followed in enumerate(followed) if not is_followed]
        if not deaf:
            life.report.passed(FOLLOWS, f"a change in any of {len(CLIENTS)} shows in it")
        elif len(deaf) == len(CLIENTS) and _same(made, self._new):
            life.report.unclear(FOLLOWS, _NOTHING_MORE)
        elif len(deaf) == len(CLIENTS):
            detail = "the same bytes came out of every choice of the script's files of two rounds"
            life.fail(FOLLOWS, detail, hint=_OR_THEY_SAY_THE_SAME)
        else:
            which = " or ".join(str(index + 1) for index in deaf)
            life.fail(FOLLOWS, f"a change in local model {which} of {len(CLIENTS)} changes nothing")

    def hand_over(self, life: Life, where: str, target: Path) -> None:
        """Copy the global model for the trainer."""
        shutil.copyfile(self.files.global_model, target)

    def total(self, made: Path) -> float | None:
        """Return None: files have no shares."""

    def fail_scale(self, life: Life, where: str, sum_: float) -> None:
        """Do nothing: files have no scale."""

    def made(self, made: Path) -> Made | None:
        """Return None: files are not compared."""

    def _writer(self, *, is_new: bool) -> Writer:
        return functools.partial(shutil.copyfile, self._new if is_new else self._old)


def _matters(index: int, same: Callable[[_Choice, _Choice], bool]) -> bool:
    """Return whether the choice of this client's file changes the result for some choice of the others.

    Tries choices first in which the others disagree.
    """
    others = sorted(itertools.product((True, False), repeat=len(CLIENTS) - 1), key=lambda rest: len(set(rest)) == 1)
    return any(not same((*rest[:index], True, *rest[index:]), (*rest[:index], False, *rest[index:])) for rest in others)


def _same(first: Path, second: Path) -> bool:
    return filecmp.cmp(first, second, shallow=False)
