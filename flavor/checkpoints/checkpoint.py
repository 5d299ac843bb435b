"""A trainer's checkpoint in the form that the rest of the project uses: flat tensors, and their nesting."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.detection import detect_mapped
from flavor.checkpoints.dtypes import DType
from flavor.checkpoints.format import Format
from flavor.checkpoints.limits import is_bomb
from flavor.checkpoints.mapped import Mapped
from flavor.checkpoints.npz import read_npz, write_npz
from flavor.checkpoints.safetensors.folder import read_folder
from flavor.checkpoints.safetensors.header import TensorSpec
from flavor.checkpoints.safetensors.reader import TensorFile
from flavor.checkpoints.safetensors.writer import TensorFileWriter
from flavor.checkpoints.state_dict.beside import Beside, beside_of
from flavor.checkpoints.state_dict.nesting import flatten, state_dict_of
from flavor.checkpoints.state_dict.structure import LeafKind, Structure
from flavor.checkpoints.torch.reader import load_pickle, load_torch
from flavor.checkpoints.torch.writer import write_pickle, write_torch
from flavor.disk import StrPath
from flavor.errors import CheckpointError
from flavor.saved import weights_in

STRUCTURE_KEY = "flavor.structure"
ENCODING_KEY = "flavor.encoding"
SCALE_PREFIX = "flavor.scale/"
"""Names of the tensors that an encoded update holds beside the model's."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one state_dict, flat, under unique names, in the trainer's order.

    Arrays that were read are views of the mapped file where the format allows it, and strided where the trainer's
    tensor was. `structure` is None for a flat dict of tensors. `metadata` is the free text of a safetensors file.
    `beside` holds the other content of a torch file or a pickle, for its own site alone; `left_out` names the parts of
    it that cannot be kept.
    """

    tensors: dict[str, Array]
    structure: Structure | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    beside: Beside = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def specs(self) -> list[TensorSpec]:
        """Name, element type and shape of each tensor."""
        return [TensorSpec(name, array.dtype, array.shape) for name, array in self.tensors.items()]


def read(path: StrPath, fmt: Format | None = None) -> Checkpoint:
    """Read the `state_dict` of a checkpoint without torch, and without running anything in it.

    A folder of safetensors files is read as one checkpoint. The content tells the format unless it is given. In
    safetensors and npz, which have no such key, every tensor
    belongs to the state_dict. Raises `CheckpointError` for a file that cannot be read.
    """
    if weights_in(Path(path)):
        return _read_folder(path, fmt)
    source = Mapped(path)
    fmt = fmt or detect_mapped(source)
    if fmt is Format.SAFETENSORS:
        return _read_safetensors(TensorFile(source))
    beside: tuple[Beside, tuple[str, ...]] = ({}, ())
    if fmt is Format.NPZ:
        tensors, structure = read_npz(source)
    else:
        root = load_torch(source) if fmt is Format.TORCH else load_pickle(source)
        native = LeafKind.TORCH if fmt is Format.TORCH else LeafKind.NUMPY
        tensors, structure = flatten(state_dict_of(root, source.name), source.name, native)
        beside = beside_of(root)
    claimed, size = sum(array.nbytes for array in tensors.values()), len(source.view)
    if is_bomb(claimed, size):  # many tensors that look at the same bytes
        raise CheckpointError(
            f"{source.name}: its tensors claim {claimed} bytes, the file has {size};"
            " save their contiguous() values, and what is shared once"
        )
    return Checkpoint(tensors, structure, beside=beside[0], left_out=beside[1])


def write(path: StrPath, checkpoint: Checkpoint, fmt: Format) -> None:
    """Write `{"state_dict": ..., **beside}`, nested as it was, in a format that the format's own library reads.

    safetensors and npz hold only the tensors. The file appears whole or not at all. Raises `CheckpointError` for
    content that the format cannot hold (bfloat16 in an npz) and for tensors that do not fit the structure, `StoreError`
    where the disk fails.
    """
    where = os.fspath(path)
    tensors, structure = checkpoint.tensors, checkpoint.structure
    match fmt:
        case Format.TORCH:
            write_torch(path, tensors, structure, where, checkpoint.beside)
        case Format.PICKLE:
            write_pickle(path, tensors, structure, where, checkpoint.beside)
        case Format.NPZ:
            write_npz(path, tensors, structure, where)
        case Format.SAFETENSORS:
            with TensorFileWriter(path, checkpoint.specs, safetensors_metadata(checkpoint)) as writer:
                fill(writer, checkpoint)


def describe(path: StrPath) -> dict[str, tuple[DType, tuple[int, ...]]]:
    """Return the element type and shape of each tensor of a checkpoint; does not read values of uncompressed files."""
    return {name: (array.dtype, array.shape) for name, array in read(path).tensors.items()}


def safetensors_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the metadata of a safetensors file: the trainer's own, and the structure as JSON if there is one."""
    metadata = dict(checkpoint.metadata)
    if checkpoint.structure is not None:
        metadata[STRUCTURE_KEY] = checkpoint.structure.to_json()
    return metadata


def fill(writer: TensorFileWriter, checkpoint: Checkpoint) -> None:
    """Write all tensors in the writer's order."""
    for spec in writer.specs:
        writer.write(spec.name, checkpoint.tensors[spec.name])


def _read_folder(path: StrPath, fmt: Format | None) -> Checkpoint:
    if fmt not in (None, Format.SAFETENSORS):
        raise CheckpointError(f"{os.fspath(path)}: a folder has safetensors files, and not {fmt}; save one file")
    model = read_folder(path)
    metadata = {key: text for key, text in model.metadata.items() if key not in (STRUCTURE_KEY, ENCODING_KEY)}
    if ENCODING_KEY in model.metadata:
        raise CheckpointError(f"{os.fspath(path)}: a compressed update, a difference to a global model")
    return Checkpoint(model.tensors, None, metadata)


def _read_safetensors(file: TensorFile) -> Checkpoint:
    metadata = file.metadata
    if ENCODING_KEY in metadata:
        raise CheckpointError(f"{file.path}: a compressed update, a difference to a global model, and no checkpoint")
    text = metadata.pop(STRUCTURE_KEY, None)
    structure = None if text is None else Structure.from_json(text, file.path)
    if structure is not None and structure.root is not None:
        structure.check(file.names, file.path)
    return Checkpoint({name: file.tensor(name) for name in file.names}, structure, metadata)
