"""Parts of tensors wherever they lie: views of arrays, or what is read from a file that cannot be mapped."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from aggregators.blocks import Scratch
from aggregators.dtypes import Array
from flavor.checkpoints.unmapped import FileTensor

Stored: TypeAlias = Array | FileTensor
"""A tensor whose elements are stored as they are."""


def flat(tensor: Stored) -> Stored:
    """The tensor with one dimension, of which `part` takes parts."""
    return tensor if isinstance(tensor, FileTensor) else np.asarray(tensor).reshape(-1)


def part(tensor: Stored, start: int, stop: int, scratch: Scratch, label: str) -> Array:
    """Elements `start` to `stop` (exclusive) of a flat tensor, in its own dtype: a view, or `scratch` of this label."""
    if not isinstance(tensor, FileTensor):
        return tensor[start:stop]
    row = scratch.row(label, stop - start, tensor.dtype)
    tensor.read(start, row)
    return row
