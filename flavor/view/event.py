"""Something that happens in a run, as a value: see `flavor.view.events` for the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

from flavor.records.names import count


@dataclass(frozen=True)
class Event:
    """Something that has happened."""

    name: ClassVar[str] = ""
    """In the log; '' for what is not logged."""
    reason: str
    is_routine: bool = field(default=False, kw_only=True)
    """Whether a terminal need not show it."""
    run: str = field(default="", kw_only=True)
    """The run that it is about; '' where its observer hears of one run alone."""

    @property
    def line(self) -> str:
        """For people who look at one run."""
        return self.reason

    def to_entry(self) -> dict[str, str]:
        """As an entry of the log."""
        entry = {"event": self.name, "reason": self.reason}
        entry |= {"client": client} if (client := getattr(self, "client", "")) else {}
        return entry | ({"round": str(number)} if (number := getattr(self, "round", None)) is not None else {})

    @classmethod
    def from_entry(cls, entry: Mapping[str, str]) -> Self:
        """From an entry of the log."""
        known: dict[str, object] = {"reason": entry.get("reason", "")}
        names = {each.name for each in fields(cls)}
        if "client" in names:
            known["client"] = entry.get("client", "")
        if "round" in names:
            known["round"] = count(entry.get("round"))
        return cls(**known)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Notice(Event):
    """Something that people are told, and no program needs to know."""


@dataclass(frozen=True)
class Unknown(Event):
    """An entry that a newer release has written."""

    entry: Mapping[str, str] = field(default_factory=dict)

    def to_entry(self) -> dict[str, str]:
        """See `Event`."""
        return dict(self.entry)
