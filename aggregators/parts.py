"""Parts of tensors in arrays or in files: views of arrays, or data that is read from a file that cannot be mapped."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from aggregators.blocks import Scratch
from aggregators.dtypes import Array
from flavor.checkpoints.unmapped import FileTensor

Stored: TypeAlias = Array | FileTensor
"""A tensor whose elements are stored as they are."""


def flat(tensor: Stored) -> Stored:
    """Return the tensor with one dimension, for `part`."""
    return tensor if isinstance(tensor, FileTensor) else np.asarray(tensor).reshape(-1)


def part(tensor: Stored, start: int, stop: int, scratch: Scratch, label: str) -> Array:
    """Return elements `start` to `stop` (exclusive) of a flat tensor in its dtype: a view, or scratch of `label`."""
    if not isinstance(tensor, FileTensor):
        return tensor[start:stop]
    row = scratch.row(label, stop - start, tensor.dtype)
    tensor.read(start, row)
    return row
