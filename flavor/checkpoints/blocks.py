"""Arrays as a stream of bytes, so that no conversion holds a second copy of a tensor."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from flavor.checkpoints.mapped import release

Array = npt.NDArray[Any]

BLOCK_BYTES = 2**20
RELEASE_BYTES = 8 * 2**20
"""Bytes of a map that a stream uses before it releases their pages."""


def byte_blocks(array: Array) -> Iterator[memoryview]:
    """Yield the elements of an array in C order as byte blocks of about 1 MiB; use each before taking the next.

    The pages of a mapped file are released as the stream goes on, so that a process stays small beside a large file.
    """
    if array.size == 0:
        return
    mapped = map_of(array)
    unreleased = 0
    for block in _blocks(array):
        yield block
        unreleased += len(block)
        if mapped is not None and unreleased >= RELEASE_BYTES:
            release(mapped)
            unreleased = 0
    if mapped is not None and unreleased >= BLOCK_BYTES:
        release(mapped)


def _blocks(array: Array) -> Iterator[memoryview]:
    if array.flags.c_contiguous:
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, BLOCK_BYTES):
            yield flat[start : start + BLOCK_BYTES].data
        return
    elements = BLOCK_BYTES // array.itemsize
    with np.nditer(array, ["external_loop", "buffered"], order="C", buffersize=elements) as chunks:
        for chunk in chunks:
            yield np.ascontiguousarray(chunk).view(np.uint8).data


def map_of(array: Array) -> mmap.mmap | None:
    """Return the file map under an array, if there is a read-only one."""
    if array.flags.writeable:
        return None
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None
