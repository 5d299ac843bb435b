"""An evaluation that the coordinator has given up because something went wrong, as people read of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flavor.records.damage import damage_in, table
from flavor.records.evaluation import CENTRAL
from flavor.records.numbers import whole
from flavor.records.subject import OfModel, Subject

_LONGEST_REASON = 300


@dataclass(frozen=True)
class FailedEvaluation(OfModel):
    """An evaluation without a result, kept for as long as the run is in Redis."""

    round: int
    number: int
    opened_ms: int
    reason: str
    """The reason in the log, which names the model."""
    over_ms: int = 0
    """When it was given up, by the server's clock."""
    in_a_row: int = 1
    """How many of its kind have failed since the last one with a result, with this one."""
    of: Subject | None = None
    """Which model it is; None for that of the round."""

    @property
    def is_central(self) -> bool:
        """Whether it was on the operator's own data."""
        return self.number == CENTRAL

    @property
    def sentence(self) -> str:
        """Say how many have failed, and why the newest has."""
        if self.in_a_row == 1:
            return f"no result: {self.reason}"
        where = " on the operator's own data" if self.is_central else " by the sites"
        return f"the last {self.in_a_row} evaluations{where} have no result, the newest: {self.reason}"

    def to_json(self) -> str:
        """Write it without `over_ms` and `in_a_row`, which `give_up_evaluation.lua` puts before it."""
        kept: dict[str, Any] = {"round": self.round, "number": self.number, "opened_ms": self.opened_ms}
        if self.of is not None:
            kept["subject"] = self.of.to_plain()
        return json.dumps({**kept, "reason": self.reason[:_LONGEST_REASON]}, separators=(",", ":"))

    def kept(self) -> dict[str, Any]:
        """Return what `from_json` reads, as plain values."""
        return {"in_a_row": self.in_a_row, "over_ms": self.over_ms, **json.loads(self.to_json())}

    def described(self) -> dict[str, Any]:
        """Return what JSON for programs has of it."""
        names = ("round", "is_central", "in_a_row", "reason", "over_ms", "sentence")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_json(cls, text: str) -> FailedEvaluation:
        """Read what stands in Redis. Raises `DamagedRecord`."""
        with damage_in("failed evaluation"):
            fields = table(text)
            numbers = {
                name: whole(fields.get(name)) for name in ("round", "number", "opened_ms", "over_ms", "in_a_row")
            }
            of = Subject.of_fields(fields, numbers["round"])
            return cls(**numbers, reason=str(fields.get("reason", "")), of=of)
