"""Arrays as a stream of bytes, so that no conversion holds a second copy of a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BLOCK_BYTES = 2**20


def byte_blocks(array: Array) -> Iterator[memoryview]:
    """The elements of an array in C order as byte blocks of about 1 MiB; use each before taking the next."""
    if array.size == 0:
        return
    if array.flags.c_contiguous:
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, BLOCK_BYTES):
            yield flat[start : start + BLOCK_BYTES].data
        return
    elements = BLOCK_BYTES // array.itemsize
    with np.nditer(array, ["external_loop", "buffered"], order="C", buffersize=elements) as chunks:
        for chunk in chunks:
            yield np.ascontiguousarray(chunk).view(np.uint8).data
