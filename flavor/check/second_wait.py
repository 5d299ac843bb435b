"""Notices a script that calls WaitEvent('TrainStarted') again before it has set TrainFinished."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

_ALONE_S = 2.0
"""How long the only process of a script waits until no other part of the script can be expected to go on."""

AGAIN = "it called WaitEvent('TrainStarted') again before TrainFinished"
ONCE_A_ROUND = (
    "call WaitEvent('TrainStarted') once in each round, and SetEvent('TrainFinished') at its end, once both files are "
    "saved"
)


class SecondWait:
    """Whether the script waits for the next round without having finished the one that has begun.

    Another process of the script may still finish the round. It is certain that none does where the round's model is
    saved, or where the script has one process alone and that one waits.
    """

    def __init__(self, local_model: Path, look: Callable[[], tuple[int, int | None]]) -> None:
        """Of the script that saves this model.

        `look` returns the round that the script has noted as not finished, 0 for none, and the id of its process.
        """
        self._local_model, self._look = local_model, look
        self._round = 0  # that has begun
        self._saved_in: int | None = None  # the round in which it waits although it has saved a model
        self._since: float | None = None

    def begins(self, round_: int) -> None:
        """Say which round begins now."""
        self._round, self._since = round_, None

    def enters_wait(self) -> None:
        """Note that the script waits although it has saved this round's model.

        This runs in the server's thread, while the check may remove the last round's model and begin the next one: the
        round is read first.
        """
        round_ = self._round
        if self._local_model.is_file():
            self._saved_in = round_

    @property
    def is_seen(self) -> bool:
        """Whether a process of the script waits for the next round, while this one is not finished."""
        return self._saved_in == self._round or self._look()[0] == self._round

    @property
    def is_certain(self) -> bool:
        """Whether the round is not going to be finished."""
        if self._saved_in == self._round:
            return True
        unfinished, pid = self._look()
        if unfinished != self._round or not _is_one_process(pid):
            self._since = None
            return False
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since >= _ALONE_S


def _is_one_process(pid: int | None) -> bool:
    """Whether a process has at most one child, which has at most one, and so on; False where that is not known."""
    while pid is not None:
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
            children = [
                int(child) for task in tasks for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            ]
        except (OSError, ValueError):
            return False
        if len(children) > 1:
            return False
        pid = children[0] if children else None
        if pid is None:
            return True
    return False
