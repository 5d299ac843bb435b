"""Marks what a training script has saved at the moment when it sets TrainFinished.

The script's process writes the mark to a hidden file beside `$LOCAL_MODEL_PATH`, before it sets the event. The edge
compares the mark with the files that it hands in. A script with an older `flavor.cook` leaves no mark.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

from flavor.atomic import write_json
from flavor.records.info import FILE_NAME
from flavor.saved import saved_mark, weights_in

_NAME = ".flavor-finished.json"
_TAIL_NS = 777
"""The last digits of a marked file's time of modification; a clock of ticks hardly ever gives them."""


class FinishedMark(NamedTuple):
    """The files at TrainFinished: inode, size and time of modification of each; None for what is no plain file."""

    model: tuple[int, ...] | None
    info: tuple[int, ...] | None
    read_ns: int | None
    """The access time of the global model; None for none."""

    def rewritten(self, local_model: Path) -> Path | None:
        """Return the file that was written to since then; None if each is as it was, or is not there."""
        for path, before in ((local_model, self.model), (local_model.with_name(FILE_NAME), self.info)):
            if before is not None and saved_mark(path) not in (None, before):
                return path
        return None


def mark_path(local_model: Path) -> Path:
    """Return the file of the mark."""
    return local_model.with_name(_NAME)


def write_mark(local_model: Path, global_model: Path, round_: int) -> bool:
    """Mark the files of this round as they are now; returns False where this round has a mark, which stays.

    Sets the last digits of the time of modification of a plain file that has no other name: with a clock of several
    milliseconds, a write that follows at once would leave the same time. Without the right to write there is no mark.
    """
    if read_mark(local_model, round_) is not None:
        return False
    for path in (local_model, local_model.with_name(FILE_NAME)):
        for file in weights_in(path) or [path]:
            _set_tail(file)
    read_ns = None
    with contextlib.suppress(OSError):
        read_ns = global_model.stat().st_atime_ns
    made = FinishedMark(saved_mark(local_model), saved_mark(local_model.with_name(FILE_NAME)), read_ns)
    try:
        write_json(mark_path(local_model), {"round": round_, **made._asdict()})
    except OSError:
        return False
    return True


def read_mark(local_model: Path, round_: int) -> FinishedMark | None:
    """Return the mark of this round; None where the script left none, or has written something else there."""
    try:
        found = json.loads(mark_path(local_model).read_text(encoding="utf-8"))
        if found["round"] != round_:
            return None
        model, info = (None if found[name] is None else tuple(found[name]) for name in ("model", "info"))
        return FinishedMark(model, info, found["read_ns"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _set_tail(path: Path) -> None:
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_mtime_ns % 1000 != _TAIL_NS:
            changed_ns = found.st_mtime_ns - found.st_mtime_ns % 1000 + _TAIL_NS
            os.utime(path, ns=(found.st_atime_ns, changed_ns))
