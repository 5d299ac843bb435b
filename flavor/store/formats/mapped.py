"""A checkpoint file in memory without being read: one read-only map that all its tensors share."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from flavor.errors import CheckpointError

StrPath = str | os.PathLike[str]


class Mapped:
    """A file mapped for reading; `view` and its slices keep the map alive, and nothing needs closing.

    The file may be replaced or deleted meanwhile, but not shortened in place: the kernel would kill the
    reader. Every writer of this project replaces.
    """

    def __init__(self, path: StrPath) -> None:
        self.name = os.fspath(path)
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    raise CheckpointError(f"{self.name}: the file is empty; save the checkpoint before you report it")
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise CheckpointError(_missing(self.name)) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CheckpointError(f"{self.name}: cannot be read: {reason}; give a readable checkpoint file") from None
        self.view = memoryview(self.map)


def release(mapped: mmap.mmap) -> None:
    """Take the pages of a read-only map out of this process; they stay in the page cache, and come back."""
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _missing(name: str) -> str:
    if Path(name + ".npz").exists():
        return f"{name}: no such file, but {name}.npz is there: np.savez appends .npz; give it an open file"
    return f"{name}: no such file; save the checkpoint there before you report it"
