"""What the checkpoints of a run are, as everything else asks for it: `CheckpointKind`.

A run names its kind by `--checkpoint`. Two are built in: `tensors.Tensors` and `opaque.Opaque`. A package adds one by
an entry point of the group `flavor.checkpoints`: the kind's name, and a class without arguments. Derive the class from
`opaque.PlainFile` where the user's own aggregator reads the files.

Masked updates are to be a kind whose `to_wire` masks and whose aggregation unmasks the sum; parts of a model are to be
tensors whose `compare` accepts a subset of the names.
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
        """What `--checkpoint` calls it."""

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that a trainer may save, by the names that an update's record has."""

    @property
    def wire_format(self) -> str:
        """The one of them that crosses the wire."""

    @property
    def object_extension(self) -> str:
        """The extension of its objects in the store, with the dot."""

    @property
    def has_tensors(self) -> bool:
        """Whether what crosses the wire is safetensors, so that every rule can aggregate it and every bound applies.

        All others need an aggregator of the user's own.
        """

    @property
    def is_inspected(self) -> bool:
        """Whether `inspect` and `compare` look at anything: what they look at is copied before."""

    @property
    def is_safe(self) -> bool:
        """Whether a trainer may load what `from_wire` has written although it does not trust the coordinator.

        For a kind that is not, each site has to agree by `--opaque`.
        """

    def extension(self, format_: str = "") -> str:
        """Return the extension of a trainer's file in this format, with the dot; '' is a format not known yet."""

    def describe(self, path: Path) -> str:
        """Say in a few words what a trainer's file holds."""

    def to_wire(self, source: Path, target: Path) -> Wire:
        """Write a trainer's file, or an aggregator's, as it crosses the wire."""

    def from_wire(self, source: Path, target: Path, format_: str) -> None:
        """Write a file from the wire in a trainer's format."""

    def inspect(self, path: Path) -> None:
        """Look at a file from the wire as a whole. The error does not name the file: it is a copy's."""

    def compare(self, path: Path, reference: Path, whose: str) -> str:
        """Say why a file from the wire cannot be aggregated with `reference`, another one; '' if it can.

        `whose` names the reference: "the global model".
        """

    def site(self, options: SiteOptions) -> Site:
        """Return a site's side of it."""
