"""A checkpoint file in memory without being read: one read-only map that all its tensors share."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

from flavor.checkpoints.npz_suffix import npz_hint
from flavor.disk import StrPath
from flavor.errors import CheckpointError

HUGE_PAGE_BYTES = 2 * 2**20
"""The size on x86-64, and on 64-bit ARM with pages of 4 KiB."""


class Mapped:
    """A file mapped for reading; `view` and its slices keep the map alive, and nothing needs closing.

    The file may be replaced or deleted at any time, but not shortened in place: the kernel would kill the reader. Every
    writer of this project replaces files.
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
        use_huge_pages(self.map)
        self.view = memoryview(self.map)


def use_huge_pages(mapped: mmap.mmap) -> None:
    """Ask the kernel to read a file into the page cache in huge pages, where the file system can.

    A file in huge pages is mapped at one page fault for each 2 MiB instead of 32 to 512. With a warm page cache those
    faults are half of the time of an aggregation. `TensorFileWriter` writes its files in that way.
    """
    if len(mapped) >= HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            mapped.madvise(mmap.MADV_HUGEPAGE)


def release(mapped: mmap.mmap, start: int = 0, stop: int | None = None) -> None:
    """Release the whole pages between two offsets from this process; they come back when they are used.

    The map is one of a file, for reading or for writing: what was written stays in the page cache.
    """
    stop = len(mapped) if stop is None else stop // mmap.PAGESIZE * mmap.PAGESIZE
    start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    if start < stop and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED, start, stop - start)


def _missing(name: str) -> str:
    if hint := npz_hint(Path(name)):
        return f"{name}: no such file, but {hint}"
    return f"{name}: no such file; save the checkpoint there before you report it"
