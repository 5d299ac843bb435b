"""Which file of a folder each tensor belongs into, and how a model is written so, as `save_pretrained` reads it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flavor.atomic import cannot_write, temporary_beside
from flavor.checkpoints.blocks import Array
from flavor.checkpoints.safetensors.header import TensorSpec
from flavor.checkpoints.safetensors.shard_index import ShardIndex
from flavor.checkpoints.safetensors.writer import TensorFileWriter
from flavor.disk import StrPath
from flavor.saved import INDEX_ENDING, weights_in
from flavor.watch import current_watch

SHARD_BYTES = 5 * 10**9
"""Largest shard of a folder whose layout no trainer has chosen; a larger tensor has a shard of its own."""
_STEM = "model"


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
