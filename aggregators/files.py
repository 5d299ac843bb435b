"""Checkpoint files as the models of `aggregate`: any format in, one file out.

The engine knows no files. Here files become arrays, as views of the mapped file where the format allows it (safetensors
always does). Nothing that a pickle names is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from aggregators.dtypes import Array
from aggregators.engine import Aggregation, Sink
from flavor.checkpoints import Checkpoint, Format, TensorFile, TensorFileWriter, TensorSpec, detect, read, write
from flavor.checkpoints.checkpoint import safetensors_metadata
from flavor.errors import InvalidSetting

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class ModelFile:
    """An open checkpoint and its format."""

    checkpoint: Checkpoint
    format: Format

    @classmethod
    def open(cls, path: StrPath) -> ModelFile:
        """Map and validate a checkpoint; raises `CheckpointError`."""
        fmt = detect(path)
        return cls(read(path, fmt), fmt)


def write_result(
    path: StrPath,
    like: ModelFile | None,
    first: dict[str, Array],
    fmt: str | None,
    compute: Callable[[Sink], Aggregation],
) -> Aggregation:
    """Write what `compute` makes to `path`, whole or not at all, and return it.

    `compute` is handed the arrays of the mapped new file, or None where the format is written from memory. The
    nesting, the order and, unless `fmt` says otherwise, the format are those of `like`; without it a flat
    safetensors file of the tensors of `first`, the first client's, is made. The model returned from a safetensors
    file is that file, mapped read-only.

    Raises:
        InvalidSetting: `fmt` is no format.
        CheckpointError: the format cannot hold the result.
        StoreError: the disk does not take it.

    """
    target = _format(fmt) if fmt is not None else like.format if like is not None else Format.SAFETENSORS
    frame = like.checkpoint if like is not None else Checkpoint(first)
    if target is not Format.SAFETENSORS:
        result = compute(None)
        write(path, replace(frame, tensors={name: result.model[name] for name in frame.tensors}), target)
        return result
    specs = [TensorSpec(name, first[name].dtype, first[name].shape) for name in frame.tensors if name in first]
    with TensorFileWriter(path, specs, safetensors_metadata(frame)) as writer:
        result = compute(writer.map())
    file = TensorFile.open(path)
    return replace(result, model={name: file.tensor(name) for name in result.model})


def _format(name: str) -> Format:
    try:
        return Format(name)
    except ValueError:
        raise InvalidSetting(f"unknown format {name!r}; there are: {', '.join(Format)}") from None
