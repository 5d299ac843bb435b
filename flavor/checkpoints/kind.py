"""The protocol of a kind of checkpoint: `CheckpointKind`.

A run names its kind by `--checkpoint`. Two are built in: `tensors.Tensors` and `opaque.Opaque`. A package adds a kind
by an entry point of the group `flavor.checkpoints`: the kind's name, and a class without arguments. Derive the class
from `opaque.PlainFile` where the user's own aggregator reads the files.

A kind does not choose how updates become a model: its updates go to the rule of the run, or, where the kind has no
tensors, to the user's own aggregator. CONTRIBUTING.md says what masked updates need beside a kind. Parts of a model
(`--share`, `--local`) are for the kind `tensors` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from flavor.checkpoints.site import Site, SiteOptions, Wire


@runtime_checkable
class CheckpointKind(Protocol):
    """One kind of checkpoint. Each method raises `CheckpointError`, in one line, for a file that cannot be used.

    A kind is imported where an edge or a command starts, so its module imports what it needs inside its methods.
    """

    @property
    def name(self) -> str:
        """The name in `--checkpoint`."""

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that a trainer may save, by their names in an update's record."""

    @property
    def wire_format(self) -> str:
        """The format that crosses the wire, one of `formats`."""

    @property
    def object_extension(self) -> str:
        """The extension of its objects in the store, with the dot."""

    @property
    def has_tensors(self) -> bool:
        """Whether safetensors crosses the wire, so that every rule can aggregate it and every bound applies.

        Other kinds need an aggregator of the user's own.
        """

    @property
    def is_inspected(self) -> bool:
        """Whether `inspect` and `compare` read the file; the file is then copied first."""

    @property
    def is_safe(self) -> bool:
        """Whether a trainer may load what `from_wire` has written although it does not trust the coordinator.

        Where False, each site has to agree by `--opaque`.
        """

    def extension(self, format_: str = "") -> str:
        """Return the extension of a trainer's file in this format, with the dot; '' is a format not known yet."""

    def describe(self, path: Path) -> str:
        """Describe the content of a trainer's file in a few words."""

    def to_wire(self, source: Path, target: Path) -> Wire:
        """Write a trainer's file, or an aggregator's, in the form that crosses the wire."""

    def from_wire(self, source: Path, target: Path, format_: str) -> None:
        """Write a file from the wire in a trainer's format."""

    def inspect(self, path: Path) -> None:
        """Inspect a whole file from the wire. The error does not name the file, which is a copy."""

    def compare(self, path: Path, reference: Path, whose: str) -> str:
        """Return why a file from the wire cannot be aggregated with another one, `reference`; '' if it can.

        `whose` names the reference: "the global model".
        """

    def site(self, options: SiteOptions) -> Site:
        """Return the site's side of this kind."""
