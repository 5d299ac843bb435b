"""The element types that a checkpoint may hold, and what each format calls them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

DType = np.dtype[Any]

BFLOAT16: DType = np.dtype(ml_dtypes.bfloat16)

# numpy, safetensors, torch.NAME, torch.NAMEStorage (None: torch has no typed storage for it)
_TABLE: tuple[tuple[Any, str, str, str | None], ...] = (
    (np.bool_, "BOOL", "bool", "BoolStorage"),
    (np.uint8, "U8", "uint8", "ByteStorage"),
    (np.int8, "I8", "int8", "CharStorage"),
    (np.int16, "I16", "int16", "ShortStorage"),
    (np.uint16, "U16", "uint16", None),
    (np.float16, "F16", "float16", "HalfStorage"),
    (BFLOAT16, "BF16", "bfloat16", "BFloat16Storage"),
    (np.int32, "I32", "int32", "IntStorage"),
    (np.uint32, "U32", "uint32", None),
    (np.float32, "F32", "float32", "FloatStorage"),
    (np.int64, "I64", "int64", "LongStorage"),
    (np.uint64, "U64", "uint64", None),
    (np.float64, "F64", "float64", "DoubleStorage"),
)

BY_SAFETENSORS: dict[str, DType] = {row[1]: np.dtype(row[0]) for row in _TABLE}
BY_TORCH: dict[str, DType] = {row[2]: np.dtype(row[0]) for row in _TABLE}
BY_STORAGE: dict[str, DType] = {row[3]: np.dtype(row[0]) for row in _TABLE if row[3]}

SAFETENSORS_NAMES: dict[DType, str] = {dtype: name for name, dtype in BY_SAFETENSORS.items()}
TORCH_NAMES: dict[DType, str] = {dtype: name for name, dtype in BY_TORCH.items()}
STORAGE_NAMES: dict[DType, str] = {dtype: name for name, dtype in BY_STORAGE.items()}

ACCEPTED = ", ".join(sorted(BY_TORCH))


def is_supported(dtype: DType) -> bool:
    """Whether tensors of this element type can be aggregated; byte order does not matter."""
    return native(dtype) in SAFETENSORS_NAMES


def native(dtype: DType) -> DType:
    """The same element type in this machine's byte order."""
    return dtype if dtype.isnative else dtype.newbyteorder("=")
