"""A model in a folder: one safetensors file, or shards with their index, as `save_pretrained` writes and reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flavor.atomic import cannot_write, temporary_beside
from flavor.checkpoints.blocks import Array
from flavor.checkpoints.limits import MAX_HEADER_BYTES
from flavor.checkpoints.safetensors.header import TensorSpec
from flavor.checkpoints.safetensors.reader import TensorFile
from flavor.checkpoints.safetensors.shard_index import ShardIndex, parse_index
from flavor.checkpoints.safetensors.writer import TensorFileWriter
from flavor.disk import StrPath
from flavor.errors import CheckpointError
from flavor.saved import INDEX_ENDING, TORCH_INDEX_ENDING, weights_in
from flavor.watch import current_watch

SHARD_BYTES = 5 * 10**9
"""Largest shard of a folder whose layout no trainer has chosen; a larger tensor has a shard of its own."""
_STEM = "model"


@dataclass(frozen=True)
class ShardedModel:
    """The tensors of one folder. `index_name` is '' for a single file without an index."""

    tensors: dict[str, Array]
    metadata: Mapping[str, str]
    shard_of: Mapping[str, str]
    index_name: str = ""


@dataclass(frozen=True)
class Layout:
    """Which file of a folder each tensor belongs into; `metadata` is the free text of each file."""

    index_name: str
    shard_of: Mapping[str, str]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def by_size(cls, specs: list[TensorSpec]) -> Layout:
        """Lay out tensors in their order, in shards of at most `SHARD_BYTES`."""
        shards: list[list[str]] = [[]]
        filled = 0
        for spec in specs:
            if shards[-1] and filled + spec.size_bytes > SHARD_BYTES:
                shards.append([])
                filled = 0
            shards[-1].append(spec.name)
            filled += spec.size_bytes
        count = len(shards)
        shard_of = {
            name: f"{_STEM}-{number:05d}-of-{count:05d}.safetensors"
            for number, names in enumerate(shards, 1)
            for name in names
        }
        return cls(f"{_STEM}{INDEX_ENDING}", shard_of)


def read_folder(path: StrPath) -> ShardedModel:
    """Map the tensors of a folder. Raises `CheckpointError` where the files and the index do not fit each other.

    Torch's own shards beside safetensors are another copy of the model, as on hubs, and are not read.
    """
    folder, where = Path(path), os.fspath(path)
    found = {file.name: file for file in weights_in(folder)}
    indexes = [name for name in found if name.endswith(INDEX_ENDING)]
    files = [name for name in found if not name.endswith(".json")]
    if not (files or indexes) and (
        foreign := next((name for name in found if name.endswith(TORCH_INDEX_ENDING)), None)
    ):
        raise CheckpointError(
            f"{where}: {foreign} is the index of torch's own shards, which are not read: save safetensors, with "
            "save_pretrained(..., safe_serialization=True)"
        )
    if len(indexes) > 1 or (not indexes and len(files) != 1):
        names = ", ".join((indexes or files)[:5]) or "no safetensors file"
        raise CheckpointError(
            f"{where}: the folder has {names}: save one model into it, as one safetensors file or as shards with their "
            "index (save_pretrained)"
        )
    if not indexes:
        file = TensorFile.open(found[files[0]])
        return ShardedModel(
            {name: file.tensor(name) for name in file.names}, file.metadata, dict.fromkeys(file.names, files[0])
        )
    return _read_shards(folder, indexes[0], files)


def _read_shards(folder: Path, index_name: str, files: list[str]) -> ShardedModel:
    where = os.fspath(folder / index_name)
    try:
        with (folder / index_name).open("rb") as file:
            data = file.read(MAX_HEADER_BYTES + 1)  # a larger one is refused, and never in memory
    except OSError as error:
        raise CheckpointError(f"{where}: cannot be read: {error.strerror}; give a readable index") from None
    index = parse_index(data, where)
    for shard in index.shards:
        if shard not in files:
            raise CheckpointError(f"{where}: the shard {shard} is not there; save or copy all files of the model")
    for name in files:
        if name not in index.shards:
            raise CheckpointError(
                f"{where}: {name} lies beside the index, which does not name it: remove what belongs to another model"
            )
    tensors: dict[str, Array] = {}
    metadata: dict[str, str] = {}
    for shard in index.shards:
        opened = TensorFile.open(folder / shard)
        metadata = metadata or opened.metadata
        for spec in opened.specs:
            named = index.shard_of.get(spec.name)
            if spec.name in tensors:
                raise CheckpointError(f"{where}: tensor {spec.name!r} is in two shards, one of them {shard}")
            if named != shard:
                what = f"the index names {named} for it" if named else "the index does not name it"
                raise CheckpointError(f"{where}: tensor {spec.name!r} is in {shard}, and {what}; save the model again")
            tensors[spec.name] = opened.tensor(spec.name)
    if missing := next((name for name in index.shard_of if name not in tensors), None):
        raise CheckpointError(
            f"{where}: tensor {missing!r} is not in {index.shard_of[missing]}, where the index names it; save again"
        )
    in_order = {name: tensors[name] for name in index.shard_of}
    return ShardedModel(in_order, metadata, dict(index.shard_of), index_name)


def write_folder(
    path: StrPath, tensors: Mapping[str, Array], layout: Layout | None, metadata: Mapping[str, str]
) -> None:
    """Write the tensors as files of a folder, shard by shard, in place of the weights that are in it.

    `layout` is that of the trainer, which is kept if it has the same tensors. Other files of the folder stay. The index
    appears last, so that a folder whose writing was cut off is not taken for a model. Raises `CheckpointError`, and
    `StoreError` where the disk fails; while the files are made, the folder is as before.
    """
    folder = Path(path)
    specs = {name: TensorSpec(name, array.dtype, array.shape) for name, array in tensors.items()}
    if layout is None or layout.shard_of.keys() != specs.keys():
        layout = Layout.by_size(list(specs.values()))
    index = ShardIndex(layout.shard_of, sum(spec.size_bytes for spec in specs.values()))
    staged = temporary_beside(folder)
    try:
        staged.mkdir(mode=0o700)
        for shard in index.shards:
            mine = [spec for name, spec in specs.items() if layout.shard_of[name] == shard]
            with TensorFileWriter(staged / shard, mine, dict(layout.metadata or metadata)) as writer:
                for spec in writer.specs:
                    writer.write(spec.name, tensors[spec.name])
        if layout.index_name:
            (staged / layout.index_name).write_text(index.to_json(), encoding="utf-8")
        current_watch().check()
        _move_in(staged, folder, [*index.shards, *([layout.index_name] if layout.index_name else [])])
    except OSError as error:
        raise cannot_write(folder, error) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _move_in(staged: Path, folder: Path, names: list[str]) -> None:
    if not folder.is_dir():
        folder.unlink(missing_ok=True)  # the file of a trainer that saved files
        folder.mkdir(mode=0o700)
    for old in sorted(weights_in(folder), key=lambda file: not file.name.endswith(".json")):  # the index first
        old.unlink()
    for name in names:
        os.replace(staged / name, folder / name)
