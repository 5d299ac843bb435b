"""Tensors of a client's model whose elements are computed when they are asked for, block by block.

So no such tensor is ever whole in memory, and every rule sees plain parameters.
"""

from __future__ import annotations

import abc
from typing import Any, TypeAlias

import numpy as np

from aggregators.blocks import Scratch
from aggregators.dtypes import Array, Kind, compute_dtype, kind_of
from aggregators.parts import Stored

SPAN = 64 * 1024
"""Elements that are computed at once where all of a tensor is asked for."""


class ComputedTensor(abc.ABC):
    """A tensor of this shape and dtype. Never written to; `np.asarray` computes all of it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int

    @abc.abstractmethod
    def decode(self, start: int, stop: int, out: Array, scratch: Scratch) -> None:
        """Write elements `start` to `stop` (exclusive) of the flattened tensor to `out` `[stop - start]`.

        `out` has the type in which the tensor is reduced: `row_dtype`.
        """

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """The type of the rows that `decode` writes: the compute dtype of floats, the own dtype of others."""
        return compute_dtype(self.dtype) if kind_of(self.dtype) is Kind.FLOAT else self.dtype

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> Array:
        """Return the tensor as a new array of its shape and dtype."""
        if copy is False:
            raise ValueError("a computed tensor has no array to be viewed")
        whole = np.empty(self.shape, self.dtype)
        flat, scratch = whole.reshape(-1), Scratch()
        for start in range(0, self.size, SPAN):
            stop = min(start + SPAN, self.size)
            row = scratch.row("row", stop - start, self.row_dtype)
            with np.errstate(over="ignore", invalid="ignore"):
                self.decode(start, stop, row, scratch)
                np.copyto(flat[start:stop], row, casting="unsafe")
        return whole if dtype is None else whole.astype(dtype, copy=False)


Tensor: TypeAlias = Stored | ComputedTensor
"""A tensor of a client's model."""
