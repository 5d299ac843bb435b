"""A model in a folder: one safetensors file, or shards with their index, as `save_pretrained` writes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.limits import MAX_HEADER_BYTES
from flavor.checkpoints.safetensors.reader import TensorFile
from flavor.checkpoints.safetensors.shard_index import parse_index
from flavor.disk import StrPath
from flavor.errors import CheckpointError
from flavor.saved import INDEX_ENDING, TORCH_INDEX_ENDING, weights_in


@dataclass(frozen=True)
class ShardedModel:
    """The tensors of one folder. `index_name` is '' for a single file without an index."""

    tensors: dict[str, Array]
    metadata: Mapping[str, str]
    shard_of: Mapping[str, str]
    index_name: str = ""


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
