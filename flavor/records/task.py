"""The task of a client in a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flavor.records.model import GlobalModel


@dataclass(frozen=True)
class Task:
    """The task of one client in one round, as `give_tasks.lua` writes it."""

    round: int
    base: GlobalModel | None
    """The global model to train from; None in a first round without one."""

    @classmethod
    def from_hash(cls, round_: int, fields: Mapping[str, str]) -> Task | None:
        """Read the task's hash; None where the client has no task in this round.

        Raises `DamagedRecord` where the size of the model is no number.
        """
        return cls(round_, GlobalModel.from_hash(fields)) if fields else None
