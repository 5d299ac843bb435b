"""What a site's edge keeps of the folders that its trainer saves, so that the global model is given as such a folder.

Kept are the layout of the shards, and the small files beside the weights, such as `config.json`: without it,
`from_pretrained` reads nothing. None of it leaves the site.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from flavor.atomic import write_json
from flavor.checkpoints.blocks import Array
from flavor.checkpoints.safetensors.folder import ShardedModel
from flavor.checkpoints.safetensors.layout import Layout, write_folder
from flavor.disk import naming

_LAYOUT, _FILES = "layout.json", "files"
_KEPT_ENDINGS = (".json", ".txt", ".model", ".jinja", ".vocab", ".tiktoken")
_MOST_KEPT_BYTES = 64 * 2**20
_MOST_KEPT = 100


class OwnFolder:
    """The edge's own notes on one trainer's folders, below `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, source: Path, model: ShardedModel) -> None:
        """Keep what the trainer's folder `source` has beside the tensors of its `model`. Raises `OSError`."""
        files = self._path / _FILES
        with naming(self._path):
            shutil.rmtree(files, ignore_errors=True)
            files.mkdir(mode=0o700, parents=True)
            for file in list(_small(source))[:_MOST_KEPT]:
                shutil.copyfile(file, files / file.name)
            write_json(self._path / _LAYOUT, asdict(Layout(model.index_name, model.shard_of, model.metadata)))

    def forget(self) -> None:
        """Remove the notes: the trainer saves files."""
        if self._path.exists():
            shutil.rmtree(self._path, ignore_errors=True)

    def write(self, target: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        """Write a model as the trainer saves it; raises as `write_folder`."""
        write_folder(target, tensors, self._layout(), metadata)
        with naming(target):
            for file in _small(self._path / _FILES):
                shutil.copyfile(file, target / file.name)

    def _layout(self) -> Layout | None:
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            return Layout(**json.loads((self._path / _LAYOUT).read_text(encoding="utf-8")))
        return None


def _small(folder: Path) -> Iterator[Path]:
    """Yield the small files of settings and vocabularies in a folder, by name."""
    if not folder.is_dir():
        return
    for file in sorted(folder.iterdir()):
        name = file.name
        if name.startswith(".") or name.endswith(".index.json") or not name.endswith(_KEPT_ENDINGS):
            continue
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= _MOST_KEPT_BYTES:
            yield file
