"""Checkpoints of the kind `tensors`: a `state_dict` in any of the formats, of which safetensors crosses the wire."""

from __future__ import annotations

from pathlib import Path

from flavor.checkpoints.format import ANY_EXTENSION, Format
from flavor.checkpoints.site import Site, SiteOptions, Wire
from flavor.counted import counted
from flavor.errors import CheckpointError

NAME = "tensors"


class Tensors:
    """The `CheckpointKind` of a `state_dict`, whose tensors every rule can aggregate."""

    name = NAME
    formats: tuple[str, ...] = tuple(Format)
    wire_format: str = Format.SAFETENSORS
    object_extension = Format.SAFETENSORS.extension
    has_tensors = is_inspected = True
    is_safe = True

    def extension(self, format_: str = "") -> str:
        """See `CheckpointKind`."""
        return Format(format_).extension if format_ else ANY_EXTENSION

    def describe(self, path: Path) -> str:
        """See `CheckpointKind`."""
        from flavor.checkpoints.checkpoint import describe

        return counted(len(describe(path)), "tensor")

    def to_wire(self, source: Path, target: Path) -> Wire:
        """See `CheckpointKind`. The content tells the format."""
        from flavor.checkpoints.convert import to_safetensors

        info = to_safetensors(source, target)
        return Wire(info.sha256, info.size_bytes, info.format)

    def from_wire(self, source: Path, target: Path, format_: str) -> None:
        """See `CheckpointKind`. The nesting is that in the file."""
        from flavor.checkpoints.convert import from_safetensors

        from_safetensors(source, target, Format(format_))

    def inspect(self, path: Path) -> None:
        """See `CheckpointKind`. Infinities pass, because a mask may hold them by design; NaN does not."""
        import numpy as np

        from flavor.checkpoints.convert import check_metadata
        from flavor.checkpoints.finite import digest_and_check
        from flavor.checkpoints.safetensors.reader import TensorFile

        file = TensorFile.open(path)
        check_metadata(file)
        for name in digest_and_check(file).odd:
            if np.isnan(file.tensor(name)).any():
                raise CheckpointError(f"tensor {name!r} has NaN values")

    def compare(self, path: Path, reference: Path, whose: str) -> str:
        """See `CheckpointKind`. Names, shapes and dtypes must be the same."""
        from flavor.checkpoints.compare import structure_problems
        from flavor.checkpoints.safetensors.reader import TensorFile

        found, expected = ({spec.name: spec for spec in TensorFile.open(each).specs} for each in (path, reference))
        return structure_problems(found, expected, whose)

    def site(self, options: SiteOptions) -> Site:
        """See `CheckpointKind`."""
        from flavor.checkpoints.part_site import PartSite
        from flavor.checkpoints.tensors_site import TensorsSite

        return PartSite(options) if options.parts else TensorsSite(options)
