"""The base class of events; `flavor.view.events` has the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

from flavor.records.names import count


@dataclass(frozen=True)
class Event:
    """Something that has happened in a run."""

    name: ClassVar[str] = ""
    """The event's name in the log; '' for an event that is not logged."""
    blocks: ClassVar[bool] = False
    """Whether the event's process cannot go on until something around the process changes."""
    reason: str
    is_routine: bool = field(default=False, kw_only=True)
    """Whether a terminal leaves it out."""
    run: str = field(default="", kw_only=True)
    """The run that the event is about; '' where its observer hears of one run only."""

    @property
    def run_named(self) -> str:
        """The run with its name; "the run" where the name is not known."""
        return f"run {self.run!r}" if self.run else "the run"

    @property
    def line(self) -> str:
        """The line that people read who look at one run."""
        return self.reason

    @classmethod
    def from_entry(cls, entry: Mapping[str, str]) -> Self:
        """Make the event that an entry of the log stores."""
        known: dict[str, object] = {"reason": entry.get("reason", "")}
        names = {each.name for each in fields(cls)}
        if "client" in names:
            known["client"] = entry.get("client", "")
        if "round" in names:
            known["round"] = count(entry.get("round"))
        if "number" in names:
            known["number"] = count(entry.get("evaluation"))
        return cls(**known)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Notice(Event):
    """A line for people, which no program needs to know."""


@dataclass(frozen=True)
class Unknown(Event):
    """An entry of the log whose event this release does not know, because a newer one has written it."""

    entry: Mapping[str, str] = field(default_factory=dict)
