"""Checkpoints of the kind `opaque`: any bytes, which only the trainer and its own aggregator read."""

from __future__ import annotations

import shutil
from pathlib import Path

from flavor.checkpoints.digests import copy_and_digest, digest_of
from flavor.checkpoints.format import ANY_EXTENSION, OBJECT_EXTENSION
from flavor.checkpoints.site import Given, Habits, Site, SiteOptions, Wire
from flavor.errors import CheckpointError

NAME = "opaque"


class PlainFile:
    """A `CheckpointKind` whose files cross the wire unchanged. A package's kind derives from it, with a `name`."""

    name: str
    is_inspected = True
    object_extension = OBJECT_EXTENSION
    has_tensors = False
    is_safe = False

    @property
    def formats(self) -> tuple[str, ...]:
        """See `CheckpointKind`."""
        return (self.name,)

    @property
    def wire_format(self) -> str:
        """See `CheckpointKind`."""
        return self.name

    def extension(self, format_: str = "") -> str:
        """See `CheckpointKind`."""
        return ANY_EXTENSION

    def describe(self, path: Path) -> str:
        """See `CheckpointKind`."""
        try:
            self.inspect(path)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        return f"{path.stat().st_size} bytes"

    def to_wire(self, source: Path, target: Path) -> Wire:
        """See `CheckpointKind`."""
        return Wire(*copy_and_digest(source, target), self.wire_format)

    def from_wire(self, source: Path, target: Path, format_: str) -> None:
        """See `CheckpointKind`."""
        shutil.copyfile(source, target)

    def inspect(self, path: Path) -> None:
        """See `CheckpointKind`. A package's kind raises what is wrong."""

    def compare(self, path: Path, reference: Path, whose: str) -> str:
        """See `CheckpointKind`. A package's kind returns what differs."""
        return ""

    def site(self, options: SiteOptions) -> Site:
        """See `CheckpointKind`."""
        return PlainFileSite(self, options)


class Opaque(PlainFile):
    """A `CheckpointKind` of any bytes, which are never inspected."""

    name = NAME
    is_inspected = False


class PlainFileSite:
    """The `Site` of a kind whose files cross the wire unchanged."""

    needs_given = False

    def __init__(self, kind: PlainFile, options: SiteOptions) -> None:
        self._kind = kind
        self.habits: Habits = options.habits

    def may_share(self, source: Path) -> bool:
        """See `Site`."""
        if not source.stat().st_size:
            raise CheckpointError(f"{source}: empty: save the checkpoint before SetEvent('TrainFinished')")
        return True

    def taken(self, path: Path) -> Wire:
        """See `Site`."""
        return Wire(*digest_of(path), self._kind.wire_format)

    def to_wire(self, source: Path, target: Path, given: Given | None) -> Wire:
        """See `Site`."""
        return self._kind.to_wire(source, target)

    def is_placed_as_it_is(self, format_: str) -> bool:
        """See `Site`."""
        return True

    def check(self, path: Path) -> None:
        """See `Site`."""
        self._kind.inspect(path)

    def from_wire(self, source: Path, target: Path, format_: str) -> None:
        """See `Site`."""
        self._kind.from_wire(source, target, format_)
