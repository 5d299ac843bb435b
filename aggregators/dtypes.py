"""The arithmetic of a tensor: the kind of its elements and the type in which they are reduced."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from flavor.errors import AggregationError

Array: TypeAlias = npt.NDArray[Any]

_NARROW = frozenset(
    np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
)
_CHUNK = 4096
_FLOAT32 = np.dtype(np.float32)
_FLOAT64 = np.dtype(np.float64)
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Kind(StrEnum):
    """How the elements of a tensor are aggregated."""

    FLOAT = "float"  # by the chosen rule
    INTEGER = "integer"  # by the mean or the order of that rule, rounded half to even
    BOOL = "bool"  # by majority
    HELD = "held"  # not at all: the caller gives the values that the global model gets


def kind_of(dtype: np.dtype[Any]) -> Kind:
    """Return the kind of `dtype`; raises `AggregationError` for complex numbers, text and objects."""
    if dtype.kind == "b":
        return Kind.BOOL
    if dtype.kind in "iu":
        return Kind.INTEGER
    if dtype.newbyteorder("=") in (_FLOAT32, _FLOAT64) or dtype.newbyteorder("=") in _NARROW:
        return Kind.FLOAT
    raise AggregationError(f"a tensor of dtype {dtype} cannot be aggregated (floats, integers and bool can)")


def is_finite(block: Array) -> bool:
    """Return whether no element of the 1-D float `block` is NaN or infinite."""
    return math.isfinite(squares(block)) or bool(np.isfinite(block).all())


def squares(block: Array) -> float:
    """Return the sum of the squares of the 1-D float `block`; infinite or NaN where it has no room in the block's type.

    It is finite only if every element is finite, and is faster than a look at each. One call takes all chunks; each is
    so short that no BLAS shares it among threads.
    """
    if block.dtype.itemsize < 4 or not block.dtype.isnative:
        wide = np.empty(block.size, compute_dtype(block.dtype))
        widen(block, wide)
        block = wide
    whole = block.size // _CHUNK * _CHUNK
    rows, rest = block[:whole].reshape(-1, _CHUNK), block[whole:]
    return float(np.matmul(rows[:, None, :], rows[:, :, None]).sum(dtype=np.float64)) + float(np.dot(rest, rest))


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the native type that floats of `dtype` are reduced in: float64 for float64, else float32."""
    return _FLOAT64 if dtype.newbyteorder("=") == _FLOAT64 else _FLOAT32


def widen(source: Array, out: Array) -> None:
    """Write the 1-D `source` into `out`, of the compute dtype. The conversion is exact, because it widens."""
    if source.dtype == _BFLOAT16 and out.dtype == _FLOAT32:
        # A bfloat16 is the upper half of a float32, so shifting bits beats converting numbers one by one.
        bits = out.view(np.uint32)
        np.copyto(bits, source.view(np.uint16))
        np.left_shift(bits, 16, out=bits)
    else:
        np.copyto(out, source, casting="unsafe")
