"""Files of a part of a model: the shared tensors of a checkpoint, and a whole model with shared tensors put into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flavor.checkpoints.checkpoint import Checkpoint, fill, read, safetensors_metadata
from flavor.checkpoints.convert import to_safetensors
from flavor.checkpoints.format import Format
from flavor.checkpoints.safetensors.writer import TensorFileWriter
from flavor.checkpoints.site import Wire
from flavor.errors import CheckpointError
from flavor.parts import Parts


def write_shared(source: Path, target: Path, parts: Parts) -> Wire:
    """Write the shared tensors of a checkpoint as a file of the wire. Raises `CheckpointError`."""
    info = to_safetensors(source, target, parts=parts)
    return Wire(info.sha256, info.size_bytes, info.format)


def complete(shared: Path, whole: Path, target: Path) -> None:
    """Write the model `whole` with the tensors of `shared` in place of its own; all three are files of the wire.

    Raises `CheckpointError` where a tensor of `shared` is not in `whole`.
    """
    given, found = read(shared, Format.SAFETENSORS), read(whole, Format.SAFETENSORS)
    for name in given.tensors:
        if name not in found.tensors:
            raise CheckpointError(f"tensor {name!r} of the global model is not in the initial model")
    made: Checkpoint = replace(found, tensors={**found.tensors, **given.tensors})
    with TensorFileWriter(target, made.specs, safetensors_metadata(made)) as writer:
        fill(writer, made)
