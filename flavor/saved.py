"""What a trainer has saved at the path of its checkpoint: a file, or a folder with safetensors files.

A folder is what `save_pretrained` of transformers writes: one safetensors file, or several (shards) and an index that
says which tensor is in which. Only this module spells the endings of their names. It is light, because a trainer's
process and each edge import it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

SHARDED = "sharded"
"""The format of a site whose trainer reads and saves folders; it never crosses the wire."""
SHARD_ENDING = ".safetensors"
INDEX_ENDING = ".safetensors.index.json"
TORCH_INDEX_ENDING = ".bin.index.json"


def is_saved(path: Path) -> bool:
    """Whether a checkpoint is there: a file, or a folder with a file of weights in it."""
    return path.is_file() or bool(weights_in(path))


def weights_in(folder: Path) -> list[Path]:
    """Return the safetensors files and the index in a folder, by name; none where `folder` is no folder.

    An index of torch's own shards is one of them, so that it is refused by name and not overlooked.
    """
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries if _is_weights(each.name) and each.is_file()]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def saved_bytes(path: Path) -> int:
    """Return the size of the checkpoint in bytes; 0 where there is none."""
    total = 0
    for file in weights_in(path) if path.is_dir() else [path]:
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total


def saved_mark(path: Path) -> tuple[int, ...] | None:
    """Return the inode, size and time of modification of each file of the checkpoint; None for no plain file."""
    found = list[int]()
    for file in weights_in(path) or [path]:
        try:
            status = file.stat()
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        found += (status.st_ino, status.st_size, status.st_mtime_ns)
    return tuple(found)


def remove_saved(path: Path) -> None:
    """Remove the checkpoint. Of a folder, the files of weights alone: the others may be the site's own."""
    if path.is_dir() and not path.is_symlink():
        for file in weights_in(path):
            file.unlink(missing_ok=True)
    else:
        path.unlink(missing_ok=True)


def _is_weights(name: str) -> bool:
    return not name.startswith(".") and name.endswith((SHARD_ENDING, INDEX_ENDING, TORCH_INDEX_ENDING))
