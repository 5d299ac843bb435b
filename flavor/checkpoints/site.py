"""One site's side of a kind of checkpoint: between its trainer's files and the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from flavor.parts import WHOLE, Parts
from flavor.patterns import STATISTICS
from flavor.records.remarks import Remark

OWN_FOLDER = "folder"
"""The name of the edge's own notes on folders of shards; they lie beside `SiteOptions.beside`."""


@dataclass(frozen=True)
class Habits:
    """How a client's trainer saves its checkpoints: a restarted edge needs to know it."""

    command: str = ""
    """The trainer's command, to which the habits belong."""
    format: str = ""
    structure: str = ""
    """The nesting of its state_dict, as JSON; '' when none was seen."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names on the wire to the trainer's own names, where a prefix is removed."""


@dataclass
class OwnFiles:
    """Where an edge keeps the tensors that its site does not share (`flavor.checkpoints.own_tensors`)."""

    folder: Path
    run_id: str
    """The run to which they belong: those of another run are not used."""
    initial: Callable[[], Path] | None = None
    """Returns the file of the whole initial model, which it fetches the first time; None in a run without one."""
    round: int | None = None
    """The round that is trained, before which the tensors are wanted; None for the newest ones."""


@dataclass(frozen=True)
class SiteOptions:
    """The settings of a site and its run."""

    beside: Path
    """The edge's own file for the parts of a checkpoint that no other site may see."""
    format: str | None = None
    """The trainer's format, where the site names it."""
    compress: Literal["none", "bf16", "int8"] = "none"
    statistics: Sequence[str] = STATISTICS
    """Patterns of the tensors that are never compressed."""
    bare: bool = False
    """Remove the prefixes of wrappers from the names of tensors, and restore them on the global model."""
    habits: Habits = Habits()
    parts: Parts = WHOLE
    """Which tensors are shared."""
    own: OwnFiles | None = None
    """The files of the tensors that are not; None where all are shared."""
    tell: Callable[[str], None] = print
    remark: Callable[[Remark], None] = lambda _: None
    """Is told the class of each warning, for the run's operator."""

    @property
    def own_folder(self) -> Path:
        """The edge's own notes on the folders that the trainer saves."""
        return self.beside.with_name(OWN_FOLDER)


@dataclass(frozen=True, slots=True)
class Wire:
    """A file that is ready for the store."""

    digest: str
    size_bytes: int
    format: str
    """The format of the trainer's file; the trainer wants the global model in the same format."""


@dataclass(frozen=True, slots=True)
class Given:
    """The global model that the trainer was given, as a file from the wire."""

    path: Path
    digest: str


class Site(Protocol):
    """The checkpoints of one trainer. Each method raises `CheckpointError` for a file that cannot be used."""

    @property
    def habits(self) -> Habits:
        """What is known by now about how the trainer saves."""

    @property
    def needs_given(self) -> bool:
        """Whether `to_wire` needs the global model."""

    def may_share(self, source: Path) -> bool:
        """Whether the trainer's file itself may be sent."""

    def taken(self, path: Path) -> Wire | None:
        """Describe a trainer's file that can be sent as it is; None if it has to go through `to_wire`."""

    def to_wire(self, source: Path, target: Path, given: Given | None) -> Wire:
        """Write the form of the trainer's file `source` that is sent to `target`."""

    def is_placed_as_it_is(self, format_: str) -> bool:
        """Return whether the trainer reads the global model as it crosses the wire; `format_` is that of most sites."""

    def check(self, path: Path) -> None:
        """Inspect a global model before the trainer is given it."""

    def from_wire(self, source: Path, target: Path, format_: str) -> None:
        """Write the global model `source` to `target` as the trainer reads it, after `check`."""
