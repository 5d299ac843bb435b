"""One site's side of a kind of checkpoint: between its trainer's files and the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from flavor.patterns import STATISTICS


@dataclass(frozen=True)
class Habits:
    """How a client's trainer saves its checkpoints: what an edge that is started again needs to know."""

    command: str = ""
    """The trainer's command, to which all this applies."""
    format: str = ""
    structure: str = ""
    """The nesting of its state_dict, as JSON; '' when none was seen."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names on the wire to the trainer's own, where a prefix is taken off."""


@dataclass(frozen=True)
class SiteOptions:
    """What a site and its run have chosen."""

    beside: Path
    """The edge's own file, in which the site keeps what no other site may see of a checkpoint."""
    format: str | None = None
    """The trainer's format, where the site names it."""
    compress: Literal["none", "bf16", "int8"] = "none"
    statistics: Sequence[str] = STATISTICS
    """Patterns of the tensors that are never compressed."""
    bare: bool = False
    """Take the prefixes of wrappers off the names of tensors, and put them back on the global model."""
    habits: Habits = Habits()
    tell: Callable[[str], None] = print


@dataclass(frozen=True, slots=True)
class Wire:
    """A file that is ready for the store."""

    digest: str
    size_bytes: int
    format: str
    """The format of the trainer's file, in which it wants the global model back."""


@dataclass(frozen=True, slots=True)
class Given:
    """The global model that the trainer was given, as a file from the wire."""

    path: Path
    digest: str


class Site(Protocol):
    """The checkpoints of one trainer. Each method raises `CheckpointError` for a file that cannot be used."""

    @property
    def habits(self) -> Habits:
        """What is known by now of how the trainer saves."""

    @property
    def needs_given(self) -> bool:
        """Whether `to_wire` needs the global model."""

    def may_share(self, source: Path) -> bool:
        """Whether the trainer's file may itself be what is sent."""

    def taken(self, path: Path) -> Wire | None:
        """Describe a trainer's file that is to be sent as it is; None if it has to go through `to_wire` after all."""

    def to_wire(self, source: Path, target: Path, given: Given | None) -> Wire:
        """Write what is sent of the trainer's file `source` to `target`."""

    def is_placed_as_it_is(self, format_: str) -> bool:
        """Whether the trainer reads the global model as it crosses the wire; `format_` is that of most sites."""

    def check(self, path: Path) -> None:
        """Look at a global model before the trainer is given it."""

    def from_wire(self, source: Path, target: Path, format_: str) -> None:
        """Write the global model `source` to `target` as the trainer reads it, after `check`."""
